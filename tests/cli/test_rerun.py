"""`dlgenome rerun`: the same files again, or a refusal that names what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dlgenome.pipeline.rerun_inputs import check_inputs
from dlgenome.pipeline.rerunning import RerunRequest, compare_with_old, plan_rerun
from dlgenome_cli.main import cli

Attribute = Callable[..., Result]
COMPUTING = ("--n-references", "3", "--batch-size", "6", "--device", "cpu", "--threads", "1", "-q")
INPUTS = (*("genome.fa", "genome.fa.fai", "peaks.narrowPeak", "bpnet.safetensors", "linear.pt", "linear.py"),)
EQUAL = "in every dataset and identity attribute."


def rerun(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["rerun", *map(str, arguments)])


def run(*arguments: object, stdin: bytes | None = None) -> None:
    words = ["attribute", "-g", "genome.fa", *COMPUTING, *map(str, arguments)]
    result = CliRunner().invoke(cli, words, input=stdin)
    assert result.exit_code == 0, result.stderr


def copy_inputs(inputs: Path, folder: Path) -> Path:
    for name in INPUTS:
        shutil.copy(inputs / name, folder)
    return folder


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the inputs, which is the working folder."""
    monkeypatch.chdir(copy_inputs(inputs, tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def run_once(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs and a run on them, with relative paths; the folder where it was made is no more."""
    made = copy_inputs(inputs, tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        run("-m", "bpnet.safetensors", "-r", "peaks.narrowPeak", "-o", "old", "--limit", "4")
    return made.rename(made.with_name("kept"))


@pytest.fixture
def old(run_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run.json of a copy of that run, in the working folder."""
    shutil.copytree(run_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "old.run.json"


def test_a_rerun_gives_the_same_files_and_says_so(old: Path) -> None:
    listed = rerun(old, "-o", "new", "--list-outputs").stdout.splitlines()
    assert not list(old.parent.glob("new*"))
    result = rerun(old, "-o", "new")
    assert result.exit_code == 0, result.stderr
    assert sorted(listed) == sorted(path.name for path in old.parent.glob("new*"))
    assert result.stdout == f"new.counts_scores.h5 is equal to {old.parent}/old.counts_scores.h5 {EQUAL}\n"
    assert "unchanged: checkpoint bpnet.safetensors" in result.stderr
    assert "Scored 4 regions" in result.stderr
    for ending in ("counts_scores.bw", "interpreted_regions.bed", "skipped_regions.tsv"):
        assert Path(f"new.{ending}").read_bytes() == Path(f"old.{ending}").read_bytes()
    facts = json.loads(Path("new.run.json").read_text())
    assert (facts["settings"]["threads"], facts["settings"]["batch_size"]) == (1, 6)


def test_a_dry_run_checks_and_writes_nothing(old: Path) -> None:
    before = sorted(old.parent.iterdir())
    result = rerun(old, "-o", "new", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "Nothing was written." in result.stderr
    assert sorted(old.parent.iterdir()) == before


def change_weights(folder: Path) -> None:
    data = bytearray((folder / "bpnet.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "bpnet.safetensors").write_bytes(bytes(data))


def change_regions(folder: Path) -> None:
    with (folder / "peaks.narrowPeak").open("a") as file:
        file.write("# a comment\n")


def change_contigs(folder: Path) -> None:
    with (folder / "genome.fa").open("a") as file:
        file.write(">chrC\nACGT\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_weights, "bpnet.safetensors (the checkpoint) has changed: its SHA-256 is not"),
        (change_regions, "peaks.narrowPeak (the regions) has changed"),
        (change_contigs, "genome.fa is another genome: its names and lengths"),
        (
            lambda folder: (folder / "bpnet.safetensors").unlink(),
            "no such file; check the path (the checkpoint; -m",
        ),
        (lambda folder: (folder / "genome.fa").unlink(), "(the genome; -g says where it is now)"),
    ],
)
def test_files_that_changed_are_refused_by_name(
    old: Path, change: Callable[[Path], None], words: str
) -> None:
    change(old.parent)
    for flags in ((), ("--dry-run",)):
        result = rerun(old, "-o", "new", *flags)
        assert result.exit_code == 3
        assert words in result.stderr
    assert not list(old.parent.glob("new*"))


def test_other_bases_in_a_genome_of_the_same_lengths_are_seen_in_the_old_scores(old: Path) -> None:
    text = Path("genome.fa").read_text().splitlines(keepends=True)
    Path("genome.fa").write_text("".join(line if ">" in line else line[::-1].strip() + "\n" for line in text))
    result = rerun(old, "-o", "new")
    assert result.exit_code == 3
    assert "/raw/seq does not hold the bases that genome.fa has there" in result.stderr
    assert "rows 0-3" in result.stderr


def test_everything_that_changed_is_named_at_once(old: Path) -> None:
    change_weights(old.parent)
    change_regions(old.parent)
    result = rerun(old, "-o", "new")
    assert "(the checkpoint)" in result.stderr
    assert "(the regions)" in result.stderr


def test_files_may_have_moved(old: Path) -> None:
    Path("elsewhere").mkdir()
    for name in ("bpnet.safetensors", "peaks.narrowPeak", "genome.fa"):
        Path(name).rename(f"elsewhere/{name}")
    places = ("-m", "elsewhere/bpnet.safetensors", "-r", "elsewhere/peaks.narrowPeak")
    assert rerun(old, "-o", "new", "--dry-run", *places).exit_code == 3
    result = rerun(old, "-o", "new", "--dry-run", *places, "-g", "elsewhere/genome.fa")
    assert result.exit_code == 0, result.stderr
    assert "unchanged: checkpoint elsewhere/bpnet.safetensors" in result.stderr
    assert "unchanged: genome elsewhere/genome.fa" in result.stderr


def test_relative_paths_are_those_of_the_folder_of_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run("-m", "bpnet.safetensors", "-r", "peaks.narrowPeak", "-o", "old", "--limit", "2")
    old = folder / "old.run.json"
    monkeypatch.chdir(tmp_path_factory.mktemp("other"))
    result = rerun(old, "-o", "new", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert f"unchanged: checkpoint {folder}/bpnet.safetensors" in result.stderr


def test_scores_that_changed_since_are_told(old: Path) -> None:
    with h5py.File("old.counts_scores.h5", "r+") as file:
        values = file["projected_shap/seq"][2]
        base, position = np.unravel_index(np.abs(values).argmax(), values.shape)
        file["projected_shap/seq"][2, base, position] *= 1.5
    result = rerun(old, "-o", "new")
    assert result.exit_code == 0
    assert "new.counts_scores.h5 is not equal to " in result.stdout
    assert "of the largest score" in result.stdout
    assert "More: dlgenome diff" in result.stdout


def test_without_the_old_scores_there_is_nothing_to_compare(old: Path) -> None:
    plan = plan_rerun(RerunRequest(run_json=old, output=Path("new")))
    Path("old.counts_scores.h5").write_text("damaged")
    (found,) = compare_with_old(plan)
    assert found.difference is None
    assert "is not an HDF5 file" in found.reason
    assert check_inputs(plan)
    Path("old.counts_scores.h5").unlink()
    assert compare_with_old(plan)[0].reason == "it is not there any more"
    result = rerun(old.rename("renamed.json"), "-o", "new")
    assert result.exit_code == 0
    assert result.stdout == "There are no old scores to compare with.\n"


def test_the_run_itself_is_never_written_over(old: Path) -> None:
    result = rerun(old, "-o", "old", "--overwrite")
    assert result.exit_code == 2
    assert "is the run itself" in result.stderr


def test_regions_from_standard_input_must_be_given(folder: Path) -> None:
    regions = Path("peaks.narrowPeak").read_bytes()
    run("-m", "bpnet.safetensors", "-r", "-", "-o", "old", stdin=regions)
    result = rerun("old.run.json", "-o", "new")
    assert result.exit_code == 2
    assert "standard input" in result.stderr
    result = rerun("old.run.json", "-o", "new", "-r", "peaks.narrowPeak", "--dry-run")
    assert result.exit_code == 0, result.stderr
    Path("peaks.narrowPeak").write_bytes(regions + b"\n")
    assert rerun("old.run.json", "-o", "new2", "-r", "peaks.narrowPeak").exit_code == 3


def test_a_shard_is_repeated_as_a_shard(folder: Path) -> None:
    run("-m", "bpnet.safetensors", "-r", "peaks.narrowPeak", "-o", "old", "--shard", "2/3")
    result = rerun("old.shard-2-of-3.run.json", "-o", "new")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("new.shard-2-of-3.counts_scores.h5 is equal to old.shard-2-of-3.counts")


CODE = ("--architecture", "linear.py:linear", "--window", "100", "-m", "linear.pt", "-r", "peaks.narrowPeak")
FUNCTION = "def second(output):\n    return output[:, 1]\n"


def test_code_never_runs_because_a_file_says_so(folder: Path) -> None:
    Path("target.py").write_text(FUNCTION)
    run(*CODE, "-t", "second=target.py:second", "-t", "index:0", "-o", "old", "--limit", "3")
    Path("linear.py").write_text("raise SystemExit('it ran')\n" + Path("linear.py").read_text())
    result = rerun("old.run.json", "-o", "new")
    assert result.exit_code == 2
    assert "This run was given --architecture linear.py:linear, which runs code: repeat it." in result.stderr
    result = rerun("old.run.json", "-o", "new", "--architecture", "linear.py:linear")
    assert result.exit_code == 2
    assert "This run was given -t second=target.py:second, a function" in result.stderr
    given = ("--architecture", "linear.py:linear", "-t", "second=target.py:second")
    result = rerun("old.run.json", "-o", "new", *given)
    assert result.exit_code == 3
    assert "--architecture linear.py:linear has other code" in result.stderr
    assert not list(folder.glob("new*"))


def test_code_runs_when_a_person_repeats_its_flags(folder: Path) -> None:
    Path("target.py").write_text(FUNCTION)
    run(*CODE, "-t", "second=target.py:second", "-t", "index:0", "-o", "old", "--limit", "3")
    given = ("--architecture", "linear.py:linear", "-t", "second=target.py:second")
    result = rerun("old.run.json", "-o", "new", *given)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count(EQUAL) == 2
    Path("target.py").write_text(FUNCTION.replace("1", "2"))
    result = rerun("old.run.json", "-o", "new2", *given)
    assert result.exit_code == 3
    assert "-t second=target.py:second index:0 has other code" in result.stderr
    result = rerun("old.run.json", "-o", "new2", *given, "-t", "index:1")
    assert result.exit_code == 2
    assert "-t index:1: a rerun takes its targets from run.json" in result.stderr


def test_plug_ins_are_repeated_and_compared(folder: Path) -> None:
    Path("rules.py").write_text("RULES = {}\n")
    run(
        "-m",
        "bpnet.safetensors",
        "-r",
        "peaks.narrowPeak",
        "-o",
        "old",
        "--plugin",
        "rules.py",
        "--limit",
        "2",
    )
    result = rerun("old.run.json", "-o", "new")
    assert result.exit_code == 2
    assert "--plugin rules.py, and plug-ins run code" in result.stderr
    assert rerun("old.run.json", "-o", "new", "--plugin", "rules.py", "--dry-run").exit_code == 0
    Path("rules.py").write_text("RULES = {}  # changed\n")
    result = rerun("old.run.json", "-o", "new", "--plugin", "rules.py")
    assert result.exit_code == 3
    assert "rules.py (the plug-in) has changed" in result.stderr


def test_trust_is_given_anew(old: Path) -> None:
    facts = json.loads(old.read_text())
    facts["settings"]["trust_pickle"] = True
    old.write_text(json.dumps(facts))
    result = rerun(old, "-o", "new")
    assert result.exit_code == 2
    assert "repeat the flag" in result.stderr
    assert rerun(old, "-o", "new", "--trust-pickle", "--dry-run").exit_code == 0


def test_files_of_references_and_of_regions_to_leave_out_are_compared(folder: Path) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (2, 100))
    np.savez("references.npz", references=(codes[:, None] == np.arange(4)[:, None]).astype(np.int8))
    Path("exclude.bed").write_text("chrA\t0\t10\n")
    words = ["attribute", "-g", "genome.fa", "-m", "bpnet.safetensors", "-r", "peaks.narrowPeak", "-o", "old"]
    words += ["--references", "file:references.npz", "--exclude", "exclude.bed", "--device", "cpu", "-q"]
    assert CliRunner().invoke(cli, [*words, "--threads", "1", "--limit", "3"]).exit_code == 0
    for name in ("references.npz", "exclude.bed"):
        Path(name).rename(f"moved-{name}")
    result = rerun("old.run.json", "-o", "new")
    assert result.exit_code == 3
    assert "(the references; --references-file" in result.stderr
    assert "(the regions to leave out; --exclude" in result.stderr
    Path("moved-references.npz").rename("references.npz")
    result = rerun("old.run.json", "-o", "new", "--exclude", "moved-exclude.bed")
    assert result.exit_code == 0, result.stderr
    assert EQUAL in result.stdout
    Path("exclude.bed").write_text("chrA\t0\t11\n")
    result = rerun("old.run.json", "-o", "new2")
    assert result.exit_code == 3
    assert "exclude.bed (the regions to leave out) has changed" in result.stderr


def test_folds_are_repeated_together(folder: Path) -> None:
    import torch

    torch.save({"1.weight": torch.ones(3, 400), "1.bias": torch.ones(3)}, "other.pt")
    run(*CODE, "-m", "other.pt", "-t", "index:0", "--per-fold", "-o", "old", "--limit", "2")
    given = ("--architecture", "linear.py:linear")
    result = rerun("old.run.json", "-o", "new", *given)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count(EQUAL) == 3
    result = rerun("old.fold-1.run.json", "-o", "new2", *given)
    assert result.exit_code == 2
    assert "give the run.json without fold in its name" in result.stderr
    result = rerun("old.run.json", "-o", "new2", *given, "-m", "linear.pt")
    assert result.exit_code == 2
    assert "This run had 2 checkpoints" in result.stderr
    result = rerun("old.run.json", "-o", "new2", *given, "-m", "other.pt", "-m", "linear.pt")
    assert result.exit_code == 3


def test_flags_for_files_that_the_run_did_not_have_are_refused(old: Path) -> None:
    for flags in (("-f", "genome.fa"), ("--exclude", "x.bed"), ("--references-file", "x.npz")):
        result = rerun(old, "-o", "new", *flags)
        assert result.exit_code == 2, flags


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        facts = json.loads(text)
        change(facts)
        return json.dumps(facts)

    return apply


@pytest.mark.parametrize(
    ("change", "exit_code", "words"),
    [
        (lambda text: "", 3, "it is not JSON"),
        (lambda text: text[:200], 3, "it is not JSON"),
        (damaged(lambda facts: facts.pop("settings")), 3, "does not say how the run was made"),
        (damaged(lambda facts: facts.pop("request")), 3, "does not say how the run was made"),
        (damaged(lambda facts: facts["settings"].update(mean=True)), 3, "`dlgenome merge` joined"),
        (damaged(lambda facts: facts["settings"].update(seed="x")), 3, "its settings cannot be"),
        (damaged(lambda facts: facts["settings"].update(model=3)), 3, "its settings cannot be"),
        (damaged(lambda facts: facts["settings"].update(targets=7)), 3, "its settings cannot be"),
        (damaged(lambda facts: facts["settings"].update(rule="none")), 2, "--rule is none"),
        (damaged(lambda facts: facts["settings"].update(magic=1)), 2, "There is no setting magic"),
    ],
)
def test_a_damaged_run_json_is_a_clear_line(
    old: Path, change: Callable[[str], str], exit_code: int, words: str
) -> None:
    old.write_text(change(old.read_text()))
    result = rerun(old, "-o", "new")
    assert (result.exit_code, words in result.stderr) == (exit_code, True), result.stderr
    assert "Traceback" not in result.stderr
    assert "bug" not in result.stderr


def test_a_missing_run_json_is_exit_3(tmp_path: Path) -> None:
    result = rerun(tmp_path / "nothing.run.json", "-o", tmp_path / "new")
    assert result.exit_code == 3
    assert "nothing.run.json is not there" in result.stderr
