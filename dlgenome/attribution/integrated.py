"""Integrated gradients: the gradient averaged along the straight line from reference to sequence.

Sundararajan et al. 2017 (arXiv 1703.01365). Midpoints of equal intervals, as the original DeepLIFT program
takes them: ``r + (i + 1/2) / k (x - r)``. The sum misses the output difference by an error that falls with
the number of intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlgenome.attribution.engine import Engine, Forwarded, PairMultipliers
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.readout import Readout, numbers
from dlgenome.attribution.rulesets import with_rules


class PointEngine(Engine):
    """An engine for points, each its own sequence and reference: what a gradient needs."""

    def gradients(self, points: Tensor, readouts: Sequence[Readout]) -> list[Tensor]:
        """One (points, bases, length) tensor a target."""
        forwarded = self.forward_sequences(points)
        return self._run(forwarded, forwarded, readouts).multipliers


class IntegratedGradientsEngine(Engine):
    """Takes the same rows as any engine; its multipliers are gradients averaged over ``intervals`` points."""

    def __init__(self, program: Program, step: StepShape, *, intervals: int) -> None:
        super().__init__(program, step)
        self.intervals = intervals
        self._points = PointEngine(with_rules(program, "gradient"), StepShape(step.pairs, 1))

    @torch.no_grad()
    def run_pairs(
        self, sequences: Forwarded, references: Tensor, targets: int | Sequence[Readout]
    ) -> PairMultipliers:
        """Averaged gradients of every pair, and predictions of the rows as they are.

        A profile's weights are those at each point of the line.
        """
        step, readouts = self.step, numbers(targets) if isinstance(targets, int) else targets
        ends = sequences.rows.repeat_interleave(step.references, 0)
        sums: list[Tensor] = []
        for interval in range(self.intervals):
            share = (interval + 0.5) / self.intervals
            found = self._points.gradients(references + share * (ends - references), readouts)
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        outputs = sequences.output, self._forward(references, self._pair_values).output
        weights = [readout.weights(*outputs, step) for readout in readouts]
        return self._result([total / self.intervals for total in sums], outputs, readouts, weights)
