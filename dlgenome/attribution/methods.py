"""Which way of explaining a run takes, and the engine for it."""

from __future__ import annotations

from dataclasses import dataclass

from dlgenome.attribution.cropping import cropped
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.integrated import IntegratedGradientsEngine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rewriting import put_together
from dlgenome.attribution.rulesets import SIGNED, MaxPoolRule, RuleSet, with_rules
from dlgenome.attribution.signed import SignedEngine


@dataclass(frozen=True)
class Method:
    """A rule set, or integrated gradients with so many intervals."""

    rules: RuleSet = "rescale"
    max_pool: MaxPoolRule = "exact"
    intervals: int | None = None
    """Number of points of integrated gradients; None for every other method."""

    def engine(self, program: Program, step: StepShape) -> Engine:
        """The engine that runs a program this way."""
        if self.intervals is not None:
            return IntegratedGradientsEngine(cropped(program), step, intervals=self.intervals)
        chosen = with_rules(program, self.rules, self.max_pool)
        if self.rules in SIGNED:
            return SignedEngine(cropped(chosen), step, reveal_all=self.rules == "revealcancel")
        return Engine(put_together(chosen), step)


DEEPLIFT = Method()
