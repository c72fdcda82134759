"""Windows that break the model, and steps that do not fit into memory: neither ends a run by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from dlgenome.errors import InputError, Interrupted, UnsupportedModelError, first_line
from dlgenome.pipeline.explain import Batch, Explainer
from dlgenome.types import RegionScores, Window

logger = logging.getLogger(__name__)

Found = list[dict[str, RegionScores]]
"""The scores of one window: of each fold, by target name."""

NOT_FINITE = "the model gives numbers that are not finite"
NO_MEMORY = "memory runs out even with one sequence-reference pair a step"

_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


class GuardedExplainer:
    """Explains batches; what fails comes back as a reason in the place of its window.

    When memory runs out the step is halved, for good, and the batch is tried again.
    """

    def __init__(
        self, make: Callable[[int], Explainer], batch_size: int, on_smaller: Callable[[int], None]
    ) -> None:
        self._make, self._on_smaller = make, on_smaller
        self.batch_size = batch_size
        self.explainer = make(batch_size)

    def explain_all(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Found | str]]]:
        """Every batch with what `explain` says of it, in the order given."""
        return ((batch, self.explain(batch)) for batch in batches)

    def explain(self, batch: Batch) -> list[Found | str]:
        """For every window its scores, or why it has none. Raises Interrupted when the device fails."""
        found: list[Found | str] = []
        first = 0
        while first < len(batch.windows):
            piece = batch.part(slice(first, first + self.explainer.sequences_at_once))
            done = self._explain_piece(piece)
            if done is not None:
                found += done
                first += len(piece.windows)
        return found

    def attempt(self, batch: Batch) -> list[Found | str]:
        """The same in one go, and nothing done about what fails: whatever the model raises comes through."""
        return [_checked(scores) for scores in self.explainer.explain(batch)]

    def _explain_piece(self, piece: Batch) -> list[Found | str] | None:
        """None where the step was made smaller instead."""
        try:
            return self.attempt(piece)
        except UnsupportedModelError as problem:
            return self._one_by_one(piece, " ".join(str(problem).split()))
        except (MemoryError, RuntimeError) as problem:
            if _is_device_failure(problem):
                raise Interrupted(f"The device failed ({first_line(problem)})") from problem
            if not is_out_of_memory(problem):
                raise
        if self.batch_size == 1:
            return self._one_by_one(piece, NO_MEMORY)
        self.batch_size = max(1, self.batch_size // 2)
        logger.warning("Memory ran out; going on with %d pairs a step.", self.batch_size)
        self.explainer = self._make(self.batch_size)
        self._on_smaller(self.batch_size)
        return None

    def _one_by_one(self, piece: Batch, reason: str) -> list[Found | str]:
        """The windows of a piece alone, so that one that fails takes no other with it."""
        if len(piece.windows) == 1:
            return [reason]
        return [one for n in range(len(piece.windows)) for one in self.explain(piece.part(slice(n, n + 1)))]


class FailureLimit:
    """Counts the windows that could not be scored, and ends the run when there are too many."""

    def __init__(self, share: float, total: int, fail_fast: bool, already: int) -> None:
        self.share, self.total, self.fail_fast = share, total, fail_fast
        self.count = already

    def add(self, window: Window, reason: str) -> None:
        """Count one; raises InputError for the first with ``fail_fast``, and for one too many."""
        place = window.place
        if self.fail_fast:
            raise InputError(f"{place} cannot be scored: {reason}. --fail-fast ends the run here.")
        logger.warning("%s cannot be scored: %s. It is listed among the skipped regions.", place, reason)
        self.count += 1
        if self.count > self.share * self.total:
            raise InputError(
                f"{self.count} of {self.total} regions cannot be scored, more than --max-failures "
                f"{self.share:g} allows; the last is {place}: {reason}. Look for NaN or infinity in the "
                "model's weights, try --precision float64, or allow more."
            )


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether the error says that memory ran out, on the device or in the machine."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem).lower() for words in _MEMORY_WORDS)


def _checked(scores: Found) -> Found | str:
    return scores if all(_is_finite(one) for one in _each(scores)) else NOT_FINITE


def _each(scores: Found) -> Iterator[RegionScores]:
    return (one for fold in scores for one in fold.values())


def _is_finite(scores: RegionScores) -> bool:
    arrays = [scores.projected, *scores.extras.values()]
    if scores.hypothetical is not None:
        arrays.append(scores.hypothetical)
    numbers: Sequence[float] = (scores.prediction, scores.reference_prediction, scores.contribution_sum)
    return bool(np.isfinite(numbers).all()) and all(np.isfinite(array).all() for array in arrays)


def _is_device_failure(problem: BaseException) -> bool:
    """Whether the error is one of the device itself, and not for want of memory."""
    kind = getattr(torch, "AcceleratorError", None)  # newer than the oldest torch that we take
    failed = (kind is not None and isinstance(problem, kind)) or "CUDA error" in str(problem)
    return failed and not is_out_of_memory(problem)
