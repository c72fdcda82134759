"""Operations taken apart into others whose rules are exact.

Normalisation becomes a product with a reciprocal root, attention becomes products around a softmax: written
with the operations that have rules, so that nothing needs one of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import aten


def _standardized(x: Tensor, axes: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = ((centred * centred).mean(axes, keepdim=True) + epsilon).rsqrt()
    return centred * inverse, mean, inverse


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, channels: bool) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2)) if channels else None
    if weight is not None:
        x = x * (weight.reshape(shape) if shape else weight)
    if bias is not None:
        x = x + (bias.reshape(shape) if shape else bias)
    return x


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None,
    epsilon: float = 1e-5, cudnn: bool = True,
) -> Tensor:  # fmt: skip
    """Values standardised over the last axes, then scaled and shifted."""
    return native_layer_norm(x, shape, weight, bias, epsilon)[0]


def native_layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`layer_norm`, with mean and reciprocal standard deviation."""
    normal, mean, inverse = _standardized(x, [*range(-len(shape), 0)], epsilon)
    return _affine(normal, weight, bias, channels=False), mean, inverse


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    epsilon: float = 1e-5, cudnn: bool = True,
) -> Tensor:  # fmt: skip
    """Values standardised over each group of channels and all positions."""
    grouped = x.reshape(x.shape[0], groups, -1)
    return _affine(_standardized(grouped, [2], epsilon)[0].reshape(x.shape), weight, bias, channels=True)


def instance_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    use_input_statistics: bool, momentum: float, epsilon: float, cudnn: bool,
) -> Tensor:  # fmt: skip
    """Values standardised over positions, or by the running statistics."""
    if use_input_statistics or mean is None or variance is None:
        return _affine(_standardized(x, [*range(2, x.dim())], epsilon)[0], weight, bias, channels=True)
    factor = (variance + epsilon).rsqrt()
    return _affine(_affine(x, factor, -mean * factor, channels=True), weight, bias, channels=True)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Scaled dot-product attention as products around a softmax; a query that may see nothing gets zeros."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    logits = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        allowed = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        logits = torch.where(allowed, logits, -math.inf)
    if mask is not None:
        logits = torch.where(mask, logits, -math.inf) if mask.dtype is torch.bool else logits + mask
        return torch.matmul(aten._safe_softmax(logits, -1), value)
    return logits.softmax(-1) @ value


def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """logsumexp of the two."""
    return torch.stack((a + 0 * b, b + 0 * a), -1).logsumexp(-1)


def logaddexp2(a: Tensor, b: Tensor) -> Tensor:
    """As :func:`logaddexp`, to the base of 2."""
    return logaddexp(a * math.log(2), b * math.log(2)) / math.log(2)


def logit(x: Tensor, epsilon: float | None = None) -> Tensor:
    """``ln x - ln(1 - x)``."""
    x = x if epsilon is None else x.clamp(epsilon, 1 - epsilon)
    return x.log() - (1 - x).log()


def clamp_tensor(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Maximum with one bound, minimum with the other."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def variance(
    x: Tensor, axes: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """Mean square of the centred values, with the usual correction."""
    axes = [*range(x.dim())] if axes is None else axes
    count = math.prod(x.shape[axis] for axis in axes)
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / (
        count - (1 if correction is None else correction)
    )


def variance_and_mean(
    x: Tensor, axes: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """As :func:`variance`, with the mean."""
    along = [*range(x.dim())] if axes is None else axes
    return variance(x, along, correction=correction, keepdim=keepdim), x.mean(along, keepdim=keepdim)


def vector_norm(
    x: Tensor, order: float = 2, axes: list[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Euclidean or absolute norm; other orders stay whole and are refused."""
    axes = [*range(x.dim())] if axes is None else axes
    if order == 2:
        return (x * x).sum(axes, keepdim=keepdim).sqrt()
    if order == 1:
        return x.abs().sum(axes, keepdim=keepdim)
    return NotImplemented  # type: ignore[no-any-return]


def power_of_scalar(base: float, x: Tensor) -> Tensor:
    """``base^x`` as an exponential."""
    return (x * math.log(base)).exp() if base > 0 else NotImplemented


def addmm(bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta bias + alpha x weight``."""
    product = x @ weight
    return (product if alpha == 1 else product * alpha) + (bias if beta == 1 else bias * beta)


def baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta bias + alpha a b`` for a batch of matrices."""
    return addmm(bias, a, b, beta=beta, alpha=alpha)


def rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Tensor:
    """Leaky ReLU with the mean slope, which is what it is at prediction time."""
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a W_k b`` for every output k, as a matrix product and a sum of products."""
    through = (a.unsqueeze(-2).unsqueeze(-2) @ weight).squeeze(-2)
    out = (through * b.unsqueeze(-2)).sum(-1)
    return out if bias is None else out + bias


def lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """``a + weight (b - a)``."""
    return a + weight * (b - a)


def full_like(x: Tensor, value: float, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
    """A constant of the shape of ``x``, which does not depend on the values of ``x``."""
    return torch.full(x.shape, value, dtype=dtype or x.dtype, device=device or x.device)


def copied(into: Tensor, values: Tensor, non_blocking: bool = False) -> Tensor:
    """``values`` in the shape and precision of what they overwrite."""
    return values.to(into.dtype).expand(into.shape)


OWN: dict[Any, Callable[..., Any]] = {
    aten.layer_norm.default: layer_norm,
    aten.native_layer_norm.default: native_layer_norm,
    aten.group_norm.default: group_norm,
    aten.instance_norm.default: instance_norm,
    aten.scaled_dot_product_attention.default: attention,
    aten.logaddexp.default: logaddexp,
    aten.logaddexp2.default: logaddexp2,
    aten.logit.default: logit,
    aten.clamp.Tensor: clamp_tensor,
    aten.var.correction: variance,
    aten.var_mean.correction: variance_and_mean,
    aten.linalg_vector_norm.default: vector_norm,
    aten.pow.Scalar: power_of_scalar,
    aten.rrelu.default: rrelu,
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
    aten.bilinear.default: bilinear,
    aten.lerp.Tensor: lerp,
    aten.full_like.default: full_like,
    aten.copy.default: copied,
}
