"""Convolutions whose operands are rounded to bfloat16, for processors and GPUs that have units for these.

Nothing else is rounded: ReLUs, sums and differences stay in float32, and so do dense layers, which cost
little. A product of bfloat16 numbers is added up in float32 by the hardware; the sum is rounded once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dlgenome.attribution.convolving import Map
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rules.base import Call, Rule
from dlgenome.attribution.rules.convolution import (
    AnyConvolution,
    BoundConvolution,
    Convolution,
    ConvolutionRule,
)

_FEWEST_CHANNELS = 16
"""Convolutions from or to fewer stay in float32: the first and those of profiles. They cost little, and the
weights of a profile's logits cancel, which rounded ones do not."""


def with_narrow_convolutions(program: Program) -> Program:
    """The program with convolutions of known weights in bfloat16; transposed ones stay as they are."""
    steps = tuple(
        replace(step, rule=NarrowConvolution(step.rule))
        if isinstance(step.rule, (Convolution, AnyConvolution))
        else step
        for step in program.steps
    )
    return replace(program, steps=steps)


class NarrowConvolution(ConvolutionRule):
    """A convolution that is rounded once its weights are known."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with rounded weights, laid out for both ways."""
        if min(args[1].shape[:2]) < _FEWEST_CHANNELS:
            return self._rule.bound(call, args)
        rounded = tuple(arg.bfloat16() if isinstance(arg, Tensor) else arg for arg in args)
        rule = self._rule.bound(call, rounded)
        return BoundNarrow(rule) if isinstance(rule, BoundConvolution) else self._rule.bound(call, args)


class BoundNarrow(BoundConvolution):
    """A convolution of known weights, float32 outside and bfloat16 inside."""

    def __init__(self, inside: BoundConvolution) -> None:
        def onto(multiplier: Tensor, total: Tensor) -> bool:
            total.add_(inside.back(multiplier.bfloat16()))  # without a float32 copy of it
            return True

        super().__init__(_wide(inside.onward), _wide(inside.back), onto)


def _wide(narrow: Map) -> Map:
    return lambda value: narrow(value.bfloat16()).to(value.dtype)
