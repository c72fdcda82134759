"""Two batches at a time: nothing waits, order stays, and faults are dealt with one after the other."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.config import RunConfig
from dlgenome.errors import InputError, Interrupted, UnsupportedModelError
from dlgenome.pipeline import attribute
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import GuardedExplainer
from dlgenome.pipeline.overlapping import OverlappingExplainer
from dlgenome.types import Region, RegionScores, Window

MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory")
AT_ONCE = 2


def batches_of(rows: int) -> Iterator[Batch]:
    """Batches of two windows."""
    for first in range(0, rows, AT_ONCE):
        windows = [
            Window(Region("chr1", row, row + 3, f"peak{row}", input_row=row), "chr1", row, row + 3, row + 1)
            for row in range(first, min(first + AT_ONCE, rows))
        ]
        codes = np.zeros((len(windows), 3), np.uint8)
        yield Batch(windows, codes, codes, np.zeros((len(windows), 2, 3), np.uint8))


class Fake:
    """Explains windows with their row as score, after ``before`` had its say."""

    def __init__(self, pairs: int, before: Callable[[int, list[int]], None]) -> None:
        self.pairs, self.before = pairs, before
        self.sequences_at_once = max(1, pairs // 2)
        self.abandoned = False

    def abandon(self) -> None:
        """Nothing more is asked for."""
        self.abandoned = True

    def explain(self, batch: Batch) -> list[list[dict[str, RegionScores]]]:
        """One fold, one target."""
        rows = [window.region.input_row for window in batch.windows]
        self.before(self.pairs, rows)
        values = [np.full((4, 3), row, np.float32) for row in rows]
        return [[{"t": RegionScores(value, value, 1.0, 0.0, 1.0, 1.0, 2)}] for value in values]


def overlapping(before: Callable[[int, list[int]], None]) -> OverlappingExplainer:
    """With steps of four pairs, two for each window."""
    make: Any = lambda pairs: Fake(pairs, before)  # noqa: E731
    return OverlappingExplainer(GuardedExplainer(make, 2 * AT_ONCE, lambda smaller: None))


def explained(explaining: OverlappingExplainer, rows: int) -> list[Any]:
    """Rows of what was scored, and the reasons of what was not."""
    with closing(explaining):
        found: list[Any] = []
        for batch, scores in explaining.explain_all(batches_of(rows)):
            assert len(batch.windows) == len(scores)
            found += [one if isinstance(one, str) else int(one[0]["t"].projected[0, 0]) for one in scores]
    return found


def test_two_batches_are_in_hand_and_come_back_in_order() -> None:
    together = threading.Barrier(2, timeout=10)
    alone = threading.Lock()
    late = threading.Event()

    def before(pairs: int, rows: Sequence[int]) -> None:
        if rows[0] < 8:
            together.wait()  # breaks where a batch is explained alone
        if rows[0] == 0:
            assert late.wait(10)  # the first is the last of the two to end
        with alone:
            if rows[0] == 2:
                late.set()

    assert explained(overlapping(before), 9) == list(range(9))


def test_a_window_that_breaks_the_model_takes_no_other_with_it() -> None:
    def before(pairs: int, rows: Sequence[int]) -> None:
        if 5 in rows:
            raise UnsupportedModelError("no rule for it")

    assert explained(overlapping(before), 9) == [0, 1, 2, 3, 4, "no rule for it", 6, 7, 8]


def test_memory_that_runs_out_leaves_one_batch_in_hand_and_a_smaller_step() -> None:
    running, most = [0], [0, 0]
    guard = threading.Lock()
    ran_out = threading.Event()

    def before(pairs: int, rows: Sequence[int]) -> None:
        with guard:
            running[0] += 1
            after = int(ran_out.is_set())
            most[after] = max(most[after], running[0])
        try:
            threading.Event().wait(0.02)
            if pairs > 2 and rows[0] >= 4:
                raise MEMORY
        finally:
            with guard:
                running[0] -= 1
        if pairs == 2:
            ran_out.set()

    explaining = overlapping(before)
    assert explained(explaining, 12) == list(range(12))
    assert explaining.batch_size == 2
    assert most == [2, 1]


def test_what_failed_holds_no_memory_when_it_is_tried_again() -> None:
    class Activations:
        """What a step has in memory."""

    begun: list[weakref.ref[Activations]] = []
    alive: list[int] = []

    def before(pairs: int, rows: Sequence[int]) -> None:
        if threading.current_thread() is threading.main_thread():
            alive.append(sum(one() is not None for one in begun))
        held = Activations()
        begun.append(weakref.ref(held))
        if pairs > 2:
            raise MemoryError("no more")

    assert explained(overlapping(before), 6) == list(range(6))
    assert alive
    assert not alive[0], "of the attempts of other threads"


def test_other_errors_end_the_run_once_nothing_runs_any_more() -> None:
    ended: list[int] = []

    def before(pairs: int, rows: Sequence[int]) -> None:
        if rows[0] == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        threading.Event().wait(0.05)
        ended.append(rows[0])

    with pytest.raises(Interrupted, match="The device failed"):
        explained(overlapping(before), 12)
    assert set(ended) == {0, 4}


def test_what_is_in_hand_comes_before_an_error_of_the_reader() -> None:
    def cut_off() -> Iterator[Batch]:
        yield from batches_of(6)
        raise InputError("genome.fa ends in the middle of a line")

    with closing(overlapping(lambda pairs, rows: None)) as explaining:
        given_back = explaining.explain_all(cut_off())
        first = [next(given_back)[0].windows[0].region.input_row for _ in range(3)]
        assert first == [0, 2, 4]
        with pytest.raises(InputError):
            next(given_back)


def test_who_leaves_waits_for_what_has_begun() -> None:
    ended: list[int] = []

    def before(pairs: int, rows: Sequence[int]) -> None:
        threading.Event().wait(0.05 * (rows[0] + 1))
        ended.append(rows[0])

    explaining = overlapping(before)
    with closing(explaining):
        next(explaining.explain_all(batches_of(12)))
    assert ended == [0, 2]
    assert explaining._guarded.explainer.abandoned  # type: ignore[attr-defined]


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Gives the tests that follow the number of threads that they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("own_threads")
def test_a_run_that_was_stopped_with_two_batches_in_hand_loses_nothing(
    config: Callable[..., RunConfig],
    tmp_path: Path,
    stop_at: Callable[[int], dict[str, Any]],
    assert_equal: Callable[[Path, Path], None],
) -> None:
    small = {"batch_size": 3, "n_references": 3}
    attribute(config("whole", **small))
    with pytest.raises(Interrupted):
        attribute(config(threads=2, **small), **stop_at(8))
    left = threading.enumerate()
    assert not [thread for thread in left if thread.name.startswith("dlgenome-batch")]
    attribute(config(threads=2, resume=True, **small))
    assert_equal(tmp_path / "run", tmp_path / "whole")
