"""Convolutions that count with fewer digits, for processors and GPUs that have units for bfloat16.

What a rounding error of a value does to scores is larger than that of a multiplier: near its kink a ReLU has
another slope, and a maximum chooses another of near equals. Of values and of the weights that they meet
sixteen binary digits count, of multipliers and their weights the eight of bfloat16. Products are added up
in float32 either way, and so is all else computed.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution
from dlgenome.attribution.rules.pooling import AxisMax, MaxPool


def with_narrow_convolutions(program: Program) -> Program:
    """The program with narrow convolutions; transposed ones stay as they are."""
    return replace(program, steps=tuple(map(_narrowed, program.steps)))


def has_maxima(program: Program) -> bool:
    """Whether some operation chooses among values, which rounding can make it do otherwise."""
    return any(isinstance(step.rule, (MaxPool, AxisMax)) for step in program.steps)


def _narrowed(step: Step) -> Step:
    if not isinstance(step.rule, (Convolution, AnyConvolution)):
        return step
    rule = copy.copy(step.rule)
    rule.narrow = True
    return replace(step, rule=rule)
