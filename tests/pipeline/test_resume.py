"""A run that is stopped and continued is the run that was never stopped, and nothing else is continued."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pybigtools
import pyBigWig
import pytest

from dlgenome.config import RunConfig
from dlgenome.errors import CompletenessError, InputError, Interrupted, UsageError
from dlgenome.pipeline import attribute
from dlgenome.pipeline.request import differences, request_of
from dlgenome.scores import ScoresFile

Config = Callable[..., RunConfig]
StopAt = Callable[[int], dict[str, Any]]
AssertEqual = Callable[[Path, Path], None]

FORMATS = ("h5", "bigwig", "npz")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(f"{prefix}.partial") / "run-state.json").read_text())
    return found


def facts(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{prefix}.run.json").read_text())
    return found


@pytest.mark.parametrize("stops", [(0,), (4,), (12,), (23,), (4, 9, 20)])
def test_a_stopped_run_ends_as_if_it_had_not_been(
    config: Config, tmp_path: Path, stop_at: StopAt, assert_equal: AssertEqual, stops: tuple[int, ...]
) -> None:
    attribute(config("whole", formats=FORMATS))
    for done in stops:
        with pytest.raises(Interrupted, match=r"Stopped by a test; .* run again with --resume\.$") as stopped:
            attribute(config(formats=FORMATS, resume=True), **stop_at(done))
        assert stopped.value.exit_code == 75
        assert [name for name in names_in(tmp_path) if name.startswith("run.")] == ["run.partial"]
    summary = attribute(config(formats=FORMATS, resume=True))
    assert (summary.scored, summary.resumed_rows) == (23, stops[-1] // 4 * 4)
    assert facts(tmp_path / "run")["regions"]["scored_before_resuming"] == summary.resumed_rows
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_folds_kept_each_are_resumed_together(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt, assert_equal: AssertEqual
) -> None:
    options: dict[str, Any] = {"folds": (inputs / "fold1.pt",), "per_fold": True, "fold_sd": True}
    attribute(config("whole", **options))
    with pytest.raises(Interrupted):
        attribute(config(**options), **stop_at(8))
    attribute(config(resume=True, **options))
    for prefix in ("", ".fold-1", ".fold-2"):
        assert_equal(tmp_path / f"run{prefix}", tmp_path / f"whole{prefix}")


@pytest.mark.parametrize("n_renamed", [0, 3, 9, 12])
def test_a_run_killed_while_its_files_get_their_names_scores_nothing_again(
    config: Config,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_renamed: int,
    assert_equal: AssertEqual,
) -> None:
    options: dict[str, Any] = {
        "folds": (inputs / "fold1.pt",),
        "per_fold": True,
        "limit": 20,
        "formats": ("h5",),
    }
    attribute(config("whole", **options))
    rename = os.replace
    renamed: list[Path] = []

    def killed_after(source: Path, target: Path) -> None:
        if Path(target).parent == tmp_path:
            if len(renamed) == n_renamed:
                raise KeyboardInterrupt
            renamed.append(target)
        rename(source, target)

    def killed_instead(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_after)
        patch.setattr("dlgenome.pipeline.finishing.discard_partial", killed_instead)
        with pytest.raises(KeyboardInterrupt):
            attribute(config(**options))
    assert len(renamed) == n_renamed
    summary = attribute(config(resume=True, **options))
    assert summary.was_finished == (n_renamed == 12)
    assert summary.resumed_rows == (0 if summary.was_finished else 20)
    assert not list(tmp_path.glob("*.partial*"))
    for prefix in ("", ".fold-1", ".fold-2"):
        assert_equal(tmp_path / f"run{prefix}", tmp_path / f"whole{prefix}")


@pytest.mark.parametrize("left", [0, 5, 300, -1])
def test_a_spool_that_a_power_cut_shortened_is_gone_on_with(
    config: Config, tmp_path: Path, stop_at: StopAt, assert_equal: AssertEqual, left: int
) -> None:
    attribute(config("whole"))
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(16))
    spool = tmp_path / "run.partial" / "scores.spool"
    spool.write_bytes(spool.read_bytes()[:left])
    summary = attribute(config(resume=True))
    assert summary.resumed_rows == (12 if left == -1 else 0)
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_resume_starts_where_there_is_nothing_and_leaves_a_finished_run_alone(
    config: Config, tmp_path: Path
) -> None:
    first = attribute(config(resume=True))
    assert not first.was_finished
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()}
    again = attribute(config(resume=True, max_delta=1.0))
    assert again.was_finished
    assert (again.scored, again.skipped, again.outputs) == (23, 0, first.outputs)
    assert again.completeness == first.completeness
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.iterdir()} == before


def test_the_completeness_gate_holds_for_a_finished_run_too(config: Config) -> None:
    attribute(config())
    with pytest.raises(CompletenessError):
        attribute(config(resume=True, max_delta=1e-15))


def test_a_partly_missing_set_of_files_is_made_again(
    config: Config, tmp_path: Path, assert_equal: AssertEqual, caplog: pytest.LogCaptureFixture
) -> None:
    attribute(config("whole"))
    attribute(config())
    for missing in ("run.index-0_scores.bw", "run.run.json"):
        (tmp_path / missing).unlink()
        assert not attribute(config(resume=True)).was_finished
        assert "Some of the final files are missing, and all are made again." in caplog.text
        caplog.clear()
        assert_equal(tmp_path / "run", tmp_path / "whole")


def test_an_overwrite_that_was_stopped_is_gone_on_with(
    config: Config, tmp_path: Path, stop_at: StopAt, assert_equal: AssertEqual
) -> None:
    attribute(config("whole", seed=1))
    attribute(config())
    before = (tmp_path / "run.index-0_scores.h5").read_bytes()
    with pytest.raises(Interrupted):
        attribute(config(seed=1, overwrite=True), **stop_at(8))
    assert (tmp_path / "run.index-0_scores.h5").read_bytes() == before
    with pytest.raises(UsageError, match="--seed was 1 and is 2"):
        attribute(config(seed=2, resume=True))
    assert attribute(config(seed=1, resume=True)).resumed_rows == 8
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_an_unfinished_run_is_neither_continued_nor_lost_without_being_asked(
    config: Config, tmp_path: Path, stop_at: StopAt
) -> None:
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(8))
    spool = (tmp_path / "run.partial" / "scores.spool").read_bytes()
    with pytest.raises(UsageError, match="holds an unfinished run: continue it with --resume"):
        attribute(config())
    with pytest.raises(InputError):
        attribute(config(overwrite=True, genome=tmp_path / "nowhere.fa"))
    assert (tmp_path / "run.partial" / "scores.spool").read_bytes() == spool
    assert attribute(config(overwrite=True)).resumed_rows == 0
    assert "run.partial" not in names_in(tmp_path)


def test_what_fails_before_the_first_score_leaves_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError):
        attribute(config(genome=tmp_path / "nowhere.fa"))
    with pytest.raises(UsageError):
        attribute(config(targets=("index:7",)))
    attribute(config(dry_run=True))
    assert names_in(tmp_path) == []


def test_a_second_process_on_the_same_prefix_is_refused(
    config: Config, tmp_path: Path, assert_equal: AssertEqual
) -> None:
    attribute(config("whole"))
    refused: list[str] = []

    def meddle(done: int, total: int) -> None:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(Interrupted, match=f"in use by process {os.getpid()}") as problem:
                attribute(config(**options))
            refused.append(str(problem.value))

    attribute(config(limit=None), meddle)
    assert len(refused) == 3 * 7
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_lost_its_lock_ends_and_writes_no_files(config: Config, tmp_path: Path) -> None:
    def steal(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "run.partial.lock").write_text('{"token": "another", "pid": 1}')

    with pytest.raises(Interrupted, match=r"run\.partial\.lock was removed or taken over by another run"):
        attribute(config(), steal)
    assert names_in(tmp_path) == ["run.partial", "run.partial.lock"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", 5, "--seed was 0 and is 5"),
        ("n_references", 4, "--n-references was 3 and is 4"),
        ("references", "zeros", "--references was dinucleotide-shuffle and is zeros"),
        ("targets", ("index:0", "index:1"), "--target was index:0 and is index:0,index:1"),
        ("edge", "pad", "--edge was drop and is pad"),
        ("limit", 20, "--limit was not given and is 20"),
        ("order", "shuffle:3", "--order was input and is shuffle:3"),
        ("chroms", ("chr1",), "--chroms was not given and is chr1"),
        ("center", "midpoint", "--center was summit and is midpoint"),
        ("rule", "revealcancel", "--rule was rescale and is revealcancel"),
        ("precision", "float64", "--precision was float32 and is float64"),
        ("score_dtype", "float16", "--score-dtype was float32 and is float16"),
        ("reverse_complement", True, "--reverse-complement was False and is True"),
        ("stranded", True, "--stranded was False and is True"),
        ("reference_se", True, "--reference-se was False and is True"),
        ("overlap", "max", "--overlap was nearest and is max"),
        ("crop", 20, "--crop was not given and is 20"),
        ("formats", ("h5",), "--formats was h5,bigwig and is h5"),
    ],
)
def test_a_setting_that_changes_the_files_is_named(
    config: Config, tmp_path: Path, stop_at: StopAt, name: str, value: Any, words: str
) -> None:
    found = differences(request_of(config()), request_of(config(**{name: value})))
    assert found == [words]


def test_settings_that_only_say_how_a_run_is_done_may_change(config: Config, tmp_path: Path) -> None:
    changed = config(
        "elsewhere", threads=2, batch_size=3, fail_fast=True, max_failures=0.5, max_delta=0.1, overwrite=True
    )
    assert differences(request_of(config()), request_of(changed)) == []


def test_another_request_is_refused_whether_the_run_is_finished_or_not(
    config: Config, tmp_path: Path, stop_at: StopAt
) -> None:
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(8))
    for _ in range(2):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(
            UsageError, match=r"--resume: .*run was begun with other .*: --crop .*; --seed was"
        ):
            attribute(config(seed=3, crop=20, resume=True))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        attribute(config(resume=True))


@pytest.mark.parametrize("changes", [{"targets": ("index:1",)}, {"formats": ("h5", "npz")}])
def test_other_files_of_a_finished_run_are_not_what_it_was_asked_for(
    config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    attribute(config())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"was begun with other inputs or settings: --(target|formats) was"):
        attribute(config(resume=True, **changes))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def copied(inputs: Path, folder: Path) -> dict[str, Any]:
    """The same inputs in another place."""
    shutil.copytree(inputs, folder)
    return {
        "model": folder / "fold0.pt",
        "architecture": f"{folder / 'model.py'}:ratio",
        "genome": folder / "genome.fa",
        "regions": str(folder / "regions.bed"),
    }


def test_inputs_that_were_moved_are_the_same_inputs(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt
) -> None:
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(8))
    moved = copied(inputs, tmp_path / "moved")
    assert attribute(config(resume=True, **moved)).resumed_rows == 8
    assert attribute(config(resume=True)).was_finished


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fold0.pt", "the checkpoint \\(sha256\\) was"),
        ("regions.bed", "the regions \\(sha256\\) was"),
        ("model.py", "--architecture was .* and is .*"),
        ("genome.fa", "genome.fa has other bases at chr1:"),
    ],
)
def test_inputs_whose_contents_changed_are_named(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt, name: str, words: str
) -> None:
    moved = copied(inputs, tmp_path / "moved")
    with pytest.raises(Interrupted):
        attribute(config(**moved), **stop_at(8))
    changed = tmp_path / "moved" / name
    if name == "fold0.pt":
        shutil.copy(inputs / "fold1.pt", changed)
    elif name == "genome.fa":
        text = changed.read_text()
        changed.write_text(text.translate(str.maketrans("ACGT", "CGTA")))
    else:
        changed.write_text(changed.read_text() + "\n")
    with pytest.raises((UsageError, InputError), match=words):
        attribute(config(resume=True, **moved))
    assert (tmp_path / "run.partial" / "scores.spool").exists()


def piped(text: bytes) -> dict[str, Any]:
    return {"stdin": io.BufferedReader(io.BytesIO(text))}


def test_piped_regions_are_kept_and_need_not_be_piped_again(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt, assert_equal: AssertEqual
) -> None:
    bed = (inputs / "regions.bed").read_bytes()
    attribute(config("whole"))
    with pytest.raises(Interrupted):
        attribute(config(regions="-"), **piped(bed), **stop_at(8))
    assert (tmp_path / "run.partial" / "stdin.bed").read_bytes() == bed
    with pytest.raises(UsageError, match="the regions \\(sha256\\) was"):
        attribute(config(regions="-", resume=True), **piped(bed + b"chr1\t5\t50\tmore\n"))
    with pytest.raises(Interrupted):
        attribute(config(regions="-", resume=True), **piped(bed), **stop_at(12))
    summary = attribute(config(regions="-", resume=True), **piped(b""))
    assert summary.resumed_rows == 12
    assert_equal(tmp_path / "run", tmp_path / "whole")
    assert attribute(config(regions="-", resume=True), **piped(b"")).was_finished
    assert attribute(config(regions="-", resume=True), **piped(bed)).was_finished
    with pytest.raises(UsageError, match="the regions \\(sha256\\) was"):
        attribute(config(regions="-", resume=True), **piped(bed + b"chr1\t5\t50\tmore\n"))


def test_regions_from_a_named_pipe_are_read_once(
    config: Config, inputs: Path, tmp_path: Path, assert_equal: AssertEqual
) -> None:
    attribute(config("whole"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    bed = (inputs / "regions.bed").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(bed,), daemon=True)
    writer.start()
    attribute(config(regions=str(pipe)))
    assert_equal(tmp_path / "run", tmp_path / "whole")
    assert attribute(config(regions=str(pipe), resume=True)).was_finished


def test_fasta_records_are_resumed_and_left_alone_when_finished(
    config: Config, tmp_path: Path, stop_at: StopAt
) -> None:
    records = tmp_path / "records.fa"
    records.write_text(
        "".join(f">r{row}\n{'ACGTTGCA' * 4}{'ACGTACGT'[row % 4 :][:4]}TTGA\n" for row in range(9))
    )
    options = {"genome": None, "regions": None, "fasta": records}
    with pytest.raises(Interrupted):
        attribute(config(**options), **stop_at(4))
    assert attribute(config(resume=True, **options)).resumed_rows == 4
    assert attribute(config(resume=True, **options)).was_finished
    records.write_text(records.read_text().replace("TTGA", "TTGC"))
    with pytest.raises(UsageError, match="the fasta \\(sha256\\) was"):
        attribute(config(resume=True, **options))


def test_references_from_a_file_are_known_by_their_contents(
    config: Config, tmp_path: Path, stop_at: StopAt
) -> None:
    def references(name: str, base: int) -> str:
        with h5py.File(tmp_path / name, "w") as file:
            file["references"] = np.broadcast_to(np.eye(4)[:, [base]], (3, 4, 40))
        return f"file:{tmp_path / name}"

    first, same, other = references("a.h5", 0), references("b.h5", 0), references("c.h5", 1)
    with pytest.raises(Interrupted):
        attribute(config(references=first), **stop_at(8))
    for _ in range(2):
        with pytest.raises(UsageError, match="the references \\(sha256\\) was"):
            attribute(config(references=other, resume=True))
        attribute(config(references=same, resume=True))


def test_a_damaged_record_of_the_run_is_called_one(config: Config, tmp_path: Path, stop_at: StopAt) -> None:
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(8))
    (tmp_path / "run.partial" / "run-state.json").write_text("{")
    with pytest.raises(InputError, match=r"run-state\.json cannot be read, .* begin anew with --overwrite"):
        attribute(config(resume=True))
    attribute(config(overwrite=True))
    (tmp_path / "run.run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.run\.json does not say how the run was made"):
        attribute(config(resume=True))


def test_a_smaller_step_is_remembered_and_taken_again(
    config: Config, tmp_path: Path, stop_at: StopAt
) -> None:
    with pytest.raises(Interrupted):
        attribute(config(batch_size=6), **stop_at(8))
    assert state(tmp_path / "run")["batch_size"] == 6
    assert attribute(config(batch_size=12, resume=True)).batch_size == 6
    assert facts(tmp_path / "run")["identity"]["batch_size"] == 6


def test_an_empty_shard_has_empty_files_that_others_open_and_passes_the_gate(
    config: Config, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"formats": FORMATS, "shard": "1/25", "max_delta": 0.1}
    summary = attribute(config(**options))
    assert (summary.scored, summary.skipped) == (0, 0)
    prefix = tmp_path / "run.shard-1-of-25"
    with ScoresFile(Path(f"{prefix}.index-0_scores.h5")) as scores:
        assert (scores.n_regions, scores.length) == (0, 40)
        assert list(scores.windows()) == []
    with pyBigWig.open(f"{prefix}.index-0_scores.bw") as bigwig:
        assert bigwig.chroms() == {"chr1": 4000, "chr2": 4}
        assert bigwig.header()["nBasesCovered"] == 0
        assert bigwig.intervals("chr1") is None
    with pybigtools.open(f"{prefix}.index-0_scores.bw") as bigwig:
        assert bigwig.chroms() == {"chr1": 4000, "chr2": 4}
        assert list(bigwig.records("chr1")) == []
    for name in ("ohe", "attr"):
        with np.load(f"{prefix}.index-0_{name}.npz") as archive:
            assert archive["arr_0"].shape == (0, 4, 40)
    assert Path(f"{prefix}.interpreted_regions.bed").read_text() == ""
    assert attribute(config(resume=True, **options)).was_finished
