"""Two batches in hand: the steps of one keep all cores busy while the last step of the other ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from dlgenome.errors import UnsupportedModelError
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import Found, GuardedExplainer, is_out_of_memory

_IN_HAND = 2


class OverlappingExplainer:
    """Explains batches two at a time, in this process, and gives them back in order.

    A batch that fails is tried again when nothing else runs, so that faults are dealt with one at a time.
    Once memory ran out, only one batch is in hand.
    """

    def __init__(self, guarded: GuardedExplainer) -> None:
        self._guarded = guarded
        self._pool = ThreadPoolExecutor(_IN_HAND, "dlgenome-batch")
        self._in_hand = _IN_HAND

    @property
    def batch_size(self) -> int:
        """Sequence-reference pairs a step."""
        return self._guarded.batch_size

    def explain_all(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Found | str]]]:
        """Every batch with the scores of its windows, or why they have none, in the order given."""
        begun: deque[tuple[Batch, Future[list[Found | str]]]] = deque()
        for batch in batches:
            begun.append((batch, self._pool.submit(self._guarded.attempt, batch)))
            while len(begun) >= self._in_hand:
                yield self._first_of(begun)
        while begun:
            yield self._first_of(begun)

    def close(self) -> None:
        """Wait for what has begun, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _first_of(
        self, begun: deque[tuple[Batch, Future[list[Found | str]]]]
    ) -> tuple[Batch, list[Found | str]]:
        batch, future = begun.popleft()
        try:
            return batch, future.result()
        except (UnsupportedModelError, MemoryError, RuntimeError) as problem:
            if is_out_of_memory(problem):
                self._in_hand = 1
        wait([future for _, future in begun])
        return batch, self._guarded.explain(batch)
