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

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlgenome.attribution.kernels import relu_multiplier
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten

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
        """Multiplier times the secant between sequence and reference."""
        batch = call.input_batch(0)
        x, r = saved.sequence(0, batch), saved.reference(0, batch)
        secant = self.secant(call, x, r, saved)
        product = secant.mul_(saved.step.pair_part(multiplier, batch))
        return [saved.step.flat_pairs(product, batch)]

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Slope of the line through (r, f(r)) and (x, f(x)), as a fresh tensor of the shape of r."""
        raise NotImplementedError


class Relu(Elementwise):
    """``max(x, 0)``: slope ``max(x, r) / |x - r|`` held between 0 and 1; at x = r = 0 it is 0."""

    title = "rescale (piecewise linear)"
    owns_output = True
    steady = True

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What is positive; in float32 where a convolution left its values in bfloat16."""
        return as_float32(super().forward(call, args, kwargs))

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the secant, in one pass over memory where the values allow it."""
        kept, batch = (saved.sequences[0], saved.references[0]), call.input_batch(0)
        fused = relu_multiplier(*kept, multiplier, saved.step, batch, saved.spare)
        return super().backward(call, multiplier, saved) if fused is None else [fused]

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """On one piece the quotient leaves [0, 1], or is infinite, and the clamp restores the exact slope."""
        x, r = as_float32(x), as_float32(r)
        width = (x - r).abs_().clamp_min_(torch.finfo(r.dtype).tiny)
        return torch.maximum(x, r).div_(width).clamp_(0, 1)


def as_float32(value: Tensor) -> Tensor:
    """The value, widened where it is in bfloat16."""
    return value.float() if value.dtype is torch.bfloat16 else value


Pieces = Callable[[Call, tuple[Any, ...]], tuple[list[float], list[float]]]


class PiecewiseLinear(Elementwise):
    """A function made of straight pieces, given by its breakpoints and slopes (one more than breakpoints)."""

    title = "rescale (piecewise linear)"
    steady = True

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Slope of the common piece, or the quotient across a breakpoint."""
        breakpoints, slopes = self.pieces(call, saved.args)
        edges = torch.tensor(breakpoints, dtype=r.dtype, device=r.device)
        piece_x, piece_r = torch.bucketize(x.contiguous(), edges), torch.bucketize(r.contiguous(), edges)
        local = torch.tensor(slopes, dtype=r.dtype, device=r.device)[piece_r]
        rise = call.op(x, *saved.args[1:], **saved.kwargs) - call.op(r, *saved.args[1:], **saved.kwargs)
        same = piece_x == piece_r
        return torch.where(same, local, rise / (x - r).masked_fill_(same, 1))


def near_limit(dtype: torch.dtype) -> float:
    """The distance below which a quotient of differences is less exact than the derivative between them.

    Rounding costs the quotient eps / d, the derivative is off by d^2 / 24 (both relative, on a scale of 1).
    """
    return float((24 * torch.finfo(dtype).eps) ** (1 / 3))


class Smooth(Elementwise):
    """A smooth function whose values change on a scale of about ``scale`` of its input."""

    title = "rescale (smooth)"

    def __init__(self, scale: float = 1.0, relative: bool = False) -> None:
        self.scale, self.relative = scale, relative

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Quotient, or the derivative at the midpoint where the two are too close for it."""
        difference, middle = x - r, (x + r) / 2
        slope = self._derivative(call, middle, saved)
        limit = near_limit(r.dtype) * self.scale
        near = difference.abs() <= (limit * middle.abs() if self.relative else limit)
        rise = call.op(x, *saved.args[1:], **saved.kwargs) - call.op(r, *saved.args[1:], **saved.kwargs)
        return torch.where(near, slope, rise.div_(difference.masked_fill_(near, 1)))

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

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """As :class:`Smooth`, with the scale of this call."""
        sharpness = saved.args[self.position] if len(saved.args) > self.position else self.default
        return Smooth(1 / abs(float(sharpness))).secant(call, x, r, saved)


class Exp(Elementwise):
    """``e^x``: secant ``e^h (1 - e^-d) / d`` with h the larger of both and d = |x - r|."""

    title = "rescale (closed form)"

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Closed form by expm1, accurate at any distance."""
        high, gap = torch.maximum(x, r), (x - r).abs_()
        equal = gap == 0
        ratio = torch.where(equal, 1.0, torch.expm1(-gap).neg_() / gap.masked_fill(equal, 1))
        return high.exp().mul_(ratio)


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
    return breakpoints, slopes


def _shrink(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    reach = abs(float(_value(args, 1, 0.5)))
    return [-reach, reach], [1.0, 0.0, 1.0]


def _threshold(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [float(args[1])], [0.0, 1.0]


def _leaky(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [0.0], [float(_value(args, 1, 0.01)), 1.0]


def _hardtanh(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    return [float(_value(args, 1, -1.0)), float(_value(args, 2, 1.0))], [0.0, 1.0, 0.0]


RELU = Relu()
SMOOTH = Smooth()

RULES: dict[Any, Rule] = {
    aten.relu.default: RELU,
    aten.relu6.default: PiecewiseLinear(lambda call, args: ([0.0, 6.0], [0.0, 1.0, 0.0])),
    aten.leaky_relu.default: PiecewiseLinear(_leaky),
    aten.prelu.default: PRelu(),
    aten.hardtanh.default: PiecewiseLinear(_hardtanh),
    aten.clamp.default: PiecewiseLinear(_clamp),
    aten.clamp_min.default: PiecewiseLinear(_clamp),
    aten.clamp_max.default: PiecewiseLinear(_clamp),
    aten.abs.default: PiecewiseLinear(lambda call, args: ([0.0], [-1.0, 1.0])),
    aten.threshold.default: PiecewiseLinear(_threshold),
    aten.softshrink.default: PiecewiseLinear(_shrink),
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
