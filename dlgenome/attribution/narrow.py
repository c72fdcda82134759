"""Convolutions whose operands are rounded to bfloat16, for processors and GPUs that have units for these.

Nothing else is rounded: ReLUs, sums and differences stay in float32, and so do dense layers, which cost
little. A product of bfloat16 numbers is added up in float32 by the hardware; the sum is rounded once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule
from dlgenome.attribution.rules.convolution import AnyConvolution, BoundConvolution, Convolution

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


class NarrowConvolution(Rule):
    """A convolution that is rounded once its weights are known."""

    title = Convolution.title
    linear = True
    fresh = True
    owns_output = True
    steady = True

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with rounded weights, laid out for both ways."""
        if min(args[1].shape[:2]) < _FEWEST_CHANNELS:
            return self._rule.bound(call, args)
        rounded = tuple(arg.bfloat16() if isinstance(arg, Tensor) else arg for arg in args)
        rule = self._rule.bound(call, rounded)
        return BoundNarrow(rule) if isinstance(rule, BoundConvolution) else self._rule.bound(call, args)


class BoundNarrow(Rule):
    """A convolution of known weights, float32 outside and bfloat16 inside."""

    title = Convolution.title
    linear = True
    fresh = True
    owns_output = True
    steady = True

    def __init__(self, rule: BoundConvolution) -> None:
        self._rule = rule

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values."""
        return self._rule.forward(call, (args[0].bfloat16(),), {}).to(args[0].dtype)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution applied to the multiplier."""
        return [self._back(call, multiplier, saved).to(multiplier.dtype)]

    def backward_onto(self, call: Call, multiplier: Tensor, saved: Backward, total: Tensor) -> bool:
        """The same, added to ``total`` without a float32 copy of it."""
        total.add_(self._back(call, multiplier, saved))
        return True

    def _back(self, call: Call, multiplier: Tensor, saved: Backward) -> Tensor:
        (found,) = self._rule.backward(call, multiplier.to(torch.bfloat16), saved)
        assert found is not None
        return found
