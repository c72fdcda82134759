"""Functions made of straight pieces: the slope where x and r lie on the same one, else the quotient.

The quotient of a pair on one piece would lose the digits that x and r have in common; across a kink it is
well conditioned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.kernels import PairRows
from dlgenome.attribution.rules.base import Backward, Call, Rule, aten
from dlgenome.attribution.rules.elementwise import RELU, Elementwise
from dlgenome.attribution.secant_kernels import bent_multiplier

Pieces = Callable[[Call, tuple[Any, ...]], tuple[list[float], list[float]]]


class PiecewiseLinear(Elementwise):
    """A function made of straight pieces, given by its breakpoints and slopes (one more than breakpoints)."""

    title = "rescale (piecewise linear)"
    owns_output = True
    steady = True

    def __init__(self, pieces: Pieces, *, continuous: bool = False) -> None:
        self.pieces, self.continuous = pieces, continuous

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Slope of the common piece, or the quotient across a breakpoint."""
        breakpoints, slopes = self.pieces(call, saved.args)
        edges = torch.tensor(breakpoints, dtype=r.dtype, device=r.device)
        piece_x, piece_r = torch.bucketize(x.contiguous(), edges), torch.bucketize(r.contiguous(), edges)
        local = torch.tensor(slopes, dtype=r.dtype, device=r.device)[piece_r]
        rise = call.op(x, *saved.args[1:], **saved.kwargs) - call.op(r, *saved.args[1:], **saved.kwargs)
        same = piece_x == piece_r
        return torch.where(same, local, rise / (x - r).masked_fill_(same, 1))

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """The slope of the common piece or the quotient, times the multiplier, for up to three pieces."""
        kinks, slopes = self.pieces(call, saved.args)
        if not self.continuous or len(kinks) > 2:
            return None
        return bent_multiplier(rows, kinks, slopes)


class PRelu(Elementwise):
    """``max(x, 0) + a min(x, 0)`` with one slope a per channel: ``a + (1 - a)`` times the secant of ReLU."""

    title = "rescale (piecewise linear)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Secant of ReLU, stretched to lie between a and 1."""
        slope = saved.args[1]
        dims = len(call.output.dims)
        slope = (
            slope.view(1, -1, *[1] * (dims - 2))
            if slope.numel() > 1 and dims > 1
            else slope.view(*[1] * dims)
        )
        axis = call.input_batch(0).axis
        slope = slope.unflatten(axis, (1, 1, 1, 1)) if slope.shape[axis] == 1 else slope
        return RELU.secant(call, x, r, saved).mul_(1 - slope).add_(slope)


def _value(arguments: tuple[Any, ...], position: int, default: Any) -> Any:
    given = arguments[position] if len(arguments) > position else default
    return default if given is None else given


def _clamp(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    low = _value(args, 1, None) if call.op is not aten.clamp_max.default else None
    high = args[1] if call.op is aten.clamp_max.default else _value(args, 2, None)
    low = call.kwargs.get("min", low)
    high = call.kwargs.get("max", high)
    breakpoints, slopes = [], [1.0]
    if low is not None:
        breakpoints, slopes = [float(low)], [0.0, 1.0]
    if high is not None:
        breakpoints, slopes = [*breakpoints, float(high)], [*slopes, 0.0]
    return (breakpoints, slopes) if breakpoints == sorted(breakpoints) else ([], [0.0])


def _shrink(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    reach = abs(float(_value(args, 1, 0.5)))
    return [-reach, reach], [1.0, 0.0, 1.0]


def _threshold(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [float(args[1])], [0.0, 1.0]


def _leaky(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [0.0], [float(_value(args, 1, 0.01)), 1.0]


def _hardtanh(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [float(_value(args, 1, -1.0)), float(_value(args, 2, 1.0))], [0.0, 1.0, 0.0]


def _bent(pieces: Pieces) -> PiecewiseLinear:
    """The rule of a continuous function; breakpoints at infinity are none, and nothing lies beyond them."""

    def finite(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
        breakpoints, slopes = pieces(call, args)
        first = breakpoints.count(-math.inf)
        last = len(breakpoints) - breakpoints.count(math.inf)
        return breakpoints[first:last], slopes[first : last + 1]

    return PiecewiseLinear(finite, continuous=True)


RULES: dict[Any, Rule] = {
    aten.relu6.default: _bent(lambda call, args: ([0.0, 6.0], [0.0, 1.0, 0.0])),
    aten.leaky_relu.default: _bent(_leaky),
    aten.prelu.default: PRelu(),
    aten.hardtanh.default: _bent(_hardtanh),
    aten.clamp.default: _bent(_clamp),
    aten.clamp_min.default: _bent(_clamp),
    aten.clamp_max.default: _bent(_clamp),
    aten.abs.default: _bent(lambda call, args: ([0.0], [-1.0, 1.0])),
    aten.threshold.default: PiecewiseLinear(_threshold),
    aten.softshrink.default: _bent(_shrink),
}
