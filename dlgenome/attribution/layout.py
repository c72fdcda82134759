"""Where the batch is in each value, and how its rows split into sequences and references.

A step runs forward on the rows of the sequences, and on ``pairs = sequences * references`` rows of every
sequence's references in turn. It runs backward on the pair rows only.
The batch need not be axis 0: attention folds it into another axis and recurrent layers put time first, so
every value records its own :class:`BatchAxis`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class BatchAxis:
    """Position of the batch: axis ``axis`` holds ``outer * batch * inner`` elements, in that order."""

    axis: int = 0
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """Shape of a value of the graph; the size along the batch axis is left open."""

    dims: tuple[int, ...]
    """Sizes; at the batch axis the size for a batch of one."""
    batch: BatchAxis | None
    """None for values that do not grow with the batch."""

    def shape(self, batch_size: int) -> tuple[int, ...]:
        """Concrete sizes for ``batch_size`` rows."""
        if self.batch is None:
            return self.dims
        axis = self.batch.axis
        return (*self.dims[:axis], self.dims[axis] * batch_size, *self.dims[axis + 1 :])

    @property
    def elements_per_row(self) -> int:
        """Numbers that one row of the batch holds."""
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class StepShape:
    """The one shape that every device step of a run has."""

    sequences: int
    references: int

    @property
    def rows(self) -> int:
        """Rows of both forward passes."""
        return self.sequences * (self.references + 1)

    @property
    def pairs(self) -> int:
        """Sequence-reference pairs, the rows of the backward pass."""
        return self.sequences * self.references

    def pairs_of_sequences(self, first: int, last: int) -> Iterator[tuple[int, slice]]:
        """Each sequence and its pairs, of the pairs from ``first`` on and before ``last``."""
        for sequence in range(self.sequences):
            begin = sequence * self.references
            part = slice(max(first, begin), min(last, begin + self.references))
            if part.start < part.stop:
                yield sequence, part

    def sequence_part(self, value: Tensor, batch: BatchAxis) -> Tensor:
        """Rows of the sequences, batch axis unfolded to (outer, sequences, 1, inner)."""
        return unfold(value, batch, self.sequences).unsqueeze(batch.axis + 2)

    def pair_part(self, multiplier: Tensor, batch: BatchAxis) -> Tensor:
        """Rows of pairs or references, batch axis unfolded to (outer, sequences, references, inner)."""
        unfolded = unfold(multiplier, batch, self.pairs)
        return unflatten(unfolded, batch.axis + 1, (self.sequences, self.references))

    def flat_pairs(self, unfolded: Tensor, batch: BatchAxis) -> Tensor:
        """Pair rows folded back into one batch axis: the inverse of :meth:`pair_part`."""
        return unfolded.flatten(batch.axis, batch.axis + 3)


def step_shape(batch_size: int, n_references: int) -> StepShape:
    """The shape of steps of about ``batch_size`` pairs: whole sequences, or a part of one's references."""
    return StepShape(max(1, batch_size // n_references), min(batch_size, n_references))


def unfold(value: Tensor, batch: BatchAxis, size: int) -> Tensor:
    """Value with its batch axis split into (outer, size, inner)."""
    return unflatten(value, batch.axis, (batch.outer, size, batch.inner))


def unflatten(value: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    """View of ``value`` with one axis split into several (torch leaves its own method untyped)."""
    split: Tensor = value.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return split
