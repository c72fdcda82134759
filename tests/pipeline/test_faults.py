"""Windows that break the model come back as reasons, and steps that do not fit into memory are halved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.errors import InputError, Interrupted, UnsupportedModelError
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import NO_MEMORY, NOT_FINITE, FailureLimit, GuardedExplainer, is_out_of_memory
from dlgenome.types import Region, RegionScores, Window

MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
CUDA = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")


def scores_of(row: int, bad: float | None = None) -> list[dict[str, RegionScores]]:
    values = np.full((4, 3), row, np.float32)
    return [{"t": RegionScores(values, values, 1.0 if bad is None else bad, 0.0, 1.0, 1.0, 2)}]


def batch_of(rows: Sequence[int]) -> Batch:
    windows = [
        Window(Region("chr1", row, row + 3, f"peak{row}", input_row=row), "chr1", row, row + 3, row + 1)
        for row in rows
    ]
    codes = np.zeros((len(rows), 3), np.uint8)
    return Batch(windows, codes, codes, np.zeros((len(rows), 2, 3), np.uint8))


@dataclass
class Fake:
    """Explains windows with their row as score, unless `trouble` says otherwise."""

    pairs: int
    trouble: Callable[[int, list[int]], None]
    not_finite: tuple[int, ...] = ()
    calls: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def sequences_at_once(self) -> int:
        return max(1, self.pairs // 2)

    def explain(self, batch: Batch) -> list[list[dict[str, RegionScores]]]:
        rows = [window.region.input_row for window in batch.windows]
        assert len(rows) <= self.sequences_at_once
        self.calls.append((self.pairs, rows))
        self.trouble(self.pairs, rows)
        return [scores_of(row, np.nan if row in self.not_finite else None) for row in rows]


def guarded(
    trouble: Callable[[int, list[int]], None], pairs: int = 8, **options: Any
) -> tuple[GuardedExplainer, list[int], list[Any]]:
    """The explainer, the smaller steps that it tells of, and its calls."""
    smaller: list[int] = []
    calls: list[Any] = []

    def make(size: int) -> Any:
        return Fake(size, trouble, calls=calls, **options)

    return GuardedExplainer(make, pairs, smaller.append), smaller, calls


def described(found: Sequence[Any]) -> list[Any]:
    """Rows of what was scored, and the reasons of what was not."""
    return [one if isinstance(one, str) else int(one[0]["t"].projected[0, 0]) for one in found]


def nothing(pairs: int, rows: list[int]) -> None:
    """No trouble."""


def test_all_is_well_without_trouble() -> None:
    explainer, smaller, calls = guarded(nothing)
    assert described(explainer.explain(batch_of([3, 4, 5, 6]))) == [3, 4, 5, 6]
    assert (smaller, len(calls)) == ([], 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["projected", "hypothetical", "extra", "prediction", "contribution_sum"])
def test_a_number_that_is_not_finite_is_a_reason_wherever_it_is(place: str, bad: float) -> None:
    def scores(fold: int) -> dict[str, RegionScores]:
        arrays = {name: np.zeros((4, 3), np.float32) for name in ("projected", "hypothetical", "extra")}
        numbers = {"prediction": 0.0, "contribution_sum": 0.0}
        if fold == 1:
            if place in arrays:
                arrays[place][2, 1] = bad
            else:
                numbers[place] = bad
        found = RegionScores(
            arrays["hypothetical"],
            arrays["projected"],
            numbers["prediction"],
            0.0,
            numbers["contribution_sum"],
            1.0,
            2,
            {"fold_sd": arrays["extra"]},
        )
        return {"t": found}

    class OneBad(Fake):
        def explain(self, batch: Batch) -> list[list[dict[str, RegionScores]]]:
            return [[scores(0), scores(0)], [scores(0), scores(1)], [scores(0), scores(0)]]

    explainer = GuardedExplainer(lambda size: OneBad(size, nothing), 8, print)  # type: ignore[arg-type,return-value]
    first, second, third = explainer.explain(batch_of([0, 1, 2]))
    assert second == NOT_FINITE
    assert not isinstance(first, str)
    assert not isinstance(third, str)


def test_memory_that_runs_out_halves_the_step_for_good() -> None:
    def trouble(pairs: int, rows: list[int]) -> None:
        if pairs > 3:
            raise MEMORY

    explainer, smaller, calls = guarded(trouble, 16)
    assert described(explainer.explain(batch_of(range(8)))) == list(range(8))
    assert (smaller, explainer.batch_size) == ([8, 4, 2], 2)
    calls.clear()
    assert described(explainer.explain(batch_of([8, 9]))) == [8, 9]
    assert calls == [(2, [8]), (2, [9])]


def test_a_window_that_does_not_fit_alone_is_listed_and_the_others_are_scored() -> None:
    def trouble(pairs: int, rows: list[int]) -> None:
        if 5 in rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    explainer, smaller, _ = guarded(trouble)
    assert described(explainer.explain(batch_of([3, 4, 5, 6]))) == [3, 4, NO_MEMORY, 6]
    assert smaller == [4, 2, 1]


def test_a_model_that_refuses_one_window_is_asked_for_each() -> None:
    def trouble(pairs: int, rows: list[int]) -> None:
        if 4 in rows:
            raise UnsupportedModelError("a mask that depends\n  on the sequence")

    explainer, smaller, _ = guarded(trouble)
    expected = [3, "a mask that depends on the sequence", 5, 6]
    assert described(explainer.explain(batch_of([3, 4, 5, 6]))) == expected
    assert smaller == []


def test_windows_that_are_tried_alone_and_run_out_of_memory_keep_their_places() -> None:
    """First the batch is taken apart, then a window of it does not fit until the step is smaller."""

    def trouble(pairs: int, rows: list[int]) -> None:
        if 3 in rows:
            raise UnsupportedModelError("no")
        if len(rows) == 1 and rows[0] == 5 and pairs > 2:
            raise MemoryError

    explainer, smaller, _ = guarded(trouble)
    assert described(explainer.explain(batch_of([3, 4, 5, 6]))) == ["no", 4, 5, 6]
    assert smaller == [4, 2]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (MEMORY, True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (CUDA, False),
    ],
)
def test_memory_is_told_from_other_trouble(problem: BaseException, expected: bool) -> None:
    assert is_out_of_memory(problem) == expected


def test_a_failing_device_stops_the_run_and_a_bug_stays_a_bug() -> None:
    def fail(problem: BaseException) -> Callable[[int, list[int]], None]:
        def trouble(pairs: int, rows: list[int]) -> None:
            raise problem

        return trouble

    with pytest.raises(
        Interrupted, match=r"^The device failed \(CUDA error: an illegal memory access was encountered\)$"
    ):
        guarded(fail(CUDA))[0].explain(batch_of([1]))
    bug = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1") as found:
        guarded(fail(bug))[0].explain(batch_of([1]))
    assert found.value is bug


def test_failures_are_counted_against_their_share_with_those_before() -> None:
    [window] = batch_of([7]).windows
    limit = FailureLimit(0.02, 100, fail_fast=False, already=1)
    limit.add(window, "why")
    with pytest.raises(
        InputError,
        match=r"^3 of 100 regions cannot be scored, more than --max-failures 0\.02 allows; the last is ",
    ):
        limit.add(window, "why")
    with pytest.raises(InputError, match=r"chr1:7-10 \(peak7\) cannot be scored: why\. --fail-fast ends"):
        FailureLimit(1.0, 100, fail_fast=True, already=0).add(window, "why")
    with pytest.raises(InputError):
        FailureLimit(0.0, 100, fail_fast=False, already=0).add(window, "why")
    everything = FailureLimit(1.0, 2, fail_fast=False, already=0)
    everything.add(window, "why")
    everything.add(window, "why")
