"""Two batches in hand: the steps of one keep all cores busy while the last step of the other ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from enum import Enum

from dlgenome.errors import UnsupportedModelError
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import Found, GuardedExplainer, is_out_of_memory

_IN_HAND = 2


class _Failure(Enum):
    """Why a batch has to be tried again. The error itself would hold the memory of the step that failed."""

    MEMORY = "memory ran out"
    OTHER = "anything else"


_Outcome = list[Found | str] | _Failure


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
        """Every batch with the scores of its windows, or why they have none, in the order given.

        Raises what the batches raise, once those before are given back.
        """
        begun: deque[tuple[Batch, Future[_Outcome]]] = deque()
        unread: Exception | None = None
        while True:
            try:
                batch = next(batches, None)
            except Exception as problem:  # of the reader: what is in hand is good, and comes first
                unread, batch = problem, None
            if batch is None:
                break
            begun.append((batch, self._pool.submit(self._attempt, batch)))
            while len(begun) >= self._in_hand:
                yield self._first_of(begun)
        while begun:
            yield self._first_of(begun)
        if unread is not None:
            raise unread

    def close(self) -> None:
        """Begin nothing more, and wait for the steps that have begun; nobody gets what comes of them."""
        self._guarded.explainer.abandon()
        self._pool.shutdown(cancel_futures=True)

    def _attempt(self, batch: Batch) -> _Outcome:
        try:
            return self._guarded.attempt(batch)
        except (UnsupportedModelError, MemoryError, RuntimeError) as problem:
            return _Failure.MEMORY if is_out_of_memory(problem) else _Failure.OTHER

    def _first_of(self, begun: deque[tuple[Batch, Future[_Outcome]]]) -> tuple[Batch, list[Found | str]]:
        batch, future = begun.popleft()
        outcome = future.result()
        if not isinstance(outcome, _Failure):
            return batch, outcome
        if outcome is _Failure.MEMORY:
            self._in_hand = 1
        wait([other for _, other in begun])
        return batch, self._guarded.explain(batch)
