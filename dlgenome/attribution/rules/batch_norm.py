"""Batch normalisation at prediction time, which is linear in every channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.linear import Linear


class BatchNorm(Linear):
    """Batch normalisation at prediction time: one factor and one shift per channel."""

    title = "linear (batch-norm)"

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor | None, ...]:
        """Normalised values, in the memory layout of the input."""
        value, weight, bias, mean, variance, _, epsilon = args
        factor = batch_norm_factor(weight, variance, epsilon)
        shift = (bias if bias is not None else 0) - mean * factor
        channels = (1, -1, *[1] * (value.dim() - 2))
        return (torch.addcmul(shift.view(channels), value, factor.view(channels)), None, None)

    def refusal(self, call: Call) -> str | None:
        """Refused where the statistics depend on the sequence."""
        return None if call.inputs == (call.args[0],) else "its statistics depend on the sequence"

    def backward(self, call: Call, multiplier: list[Tensor], saved: Backward) -> Multipliers:
        """Multiplier times the factor of its channel."""
        _, weight, _, _, variance, _, epsilon = saved.args
        return [
            multiplier[0]
            * batch_norm_factor(weight, variance, epsilon).view(1, -1, *[1] * (multiplier[0].dim() - 2))
        ]


def batch_norm_factor(weight: Tensor | None, variance: Tensor, epsilon: float) -> Tensor:
    """What batch normalisation multiplies each channel by at prediction time."""
    inverse = (variance + epsilon).rsqrt()
    return inverse if weight is None else weight * inverse


RULES: dict[Any, Rule] = {aten._native_batch_norm_legit_no_training.default: BatchNorm()}
