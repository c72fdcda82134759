"""`dlgenome verify` on real runs: sound ones pass, damage is exit 3, incompleteness exit 4."""

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

from dlgenome_cli.main import cli

Attribute = Callable[..., Result]


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged: its scores file."""
    for path in finished.parent.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / "run.counts_scores.h5"


def test_a_real_run_is_sound_in_every_respect(finished: Path, input_flags: tuple[object, ...]) -> None:
    scores = f"{finished}.counts_scores.h5"
    result = verify(scores, *input_flags, "--max-delta", "1e-3")
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == f"{scores}: sound, 12 regions of 100 bases"
    names = [line.split("  ")[1] for line in lines]
    assert names == [
        *(
            "structure",
            "numbers",
            "scores",
            "checkpoint",
            "regions",
            "genome",
            "run.json",
            "files",
            "skipped",
        ),
        *("BED", "run.counts_scores.bw", "digests", "completeness error"),
    ]
    assert "not checked" not in result.stdout
    assert result.stderr == ""


def test_what_was_not_given_is_said_to_be_unchecked(finished: Path) -> None:
    result = verify(f"{finished}.counts_scores.h5")
    assert result.exit_code == 0
    for name, flag in (("checkpoint", "-m"), ("regions", "-r"), ("genome", "-g")):
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"  {name} ")]
        assert line.endswith(flag)
        assert "not checked: give" in line


@pytest.mark.parametrize(
    ("flags", "target"),
    [
        (("--edge", "pad", "--overlap", "mean", "--crop", "30", "--score-dtype", "float16"), "counts"),
        (("--shard", "2/3", "--stranded", "--reverse-complement", "-t", "profile-bpnet"), "profile-bpnet"),
        (("--adaptive-references", "1e-3", "--max-rounds", "2", "--precision", "float64"), "counts"),
    ],
)
def test_runs_of_many_kinds_are_sound(
    attribute: Attribute, inputs: Path, tmp_path: Path, flags: tuple[str, ...], target: str
) -> None:
    assert attribute("-o", tmp_path / "run", *flags).exit_code == 0
    shard = ".shard-2-of-3" if "--shard" in flags else ""
    result = verify(tmp_path / f"run{shard}.{target}_scores.h5", "-g", inputs / "genome.fa")
    assert result.exit_code == 0, result.output


def test_folds_apart_and_together_are_sound(linear: Attribute, inputs: Path, tmp_path: Path) -> None:
    import torch

    other = tmp_path / "other.pt"
    torch.save({"1.weight": torch.ones(3, 400), "1.bias": torch.ones(3)}, other)
    folds = ("-m", other, "-t", "index:1", "--fold-sd", "--per-fold", "-o", tmp_path / "run")
    assert linear(*folds).exit_code == 0
    models = ("-m", inputs / "linear.pt", "-m", other)
    result = verify(tmp_path / "run.index-1_scores.h5", *models)
    assert result.exit_code == 0, result.output
    assert "run.index-1_fold_sd.bw" in result.stdout
    for number, model in enumerate((inputs / "linear.pt", other), start=1):
        result = verify(tmp_path / f"run.fold-{number}.index-1_scores.h5", "-m", model)
        assert result.exit_code == 0, result.output


def test_sequences_scored_without_a_genome_are_sound(attribute: Attribute, tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(f">a\n{'ACGTN' * 20}\n>b\n{'GGATC' * 20}\n")
    made = attribute("-f", tmp_path / "x.fa", "-o", tmp_path / "run", genome=None, regions=None)
    assert made.exit_code == 0, made.stderr
    given = ("-r", tmp_path / "x.fa", "-g", tmp_path / "x.fa")
    result = verify(tmp_path / "run.counts_scores.h5", *given)
    assert result.exit_code == 0, result.output


def test_damage_is_exit_3_with_a_line_for_each_problem(run: Path) -> None:
    with h5py.File(run, "r+") as file:
        file["qc/crc32"][[2, 3]] = 0
        file["qc/sum"][7] += 1
    result = verify(run)
    assert result.exit_code == 3
    first, *lines = result.stdout.splitlines()
    assert first == f"{run}: {len(lines)} problems"
    assert any(line.startswith("  rows 2-3 (first chr") and "/qc/crc32" in line for line in lines)
    assert any(line.startswith("  row 7 (chr") and "/qc/sum is not" in line for line in lines)
    assert result.stderr.startswith(f"Error: {len(lines)} problems in 1 of 1 files, the first in {run}")


def test_incompleteness_alone_is_exit_4_and_names_the_region(run: Path) -> None:
    with h5py.File(run) as file:
        errors = file["qc/delta_error"][:]
        name = file["regions/name"][int(np.argmax(errors))].decode()
    result = verify(run, "--max-delta", errors.max() / 2)
    assert result.exit_code == 4
    assert result.stdout.startswith(f"{run}: sound")
    assert f"reaches {errors.max():.2g} (row {errors.argmax()}, chr" in result.stderr
    assert f" {name}), above --max-delta" in result.stderr
    run.with_name("run.interpreted_regions.bed").write_text("")
    assert verify(run, "--max-delta", errors.max() / 2).exit_code == 3


def test_the_bigwig_of_another_run_is_exit_3(run: Path, attribute: Attribute, tmp_path: Path) -> None:
    assert attribute("-o", tmp_path / "other", "--seed", "9").exit_code == 0
    result = verify(run, "--bigwig", tmp_path / "other.counts_scores.bw")
    assert result.exit_code == 3
    assert "other.counts_scores.bw has other values than the scores give at" in result.stdout


def test_a_missing_model_and_a_truncated_file_are_problems(run: Path, finished: Path, tmp_path: Path) -> None:
    run.write_bytes(run.read_bytes()[:-100])
    sound = f"{finished}.counts_scores.h5"
    result = verify(sound, run)
    assert result.exit_code == 3
    assert result.stdout.startswith(f"{sound}: sound")
    assert f"{run}: 1 problem\n" in result.stdout
    assert "1 problem in 1 of 2 files" in result.stderr
    result = verify(sound, "-m", tmp_path / "nothing.pt")
    assert result.exit_code == 3
    assert "nothing.pt: no such file" in result.stdout


def test_json_has_every_problem_and_nothing_else_is_printed(run: Path) -> None:
    result = verify(run, "--json")
    assert result.exit_code == 0
    (file,) = json.loads(result.stdout)["files"]
    assert file["sound"] is True
    assert file["problems"] == []
    assert (file["n_regions"], file["length"]) == (12, 100)
    assert file["completeness"]["maximum"] > 0
    with h5py.File(run, "r+") as scores:
        scores["qc/crc32"][[2, 3]] = 0
        scores["shap/seq"][5, 0, 0] = np.nan
    result = verify(run, "--json", "--alone")
    assert result.exit_code == 3
    (file,) = json.loads(result.stdout)["files"]
    assert file["sound"] is False
    found = {problem["check"]: problem for problem in file["problems"]}
    assert found["checksum"]["ranges"] == [[2, 4]]
    assert found["checksum"]["n_rows"] == 2
    assert found["finite"]["ranges"] == [[5, 6]]


def test_files_beside_are_left_out_only_when_asked(run: Path) -> None:
    run.with_name("run.run.json").unlink()
    assert verify(run).exit_code == 3
    result = verify(run, "--alone")
    assert result.exit_code == 0
    assert "not checked: --alone" in result.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("--max-delta", "0"), ("--alone", "--bigwig", "x.bw"), ("--max-delta", "x")]
)
def test_wrong_flags_are_exit_2(run: Path, arguments: tuple[str, ...]) -> None:
    files: tuple[Any, ...] = (run,) if arguments else ()
    assert verify(*files, *arguments).exit_code == 2
