"""Only the run that was begun is gone on with: what differs is named, files are known by their contents."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.config import RunConfig
from dlgenome.errors import InputError, Interrupted, UsageError
from dlgenome.pipeline import attribute
from dlgenome.pipeline.request import differences, request_of

Config = Callable[..., RunConfig]
StopAt = Callable[[int], dict[str, Any]]


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


@pytest.mark.parametrize("row", [0, 3, 6])
def test_one_other_base_in_any_window_that_was_scored_is_seen(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt, row: int
) -> None:
    moved = copied(inputs, tmp_path / "moved")
    with pytest.raises(Interrupted):
        attribute(config(**moved), **stop_at(8))
    genome = tmp_path / "moved" / "genome.fa"
    text = genome.read_text()
    place = len(">chr1\n") + 100 + 97 * row + 15
    genome.write_text(text[:place] + "CGTA"["ACGT".index(text[place])] + text[place + 1 :])
    with pytest.raises(InputError, match=f"other bases at chr1:{95 + 97 * row}-"):
        attribute(config(resume=True, **moved))


def test_folds_that_were_left_out_are_told_by_their_checksums(config: Config, inputs: Path) -> None:
    folds = request_of(config(folds=(inputs / "fold1.pt",)))
    (found,) = differences(folds, request_of(config()))
    before, now = found.removeprefix("the checkpoint (sha256) was ").split(" and is ")
    assert before.startswith(f"{now},")
    assert len(before.split(",")) == 2


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
