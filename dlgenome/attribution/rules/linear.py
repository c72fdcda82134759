"""Operations that are linear in the sequence: multipliers go back through the ordinary adjoint.

A linear map carries differences without loss, so its rule is exact whatever the reference (the Linear rule
of DeepLIFT under Rescale, arXiv 1704.02685, section 3.5.1); biases cancel in ``f(x) - f(r)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import (
    Backward,
    Call,
    Multipliers,
    Ref,
    Rule,
    aten,
    fill,
    same_axis,
    unbroadcast,
)


class Linear(Rule):
    """Any operation that is linear in its sequence-dependent inputs, through automatic differentiation."""

    title = "linear"
    steady = True
    linear = True

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Adjoint applied to the multiplier; the values of the inputs play no part."""
        inputs = self._blank_inputs(call, multiplier, saved)
        values = {ref.name: blank for ref, blank in zip(call.inputs, inputs, strict=True)}
        with torch.enable_grad():
            output = call.op(*fill(saved.args, values), **fill(saved.kwargs, values))
        if isinstance(output, (tuple, list)):
            used = [(part, m) for part, m in zip(output, multiplier, strict=True) if m is not None]
            return torch.autograd.grad([part for part, _ in used], inputs, [m for _, m in used])
        return torch.autograd.grad(output, inputs, multiplier)

    @staticmethod
    def _blank_inputs(call: Call, multiplier: Any, saved: Backward) -> list[Tensor]:
        sample = next(m for m in multiplier if m is not None) if isinstance(multiplier, list) else multiplier
        zero = sample.new_zeros(())
        shapes = [info.shape(saved.step.pairs) for info in call.input_infos]
        return [zero.expand(shape).detach().requires_grad_() for shape in shapes]


class AlongAxes(Linear):
    """A linear operation along given axes, none of which may be the batch."""

    def __init__(self, position: int = 1, keyword: str = "dim") -> None:
        self.position, self.keyword = position, keyword

    def refusal(self, call: Call) -> str | None:
        """Refused where the operation would mix the rows of the batch."""
        axes = call.argument(self.position, self.keyword, 0)
        dims = len(call.input_infos[0].dims)
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        if not axes or None in axes or any(same_axis(axis, call.input_batch(0).axis, dims) for axis in axes):
            return "it works across the batch, so the rows of a batch are not independent"
        return None


class OverLastAxes(Linear):
    """A linear operation over the last axes, such as an average pool; without their number, a pad."""

    def __init__(self, axes: int | None = None) -> None:
        self.axes = axes

    def refusal(self, call: Call) -> str | None:
        """Refused where one of the axes is the batch."""
        axes = _padded_axes(call.args[1]) if self.axes is None else self.axes
        within = call.input_batch(0).axis >= len(call.input_infos[0].dims) - axes
        return "it works across the batch, so the rows of a batch are not independent" if within else None


