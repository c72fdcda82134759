"""Integrated gradients: the gradient averaged along the straight line from reference to sequence.

Sundararajan et al. 2017 (arXiv 1703.01365). Midpoints of equal intervals, as the original DeepLIFT program
takes them: ``r + (i + 1/2) / k (x - r)``. The sum misses the output difference by an error that falls with
the number of intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlgenome.attribution.engine import Engine, PairMultipliers
from dlgenome.attribution.layout import BatchAxis, StepShape, unfold
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.readout import Readout, numbers
from dlgenome.attribution.rulesets import with_rules
from dlgenome.attribution.steady import steady_bits


@dataclass(frozen=True, slots=True)
class PointStep(StepShape):
    """A step of points, each its own sequence and reference: what a gradient needs."""

    @property
    def rows(self) -> int:
        """One row a point."""
        return self.sequences

    def sequence_part(self, value: Tensor, batch: BatchAxis) -> Tensor:
        """All rows, batch axis unfolded to (outer, points, 1, inner)."""
        return unfold(value, batch, self.rows).unsqueeze(batch.axis + 2)

    def reference_part(self, value: Tensor, batch: BatchAxis) -> Tensor:
        """The same rows."""
        return self.sequence_part(value, batch)


class IntegratedGradientsEngine(Engine):
    """Takes the same rows as any engine; its multipliers are gradients averaged over ``intervals`` points."""

    def __init__(self, program: Program, step: StepShape, *, intervals: int) -> None:
        super().__init__(program, step)
        self.intervals = intervals
        self._points = Engine(with_rules(program, "gradient"), PointStep(step.pairs, 1))

    @torch.no_grad()
    def run(self, rows: Tensor, targets: int | Sequence[Readout]) -> PairMultipliers:
        """Averaged gradients of every pair, and predictions of the rows as they are.

        A profile's weights are those at each point of the line.
        """
        step, readouts = self.step, numbers(targets) if isinstance(targets, int) else targets
        sequences = rows[: step.sequences].repeat_interleave(step.references, 0)
        references = rows[step.sequences :]
        sums: list[Tensor] = []
        for interval in range(self.intervals):
            share = (interval + 0.5) / self.intervals
            found = self._points.run(references + share * (sequences - references), readouts).multipliers
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        with steady_bits(rows.device):
            values, _ = self._forward(rows)
        output = values[self.program.output]
        weights = [readout.weights(output, step) for readout in readouts]
        return self._result([total / self.intervals for total in sums], output, readouts, weights)
