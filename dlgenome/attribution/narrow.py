"""Convolutions whose operands are rounded to bfloat16, for processors and GPUs that have units for these.

Nothing else is rounded: ReLUs, sums and differences stay in float32, and so do dense layers, which cost
little. A product of bfloat16 numbers is added up in float32 by the hardware; the sum is rounded once. What
goes from a convolution into a ReLU, and back, stays in bfloat16 on its way: half the memory to pass over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dlgenome.attribution.kernels import add_rounded
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.base import Call, Rule
from dlgenome.attribution.rules.convolution import (
    AnyConvolution,
    BoundConvolution,
    Convolution,
    ConvolutionRule,
)
from dlgenome.attribution.rules.elementwise import Relu
from dlgenome.attribution.rules.pooling import AxisMax, MaxPool

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


def with_narrow_values(program: Program) -> Program:
    """The program with values left in bfloat16 where nothing but one ReLU, by its own rule, reads them."""
    readers: dict[str, list[type[Rule]]] = {program.output: [Rule]}
    for step in program.steps:
        for ref in step.call.inputs:
            readers.setdefault(ref.name, []).append(type(step.rule))

    def left(step: Step) -> Step:
        if not isinstance(step.rule, NarrowConvolution) or readers.get(step.call.name) != [Relu]:
            return step
        return replace(step, rule=NarrowConvolution(step.rule.rule, leaves_narrow=True))

    return replace(program, steps=tuple(map(left, program.steps)))


def has_maxima(program: Program) -> bool:
    """Whether some operation chooses among values, which rounding can make it do otherwise."""
    return any(isinstance(step.rule, (MaxPool, AxisMax)) for step in program.steps)


class NarrowConvolution(ConvolutionRule):
    """A convolution that is rounded once its weights are known."""

    def __init__(self, rule: Rule, *, leaves_narrow: bool = False) -> None:
        self.rule, self.leaves_narrow = rule, leaves_narrow

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with rounded weights, laid out for both ways."""
        if min(args[1].shape[:2]) < _FEWEST_CHANNELS:
            return self.rule.bound(call, args)
        rounded = tuple(arg.bfloat16() if isinstance(arg, Tensor) else arg for arg in args)
        rule = self.rule.bound(call, rounded)
        return (
            BoundNarrow(rule, self.leaves_narrow)
            if isinstance(rule, BoundConvolution)
            else self.rule.bound(call, args)
        )


class BoundNarrow(BoundConvolution):
    """A convolution of known weights, bfloat16 inside; float32 outside unless it leaves its values narrow."""

    def __init__(self, inside: BoundConvolution, leaves_narrow: bool) -> None:
        def onward(value: Tensor) -> Tensor:
            made = inside.onward(value)
            return made if leaves_narrow else made.float()

        def onto(multiplier: Tensor, total: Tensor) -> bool:
            if inside.back_onto is not None and inside.back_onto(multiplier, total):
                return True
            rounded = inside.back(multiplier)
            if not add_rounded(total, rounded):
                total.add_(rounded)
            return True

        super().__init__(onward, lambda multiplier: inside.back(multiplier).float(), onto)
