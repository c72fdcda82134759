"""Functions of one value whose secant is put together from simpler ones, and so is exact at any distance.

A derivative at the midpoint is no secant where a function bends between x and r, so functions with a kink
cannot use the rule for smooth ones. Sums, products and chains of secants stay exact:
``max(x, 0)`` has the secant p of ReLU, ``min(x, 0)`` therefore ``1 - p``, a product ``a b`` the secant
``mean(b) a' + mean(a) b'``, and ``g(h(x))`` the product of both secants.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.kernels import PairRows
from dlgenome.attribution.rules.base import Backward, Call, Rule, aten
from dlgenome.attribution.rules.elementwise import RELU, Elementwise, Exp
from dlgenome.attribution.secant_kernels import exponential_linear_multiplier


class ExponentialLinear(Elementwise):
    """``scale (max(x, 0) + a (e^(c min(x, 0)) - 1))``: ELU, SELU and CELU."""

    title = "rescale (closed form)"
    owns_output = True

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Secant p of ReLU and, for the rest of the way, that of the exponential below zero."""
        alpha, scale, steepness = _exponential_linear(call, saved.args)
        above = RELU.secant(call, x, r, saved)
        below = Exp().secant(call, x.clamp_max(0) * steepness, r.clamp_max(0) * steepness, saved)
        return (above + below.mul_(1 - above).mul_(alpha * steepness)).mul_(scale)

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """The same, times the multiplier."""
        return exponential_linear_multiplier(rows, *_exponential_linear(call, saved.args))


def _exponential_linear(call: Call, args: tuple[Any, ...]) -> tuple[float, float, float]:
    if call.op is aten.selu.default:
        return 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0
    given = [float(value) for value in args[1:]]
    if call.op is aten.celu.default:
        alpha = given[0] if given else 1.0
        return alpha, 1.0, 1 / alpha
    alpha, scale, steepness = (given + [1.0, 1.0, 1.0][len(given) :])[:3]
    return alpha, scale, steepness


def _ramp(x: Tensor, r: Tensor) -> Tensor:
    """Secant of ``x`` held between -3 and 3; differences of held values are free of rounding."""
    equal = x == r
    inside = ((r > -3) & (r <= 3)).to(r.dtype)
    return torch.where(equal, inside, (x.clamp(-3, 3) - r.clamp(-3, 3)) / (x - r).masked_fill_(equal, 1))


class HardSigmoid(Elementwise):
    """``x / 6 + 1/2`` held between 0 and 1."""

    title = "rescale (piecewise linear)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """A sixth of the secant of the ramp."""
        return _ramp(x, r).div_(6)


class HardSwish(Elementwise):
    """``x`` times its hard sigmoid."""

    title = "rescale (closed form)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Secant of a product of two functions of the same value."""
        mean: Tensor = (aten.hardsigmoid(x) + aten.hardsigmoid(r)).div_(2)
        return mean.add_(_ramp(x, r).mul_(x + r).div_(12))


class HardShrink(Elementwise):
    """``x`` where its size exceeds a limit, else 0; it jumps there, so equal slopes do not make one piece."""

    title = "rescale (piecewise linear)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Quotient, which is 1 or 0 without rounding where nothing is jumped over."""
        equal = x == r
        new_x, new_r = (call.op(value, *saved.args[1:], **saved.kwargs) for value in (x, r))
        return torch.where(equal, (new_r != 0).to(r.dtype), (new_x - new_r) / (x - r).masked_fill_(equal, 1))


class Logarithm(Elementwise):
    """``log(x + shift)``: secant ``log(1 + u) / (u low)``, low the smaller of both and u = |x - r| / low."""

    title = "rescale (closed form)"
    whole_line = False

    def __init__(self, base: float = math.e, shift: float = 0.0) -> None:
        self.factor, self.shift = 1 / math.log(base), shift

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form by log1p, accurate at any distance; u = 0 has the limit 1 / low."""
        low = torch.minimum(x, r).add_(self.shift)
        ratio = (x - r).abs_().div_(low)
        equal = ratio == 0
        growth = torch.where(equal, 1.0, torch.log1p(ratio) / ratio.masked_fill(equal, 1))
        return growth.div_(low).mul_(self.factor)


EXPONENTIAL_LINEAR = ExponentialLinear()

RULES: dict[Any, Rule] = {
    aten.elu.default: EXPONENTIAL_LINEAR,
    aten.selu.default: EXPONENTIAL_LINEAR,
    aten.celu.default: EXPONENTIAL_LINEAR,
    aten.hardsigmoid.default: HardSigmoid(),
    aten.hardswish.default: HardSwish(),
    aten.hardshrink.default: HardShrink(),
    aten.expm1.default: Exp(),
    aten.log.default: Logarithm(),
    aten.log2.default: Logarithm(2),
    aten.log10.default: Logarithm(10),
    aten.log1p.default: Logarithm(shift=1),
}
