"""What is explained of a program's output: single numbers, or profiles weighted by their own softmax.

A profile score has three definitions, which differ in the weights w of the mean-centred logits z of a pair,
with p the softmax of the logits:

* ``bpnet``: ``w = p_x``, the probabilities of the explained sequence; a linear function of the logits;
* ``chrombpnet``: ``w = (p_x + p_r) / 2``, what chrombpnet's software computes: it treats ``p z`` as a product
  of two variables and stops the multiplier of p; the scores sum to no difference of a function;
* ``bpnetlite``: ``w = (z_x p_x - z_r p_r) / (z_x - z_r)``, the elementwise secant of ``z softmax(z)``.

In all three the explained difference is ``sum w (z_x - z_r)``. Two-strand profiles have one softmax over all
positions of both strands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlgenome.attribution.layout import StepShape

ReadoutKind = Literal["number", "bpnet", "chrombpnet", "bpnetlite"]


@dataclass(frozen=True)
class Readout:
    """Columns ``start`` to ``stop`` of the (batch, columns) output, and how they make one number."""

    start: int
    stop: int
    kind: ReadoutKind = "number"

    def weights(self, sequences: Tensor, references: Tensor, step: StepShape) -> Tensor:
        """Multiplier of the columns, (sequences, references, columns), from the outputs of both."""
        x, r = self._columns(sequences, references, step)
        if self.kind == "number":
            return torch.ones_like(r)
        p_x, p_r = x.softmax(-1), r.softmax(-1)
        if self.kind == "bpnet":
            return p_x.expand_as(r)
        if self.kind == "chrombpnet":
            return (p_x + p_r) / 2
        return _secant_of_weighted_logits(x, r, p_x, p_r)

    def predictions(
        self, sequences: Tensor, references: Tensor, weights: Tensor, step: StepShape
    ) -> tuple[Tensor, Tensor]:
        """The explained number of sequence and reference, each (sequences, references)."""
        x, r = self._columns(sequences, references, step)
        if self.kind == "number":
            return x[..., 0].expand(r.shape[:-1]), r[..., 0]
        if self.kind == "bpnetlite":
            return (x * x.softmax(-1)).sum(-1).expand(r.shape[:-1]), (r * r.softmax(-1)).sum(-1)
        return (x * weights).sum(-1), (r * weights).sum(-1)

    def _columns(self, sequences: Tensor, references: Tensor, step: StepShape) -> tuple[Tensor, Tensor]:
        """Columns of sequences (sequences, 1, columns) and references (sequences, references, columns)."""
        x, r = (output[:, self.start : self.stop] for output in (sequences, references))
        count = self.stop - self.start
        return x.reshape(step.sequences, 1, count), r.reshape(step.sequences, step.references, count)


def numbers(count: int) -> tuple[Readout, ...]:
    """One readout for each of ``count`` single numbers."""
    return tuple(Readout(index, index + 1) for index in range(count))


def _secant_of_weighted_logits(x: Tensor, r: Tensor, p_x: Tensor, p_r: Tensor) -> Tensor:
    """The derivative of ``z softmax(z)`` at the sequence where the two logits are equal to rounding.

    bpnet-lite takes it below a difference of 1e-6; the derivative is that of one element alone.
    """
    gap = x - r
    near = gap.abs() < 1e-6
    slope = (p_x + x * p_x * (1 - p_x)).expand_as(r)
    return torch.where(near, slope, (x * p_x - r * p_r) / gap.masked_fill(near, 1))