def _padded_axes(pads: list[int]) -> int:
    """How many of the last axes a pad reaches; sizes come in pairs, the last axis first."""
    return max((pair + 1 for pair in range(len(pads) // 2) if any(pads[2 * pair : 2 * pair + 2])), default=0)


class Slice(Linear):
    """A range of one axis; along the batch only the whole range."""

    def refusal(self, call: Call) -> str | None:
        """Refused where it would pick rows of the batch."""
        axis, start, stop = call.argument(1, "dim", 0), call.argument(2, "start"), call.argument(3, "end")
        whole = (start in (None, 0)) and (stop is None or isinstance(stop, Ref) or stop > 2**62)
        if same_axis(axis, call.input_batch(0).axis, len(call.input_infos[0].dims)) and not whole:
            return "it picks rows of the batch"
        return None

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier in its place, zeros elsewhere."""
        shape = call.input_infos[0].shape(saved.step.pairs)
        if tuple(multiplier.shape) == shape:
            return [multiplier]
        full = zeros_like_layout(multiplier, shape)
        aten.slice.Tensor(full, *saved.args[1:], **saved.kwargs).copy_(multiplier)
        return [full]


def zeros_like_layout(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of ``shape`` that lie in memory as ``like`` does; channels last where ``like`` was broadcast.

    Two values in different memory orders make every later operation on both several times slower.
    """
    axes = list(range(like.dim()))
    if 0 in like.stride():
        order = [0, *axes[2:], 1] if len(axes) > 2 else axes
    else:
        strides = like.stride()
        order = sorted(axes, key=lambda axis: (-strides[axis], axis))
    zeros = like.new_zeros([shape[axis] for axis in order])
    return zeros.permute([order.index(axis) for axis in axes])


class Reshape(Linear):
    """The same numbers in another shape."""

    title = "reshape"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier in the shape of the input."""
        return [multiplier.reshape(call.input_infos[0].shape(saved.step.pairs))]


class View(Reshape):
    """A view, run as a reshape because our values may lie channels-last in memory."""

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Input in its new shape, copied only where the memory layout makes that necessary."""
        result: Tensor = args[0].reshape(args[1])
        return result


class Identity(Reshape):
    """Nothing but a copy, an alias or dropout at prediction time."""

    title = "identity"

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Input itself; no copy is needed, for memory that two values lie in is never written over."""
        value: Tensor = args[0]
        return value


class Permute(Linear):
    """Axes in another order."""

    title = "reshape"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier with its axes put back."""
        dims = [axis % multiplier.dim() for axis in call.args[1]]
        return [multiplier.permute([dims.index(axis) for axis in range(multiplier.dim())])]


class Add(Linear):
    """``a + alpha b`` and ``a - alpha b``."""

    title = "sum"
    owns_output = True

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def forward_over(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The sum, in the place of its first term where the other lies in memory alike."""
        first, second = args[:2]
        alike = isinstance(second, Tensor) and (first.shape, first.dtype) == (second.shape, second.dtype)
        if not alike or first.stride() != second.stride():
            return self.forward(call, args, kwargs)
        return first.add_(second, alpha=self.sign * kwargs.get("alpha", 1))

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier to each term, summed where the term was broadcast."""
        alpha = self.sign * call.kwargs.get("alpha", 1)
        shapes = {
            ref: info.shape(saved.step.pairs) for ref, info in zip(call.inputs, call.input_infos, strict=True)
        }
        return [unbroadcast(self._factor(call, ref, alpha, multiplier), shapes[ref]) for ref in call.inputs]

    @staticmethod
    def _factor(call: Call, ref: Ref, alpha: float, multiplier: Tensor) -> Tensor:
        factor = (call.args[0] == ref) + alpha * (call.args[1] == ref)
        return multiplier if factor == 1 else multiplier * factor


class Negate(Linear):
    """``-x``."""

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier with its sign turned."""
        return [-multiplier]


class Reduce(AlongAxes):
    """Sum or mean over axes other than the batch."""

    owns_output = True

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier spread evenly over the axes that were reduced."""
        shape = call.input_infos[0].shape(saved.step.pairs)
        axes = sorted(axis % len(shape) for axis in call.args[1])
        if not call.argument(2, "keepdim", False):
            for axis in axes:
                multiplier = multiplier.unsqueeze(axis)
        count = 1
        for axis in axes:
            count *= shape[axis]
        return [(multiplier / count if self.mean else multiplier).expand(shape)]


LINEAR, ALONG, SLICE, RESHAPE, IDENTITY = Linear(), AlongAxes(), Slice(), Reshape(), Identity()

RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.reshape.default), View()),
    **dict.fromkeys((aten.flatten.using_ints, aten.unflatten.int, aten.unsqueeze.default), RESHAPE),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), RESHAPE),
    aten.permute.default: Permute(),
    **dict.fromkeys((aten.transpose.int, aten.t.default, aten.expand.default), LINEAR),
    aten.clone.default: IDENTITY,
    aten.alias.default: IDENTITY,
    aten.detach.default: IDENTITY,
    aten.lift_fresh_copy.default: IDENTITY,
    aten.contiguous.default: IDENTITY,
    aten.slice.Tensor: SLICE,
    aten.select.int: AlongAxes(1, "dim"),
    aten.split.Tensor: AlongAxes(2, "dim"),
    aten.split_with_sizes.default: AlongAxes(2, "dim"),
    aten.chunk.default: AlongAxes(2, "dim"),
    aten.unbind.int: AlongAxes(1, "dim"),
    aten.cat.default: AlongAxes(1, "dim"),
    aten.stack.default: LINEAR,
    aten.flip.default: AlongAxes(1, "dims"),
    aten.index_select.default: ALONG,
    **dict.fromkeys((aten.constant_pad_nd.default, aten.pad.default), OverLastAxes()),
    aten.add.Tensor: Add(1),
    aten.sub.Tensor: Add(-1),
    aten.add.Scalar: Add(1),
    aten.sub.Scalar: Add(-1),
    aten.neg.default: Negate(),
    aten.sum.dim_IntList: Reduce(mean=False),
    aten.mean.dim: Reduce(mean=True),
    aten.cumsum.default: ALONG,
    **dict.fromkeys((aten.avg_pool1d.default, aten.adaptive_avg_pool1d.default), OverLastAxes(1)),
    aten.avg_pool2d.default: OverLastAxes(2),
    **dict.fromkeys((aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default), OverLastAxes(2)),
    **dict.fromkeys((aten.upsample_nearest1d.vec, aten.upsample_nearest1d.default), OverLastAxes(1)),
    **dict.fromkeys((aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default), OverLastAxes(2)),
    aten.upsample_bilinear2d.vec: OverLastAxes(2),
}
