"""Which rule each operation gets: the table as it stands, or one of the other ways of the DeepLIFT papers.

Rescale is the table. RevealCancel and genomics-default treat positive and negative parts separately and run
on :class:`dlgenome.attribution.signed.SignedEngine`. The others replace the rules of operations that are not
linear and do not sum to the output difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.base import Rule
from dlgenome.attribution.rules.elementwise import Elementwise
from dlgenome.attribution.rules.fused import FusedElementwise
from dlgenome.attribution.rules.gradient import (
    DECONVNET,
    GRADIENT,
    GUIDED_BACKPROP,
    PASS_THROUGH,
    AllMaxima,
)
from dlgenome.attribution.rules.pooling import AxisMax, MaxPool

RuleSet = Literal[
    "rescale", "revealcancel", "genomics-default", "passthrough", "gradient", "guided-backprop", "deconvnet"
]
RULE_SETS: tuple[str, ...] = get_args(RuleSet)
SIGNED: tuple[str, ...] = ("revealcancel", "genomics-default")
"""Rule sets that need positive and negative parts."""
EXACT: tuple[str, ...] = ("rescale", *SIGNED)
"""Rule sets whose contributions sum to the output difference."""
MaxPoolRule = Literal["exact", "argmax"]


def with_rules(program: Program, rules: RuleSet = "rescale", max_pool: MaxPoolRule = "exact") -> Program:
    """The program with the rules of a set.

    ``max_pool="argmax"`` sends the multiplier of a maximum to where the sequence has it, as the original
    DeepLIFT program does; such contributions need not sum to the output difference.
    """
    steps = tuple(_step(step, rules, max_pool) for step in program.steps)
    return replace(program, steps=steps)


def _step(step: Step, rules: RuleSet, max_pool: MaxPoolRule) -> Step:
    rule = step.rule
    if max_pool == "argmax" and isinstance(rule, (MaxPool, AxisMax)):
        return Step(step.call, AllMaxima(rule.sign) if isinstance(rule, AxisMax) else GRADIENT)
    if rule.linear or rule.title == "identity" or rules in EXACT:
        return step
    if isinstance(rule, FusedElementwise):
        return Step(replace(step.call, op=rule.function), _activation(rules))
    if isinstance(rule, Elementwise):
        return Step(step.call, _activation(rules))
    return step if rules == "passthrough" else Step(step.call, GRADIENT)


def _activation(rules: RuleSet) -> Rule:
    table: dict[str, Rule] = {
        "passthrough": PASS_THROUGH,
        "guided-backprop": GUIDED_BACKPROP,
        "deconvnet": DECONVNET,
    }
    return table.get(rules, GRADIENT)
