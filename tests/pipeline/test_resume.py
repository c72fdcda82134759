"""A run that is stopped and continued is the run that was never stopped, and nothing else is continued."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pyBigWig
import pytest

from dlgenome.config import RunConfig
from dlgenome.errors import CompletenessError, InputError, Interrupted, UsageError
from dlgenome.pipeline import StopRequest, attribute
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


def test_a_run_can_be_stopped_until_its_last_file_gets_its_name(
    config: Config, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"folds": (inputs / "fold1.pt",), "per_fold": True, "limit": 4}
    rename, stop = os.replace, StopRequest()
    too_late: dict[str, bool] = {}

    def watched(source: Path, target: Path) -> None:
        too_late[Path(target).name] = stop.is_too_late
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    attribute(config(**options), stop=stop)
    named = [name for name in too_late if (tmp_path / name).is_file()]
    assert set(named) == {path.name for path in tmp_path.glob("run.*")}
    assert [name for name in named if too_late[name]] == ["run.run.json"]
    again = StopRequest()
    assert attribute(config(resume=True, **options), stop=again).was_finished
    assert again.is_too_late


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
        patch.setattr("dlgenome.pipeline.finishing.abandon", killed_instead)
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


def test_resuming_with_files_for_each_fold_does_not_discard_a_run_without(
    config: Config, inputs: Path, tmp_path: Path, stop_at: StopAt
) -> None:
    folds = (inputs / "fold1.pt",)
    with pytest.raises(Interrupted):
        attribute(config(folds=folds), **stop_at(8))
    with pytest.raises(UsageError, match="--per-fold was False and is True"):
        attribute(config(folds=folds, per_fold=True, resume=True))
    assert attribute(config(folds=folds, resume=True)).resumed_rows == 8


def test_a_file_that_somebody_put_beside_the_work_does_not_fail_a_finished_run(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def put(done: int, total: int) -> None:
        (tmp_path / "run.partial" / "notes.txt").write_text("mine")

    assert attribute(config(), put).scored == 23
    assert "notes.txt is not a file of dlgenome, so " in caplog.text
    assert "This run is not finished" not in caplog.text
    assert (tmp_path / "run.partial" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "run.run.json").exists()
