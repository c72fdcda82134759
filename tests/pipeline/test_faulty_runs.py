"""A run lists the regions that break the model, takes smaller steps where memory is short, loses nothing."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlgenome.config import RunConfig
from dlgenome.errors import InputError, Interrupted
from dlgenome.pipeline import attribute
from dlgenome.pipeline.explain import Batch, Explainer
from dlgenome.pipeline.faults import NOT_FINITE
from dlgenome.scores import ScoresFile

Config = Callable[..., RunConfig]
StopAt = Callable[[int], dict[str, Any]]
AssertEqual = Callable[[Path, Path], None]

MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
CUDA = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")


def skipped(prefix: Path) -> list[list[str]]:
    with Path(f"{prefix}.skipped_regions.tsv").open() as file:
        return list(csv.reader(file, delimiter="\t"))[1:]


def facts(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{prefix}.run.json").read_text())
    return found


def projected(prefix: Path) -> Any:
    with ScoresFile(Path(f"{prefix}.index-0_scores.h5")) as scores:
        return scores.projected(slice(None))


@pytest.fixture
def broken(inputs: Path) -> str:
    """Regions of which one is all N, where the model divides nothing by nothing."""
    return str(inputs / "broken.bed")


def test_a_region_that_gives_nan_is_listed_with_the_reason(
    config: Config, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    attribute(config("whole"))
    summary = attribute(config(regions=broken, max_failures=0.05))
    assert (summary.scored, summary.skipped) == (22, 1)
    [row] = skipped(tmp_path / "run")
    assert row[2:6] == ["chr1", "3030", "3060", "peak17"]
    assert row[-1] == NOT_FINITE
    assert (
        "chr1:3025-3065 (peak17) cannot be scored: the model gives numbers that are not finite" in caplog.text
    )
    counts = facts(tmp_path / "run")["regions"]
    assert (counts["selected"], counts["scored"], counts["skipped"], counts["failed"]) == (23, 22, 1, 1)
    others = [row for row in range(23) if row != 17]
    assert np.array_equal(projected(tmp_path / "run"), projected(tmp_path / "whole")[others])
    with ScoresFile(tmp_path / "run.index-0_scores.h5") as scores:
        assert scores.regions["input_row"].tolist() == others


def test_fail_fast_and_too_many_failures_end_the_run_which_can_go_on(
    config: Config, tmp_path: Path, broken: str
) -> None:
    with pytest.raises(InputError, match=r"chr1:3025-3065 \(peak17\) cannot be scored: .*--fail-fast"):
        attribute(config(regions=broken, fail_fast=True, max_failures=1.0))
    with pytest.raises(InputError, match=r"1 of 23 regions cannot be scored, more than --max-failures 0\.01"):
        attribute(config(regions=broken, resume=True))
    assert not list(tmp_path.glob("run.*_*"))
    summary = attribute(config(regions=broken, resume=True, max_failures=0.1))
    assert (summary.scored, summary.skipped, summary.resumed_rows) == (22, 1, 16)


def test_failures_before_a_stop_are_listed_and_counted_after_it(
    config: Config, tmp_path: Path, broken: str, stop_at: StopAt, assert_equal: AssertEqual
) -> None:
    options: dict[str, Any] = {"regions": broken, "order": "shuffle:1", "max_failures": 0.05}
    attribute(config("whole", **options))
    with pytest.raises(Interrupted):
        attribute(config(**options), **stop_at(20))
    attribute(config(resume=True, **options))
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_regions_that_all_fail_leave_valid_empty_files(config: Config, inputs: Path, tmp_path: Path) -> None:
    regions = tmp_path / "n.bed"
    regions.write_text("".join(f"chr1\t{start}\t{start + 30}\n" for start in range(3020, 3029)))
    summary = attribute(config(regions=str(regions), max_failures=1.0, max_delta=0.1))
    assert (summary.scored, summary.skipped) == (0, 9)
    assert len(skipped(tmp_path / "run")) == 9
    assert projected(tmp_path / "run").shape == (0, 4, 40)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Explainer, Batch], None]], None]:
    """Has a function called before every batch is explained, which may raise."""

    def cause(act: Callable[[Explainer, Batch], None]) -> None:
        explain = Explainer.explain

        def troubled(self: Explainer, batch: Batch) -> Any:
            act(self, batch)
            return explain(self, batch)

        monkeypatch.setattr(Explainer, "explain", troubled)

    return cause


def test_a_run_that_ran_out_of_memory_says_so_and_ends_with_nearly_the_same_scores(
    config: Config, tmp_path: Path, trouble: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    attribute(config("whole"))

    def act(explainer: Explainer, batch: Batch) -> None:
        if explainer.sequences_at_once > 1 and batch.windows[0].region.input_row >= 8:
            raise MEMORY

    trouble(act)
    summary = attribute(config())
    assert summary.batch_size == 3
    assert "Memory ran out; going on with 6 pairs a step." in caplog.text
    assert facts(tmp_path / "run")["identity"]["batch_size"] == 3
    ours, theirs = projected(tmp_path / "run"), projected(tmp_path / "whole")
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()


def test_a_smaller_step_is_kept_by_the_run_that_goes_on(
    config: Config, tmp_path: Path, trouble: Callable[..., None], stop_at: StopAt
) -> None:
    tried: list[int] = []

    def act(explainer: Explainer, batch: Batch) -> None:
        tried.append(explainer.sequences_at_once)
        if explainer.sequences_at_once > 2:
            raise MEMORY

    trouble(act)
    with pytest.raises(Interrupted):
        attribute(config(), **stop_at(8))
    recorded = json.loads((tmp_path / "run.partial" / "run-state.json").read_text())
    assert recorded["batch_size"] == 6
    tried.clear()
    assert attribute(config(resume=True)).batch_size == 6
    assert set(tried) == {2}


def test_a_device_that_fails_stops_a_run_that_can_go_on(
    config: Config, tmp_path: Path, trouble: Callable[..., None], assert_equal: AssertEqual
) -> None:
    attribute(config("whole"))
    failing = [True]

    def act(explainer: Explainer, batch: Batch) -> None:
        if failing and batch.windows[0].region.input_row >= 8:
            raise CUDA

    trouble(act)
    with pytest.raises(
        Interrupted, match=r"The device failed \(CUDA error: .* again with --resume\.$"
    ) as stopped:
        attribute(config())
    assert stopped.value.exit_code == 75
    failing.clear()
    assert attribute(config(resume=True)).resumed_rows == 8
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_a_bug_is_no_reason_to_lose_what_was_scored(
    config: Config, tmp_path: Path, trouble: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def act(explainer: Explainer, batch: Batch) -> None:
        if batch.windows[0].region.input_row == 12:
            raise ZeroDivisionError("a bug")

    trouble(act)
    with pytest.raises(ZeroDivisionError):
        attribute(config())
    assert "This run is not finished: what was scored is kept in" in caplog.text
    assert (tmp_path / "run.partial" / "run-state.json").exists()


def test_a_full_disk_stops_a_run_that_can_go_on(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_equal: AssertEqual
) -> None:
    attribute(config("whole"))

    def full(*arguments: Any) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:

        def fill(done: int, total: int) -> None:
            if done >= 12:
                patch.setattr("dlgenome.writers.spool.record_head", full)

        with pytest.raises(Interrupted, match=r"The disk that holds .* is full, .* is kept in ") as stopped:
            attribute(config(), fill)
    assert str(stopped.value).count("--resume") == 1
    assert 0 <= attribute(config(resume=True)).resumed_rows <= 12
    assert_equal(tmp_path / "run", tmp_path / "whole")


def test_a_disk_that_fills_up_while_files_are_made_loses_no_score(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_equal: AssertEqual
) -> None:
    attribute(config("whole"))
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:

        def fill(done: int, total: int) -> None:
            if done == total:
                patch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))

        with pytest.raises(Interrupted, match=r"has 1000 bytes free and this run needs about .* is kept in "):
            attribute(config(), fill)
    assert not list(tmp_path.glob("run.*_*"))
    assert attribute(config(resume=True)).resumed_rows == 20
    assert_equal(tmp_path / "run", tmp_path / "whole")
