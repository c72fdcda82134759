"""Convolutions and dense layers that count with fewer digits, for units of bfloat16.

A rounded value costs more than a rounded multiplier: near its kink a ReLU has another slope then, and a
maximum chooses another of near equals. Of values, and of the weights that they meet, sixteen binary digits
count (on CUDA the eleven of tf32), of multipliers the eight of bfloat16. Products are added up in float32;
what a library makes of bfloat16 is rounded to it. Where the processor multiplies vectors of whole numbers,
both are such numbers of sixteen bits, in steps of each row, which keep some twelve digits of a product. Dense
layers round only multipliers, and only there.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution
from dlgenome.attribution.rules.dense import Dense
from dlgenome.attribution.rules.pooling import AxisMax, MaxPool


def with_narrow_products(program: Program) -> Program:
    """The program with narrow convolutions and dense layers.

    Transposed convolutions stay as they are, and what has few channels or outputs.
    """
    return replace(program, steps=tuple(map(_narrowed, program.steps)))


def has_maxima(program: Program) -> bool:
    """Whether some operation chooses among values, which rounding can make it do otherwise."""
    return any(isinstance(step.rule, (MaxPool, AxisMax)) for step in program.steps)


def _narrowed(step: Step) -> Step:
    if not isinstance(step.rule, (Convolution, AnyConvolution, Dense)):
        return step
    rule = copy.copy(step.rule)
    rule.narrow = True
    return replace(step, rule=rule)
