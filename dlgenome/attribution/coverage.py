"""Which operations a captured model has, and the rule of each: what `dlgenome inspect` prints."""

from __future__ import annotations

from dataclasses import dataclass

from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rules.gradient import GRADIENT


@dataclass(frozen=True)
class OperationFact:
    """One operation on the way from sequence to target."""

    name: str
    rule: str
    exact: bool
    module: str
    line: str
    reason: str = ""
    """Why it is refused; empty where it has a rule."""


def operations(program: Program) -> list[OperationFact]:
    """Every operation that the targets need: those with a rule in order, then those that are refused."""
    covered = [
        OperationFact(
            str(step.call.op),
            step.rule.title,
            step.rule is not GRADIENT,
            step.call.source.module,
            step.call.source.line,
        )
        for step in program.steps
        if step.rule.title != "identity"
    ]
    refused = [
        OperationFact(r.operation, "none", False, r.source.module, r.source.line, r.reason)
        for r in program.refusals
    ]
    return covered + refused
