"""Functions of one value: the Rescale rule, multiplier ``(f(x) - f(r)) / (x - r)``.

Shrikumar et al. 2017 (arXiv 1704.02685), section 3.5.2. Where x and r are close the quotient of two
differences loses digits, so

* piecewise-linear functions use the slope itself when x and r lie on the same piece, and the quotient (which
  then spans a kink and is well conditioned) otherwise;
* smooth functions use the derivative at the midpoint while ``|x - r| <= (24 eps)^(1/3) scale``: there its
  truncation error ``(x - r)^2 f''' / 24`` is below the rounding error of the quotient;
* functions with a closed form for the quotient (exp, sqrt, reciprocal) use that.

No denominator ever has an epsilon added to it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dlgenome.attribution.kernels import PairRows, pair_rows, relu_multiplier
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.secant_kernels import power_multiplier, smooth_multiplier

Pair = tuple[Tensor, Tensor]


class Elementwise(Rule):
    """A function applied to each number by itself; subclasses say what its secant is."""

    title = "rescale"
    keeps = "inputs"
    fresh = True
    gradient_may_stand_in = True
    whole_line: ClassVar[bool] = True
    """Whether the function is defined for every number."""

    def refusal(self, call: Call) -> str | None:
        """Refused where a parameter of the function depends on the sequence."""
        return None if call.inputs == (call.args[0],) else "a parameter of it depends on the sequence"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the secant between sequence and reference; in one pass where there is one."""
        batch = call.input_batch(0)
        if self._has_one_pass():
            kept = saved.sequences[0], saved.references[0]
            rows = pair_rows(*kept, multiplier, saved.step, batch, saved.spare)
            fused = None if rows is None else self.in_one_pass(call, rows, saved)
            if fused is not None:
                return [fused]
        x, r = saved.sequence(0, batch), saved.reference(0, batch)
        secant = self.secant(call, x, r, saved)
        product = secant.mul_(saved.step.pair_part(multiplier, batch))
        return [saved.step.flat_pairs(product, batch)]

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Slope of the line through (r, f(r)) and (x, f(x)), as a fresh tensor of the shape of r."""
        raise NotImplementedError

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """Multiplier times the secant, written where ``rows`` says; None, and nothing written, if not so."""
        return None

    @classmethod
    def _has_one_pass(cls) -> bool:
        """Whether there is a pass for this secant, and not for the one that a subclass has replaced."""
        pass_of, secant_of = (
            next(one for one in cls.__mro__ if name in vars(one)) for name in ("in_one_pass", "secant")
        )
        return pass_of is not Elementwise and issubclass(pass_of, secant_of)


class Relu(Elementwise):
    """``max(x, 0)``: slope ``max(x, r) / |x - r|`` held between 0 and 1; at x = r = 0 it is 0."""

    title = "rescale (piecewise linear)"
    owns_output = True
    steady = True

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """Multiplier times the secant."""
        return relu_multiplier(rows)

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """On one piece the quotient leaves [0, 1], or is infinite, and the clamp restores the exact slope."""
        width = (x - r).abs_().clamp_min_(torch.finfo(r.dtype).tiny)
        return torch.maximum(x, r).div_(width).clamp_(0, 1)


def near_limit(dtype: torch.dtype) -> float:
    """The distance below which a quotient of differences is less exact than the derivative between them.

    Rounding costs the quotient eps / d, the derivative is off by d^2 / 24 (both relative, on a scale of 1).
    """
    return float((24 * torch.finfo(dtype).eps) ** (1 / 3))


class Smooth(Elementwise):
    """A smooth function whose values change on a scale of about ``scale`` of its input."""

    title = "rescale (smooth)"
    owns_output = True

    def __init__(self, scale: float = 1.0, relative: bool = False) -> None:
        self.scale, self.relative = scale, relative

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Quotient, or the derivative at the midpoint where the two are too close for it."""
        difference, middle = x - r, (x + r) / 2
        slope = self._derivative(call, middle, saved)
        limit = self._limit(r.dtype, saved)
        near = difference.abs() <= (limit * middle.abs() if self.relative else limit)
        rise = self._value(call, x, saved) - self._value(call, r, saved)
        return torch.where(near, slope, rise.div_(difference.masked_fill_(near, 1)))

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """The same, with the derivative only where it is needed."""
        return smooth_multiplier(
            rows,
            lambda value: self._value(call, value, saved),
            lambda value: self._derivative(call, value, saved),
            self._limit(rows.result.dtype, saved),
            relative=self.relative,
        )

    def scale_of(self, saved: Backward) -> float:
        """The scale of one call."""
        return self.scale

    def _limit(self, dtype: torch.dtype, saved: Backward) -> float:
        return near_limit(dtype) * self.scale_of(saved)

    @staticmethod
    def _value(call: Call, at: Tensor, saved: Backward) -> Tensor:
        value: Tensor = call.op(at, *saved.args[1:], **saved.kwargs)
        return value

    @staticmethod
    def _derivative(call: Call, at: Tensor, saved: Backward) -> Tensor:
        with torch.enable_grad():
            point = at.detach().requires_grad_()
            value = call.op(point, *saved.args[1:], **saved.kwargs)
            (slope,) = torch.autograd.grad(value, point, torch.ones_like(value))
        return slope


class ScaledSmooth(Smooth):
    """A smooth function whose scale is a parameter of the call (softplus: 1 / beta)."""

    def __init__(self, position: int, default: float) -> None:
        super().__init__()
        self.position, self.default = position, default

    def scale_of(self, saved: Backward) -> float:
        """One over that parameter."""
        sharpness = saved.args[self.position] if len(saved.args) > self.position else self.default
        return 1 / abs(float(sharpness))


class Exp(Elementwise):
    """``e^x``: secant ``e^h (1 - e^-d) / d`` with h the larger of both and d = |x - r|."""

    title = "rescale (closed form)"
    owns_output = True

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form by expm1, accurate at any distance."""
        high, gap = torch.maximum(x, r), (x - r).abs_()
        equal = gap == 0
        ratio = torch.where(equal, 1.0, torch.expm1(-gap).neg_() / gap.masked_fill(equal, 1))
        return high.exp().mul_(ratio)

    def in_one_pass(self, call: Call, rows: PairRows, saved: Backward) -> Tensor | None:
        """The logarithmic mean of both exponentials, times the multiplier."""
        return power_multiplier(rows, torch.exp)


class Sqrt(Elementwise):
    """Square root: secant ``1 / (sqrt x + sqrt r)``."""

    title = "rescale (closed form)"
    whole_line = False

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form, accurate at any distance."""
        return (x.sqrt() + r.sqrt()).reciprocal_()


class Rsqrt(Elementwise):
    """``1 / sqrt x``: secant ``-1 / (sqrt x sqrt r (sqrt x + sqrt r))``."""

    title = "rescale (closed form)"
    whole_line = False

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form, accurate at any distance."""
        a, b = x.sqrt(), r.sqrt()
        return (a * b * (a + b)).reciprocal_().neg_()


class Reciprocal(Elementwise):
    """``1 / x``: secant ``-1 / (x r)``."""

    title = "rescale (closed form)"
    whole_line = False

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form, accurate at any distance."""
        return (x * r).reciprocal_().neg_()


class Square(Elementwise):
    """``x^2``: secant ``x + r``."""

    title = "rescale (closed form)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form."""
        return x + r


class Power(Smooth):
    """``x^p`` with a constant exponent; 2, 1/2 and -1 have closed forms."""

    whole_line = False

    def __init__(self) -> None:
        super().__init__(relative=True)

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form where there is one."""
        closed: dict[float, Elementwise] = {2.0: Square(), 0.5: Sqrt(), -0.5: Rsqrt(), -1.0: Reciprocal()}
        exponent = saved.args[1]
        rule = closed.get(float(exponent)) if isinstance(exponent, (int, float)) else None
        return super().secant(call, x, r, saved) if rule is None else rule.secant(call, x, r, saved)


RELU = Relu()
SMOOTH = Smooth()

RULES: dict[Any, Rule] = {
    aten.relu.default: RELU,
    aten.gelu.default: SMOOTH,
    aten.silu.default: SMOOTH,
    aten.sigmoid.default: SMOOTH,
    aten.tanh.default: SMOOTH,
    aten.mish.default: SMOOTH,
    aten.log_sigmoid.default: SMOOTH,
    aten.softplus.default: ScaledSmooth(1, 1.0),
    aten.sin.default: SMOOTH,
    aten.cos.default: SMOOTH,
    aten.erf.default: SMOOTH,
    aten.exp.default: Exp(),
    aten.sqrt.default: Sqrt(),
    aten.rsqrt.default: Rsqrt(),
    aten.reciprocal.default: Reciprocal(),
    aten.square.default: Square(),
    aten.pow.Tensor_Scalar: Power(),
}
