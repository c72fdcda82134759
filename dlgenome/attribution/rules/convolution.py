"""Convolutions, lowered to two-dimensional ones whose values lie channels-last in memory.

The adjoint of a convolution of stride 1 is run as a forward convolution with flipped, transposed weights:
CPU libraries are several times faster at those than at transposed convolutions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.linear import Linear


class Convolution(Rule):
    """Convolution over one or two axes, with any stride, padding, dilation and grouping."""

    title = "linear (convolution)"
    linear = True
    fresh = True

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they run over the batch."""
        return _refused(call)

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values, channels-last in memory."""
        stride, padding, dilation, groups = self._geometry(args[3:], args[1])
        weight = self._two_axes(args[1])
        value = channels_last(self._two_axes(args[0]))
        bias = args[2] if len(args) > 2 else None
        if _is_narrow(value, weight) and [*stride, *dilation, groups] == [1] * 5 and not padding[0]:
            return self._own_axes(_narrow(value, weight, bias, padding[1]))
        return self._own_axes(F.conv2d(value, weight, bias, stride, padding, dilation, groups))

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution applied to the multiplier."""
        weight = self._two_axes(saved.args[1])
        stride, padding, dilation, groups = self._geometry(saved.args[3:], saved.args[1])
        shape = call.input_infos[0].shape(saved.step.pairs)
        size = shape[2:] if self.axes == 2 else (1, *shape[2:])
        m = channels_last(self._two_axes(multiplier))
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if (
            tuple(stride) == (1, 1)
            and groups == 1
            and all(p <= r for p, r in zip(padding, reach, strict=True))
        ):
            flipped = channels_last(weight.flip(2, 3).transpose(0, 1))
            before = [r - p for r, p in zip(reach, padding, strict=True)]
            # With one output the order of memory is anybody's, and what comes out is not channels-last.
            result = channels_last(F.conv2d(m, flipped, None, 1, before, dilation))
        else:
            extra = [
                n - ((o - 1) * s - 2 * p + r + 1)
                for n, o, s, p, r in zip(size, m.shape[2:], stride, padding, reach, strict=True)
            ]
            result = F.conv_transpose2d(m, weight, None, stride, padding, extra, groups, dilation)
        return [self._own_axes(result)]

    def _two_axes(self, value: Tensor) -> Tensor:
        return value if self.axes == 2 else value.unsqueeze(2)

    def _own_axes(self, value: Tensor) -> Tensor:
        return value if self.axes == 2 else value.squeeze(2)

    def _geometry(
        self, arguments: tuple[Any, ...], weight: Tensor
    ) -> tuple[list[int], list[int], list[int], int]:
        """Stride, padding and dilation for two axes, and the number of groups."""
        stride = self._pair(arguments[0] if len(arguments) > 0 else 1, 1)
        padding = self._pair(arguments[1] if len(arguments) > 1 else 0, 0)
        dilation = self._pair(arguments[2] if len(arguments) > 2 else 1, 1)
        return stride, padding, dilation, arguments[3] if len(arguments) > 3 else 1

    def _pair(self, value: int | list[int], neutral: int) -> list[int]:
        values = [value] if isinstance(value, int) else list(value)
        if self.axes == 2:
            return values * 2 if len(values) == 1 else values
        return [neutral, values[0]]


def _refused(call: Call) -> str | None:
    if call.inputs != (call.args[0],):
        return "its weights depend on the sequence"
    return None if call.input_batch(0).axis == 0 else "it works across the batch; the batch must come first"


class AnyConvolution(Linear):
    """The general operation ``(x, w, b, stride, padding, dilation, transposed, output padding, groups)``."""

    title = "linear (convolution)"

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they run over the batch."""
        return _refused(call)

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Convolved values; channels-last in memory unless the convolution is transposed."""
        plain = _plain(args)
        return super().forward(call, args, kwargs) if plain is None else plain[0].forward(call, plain[1], {})

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Adjoint of the convolution; a transposed one through automatic differentiation."""
        plain = _plain(saved.args)
        if plain is None:
            return super().backward(call, multiplier, saved)
        return plain[0].backward(call, multiplier, replace(saved, args=plain[1]))


def _plain(args: tuple[Any, ...]) -> tuple[Convolution, tuple[Any, ...]] | None:
    """The same convolution as rule and arguments of conv1d or conv2d; None where it is neither."""
    transposed, groups, axes = args[6], args[8], args[1].dim() - 2
    if transposed or axes not in (1, 2):
        return None
    return Convolution(axes), (*args[:6], groups)


class SamePadding(Convolution):
    """Convolution with ``padding="same"`` or ``"valid"``: padded first where the two sides differ."""

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values."""
        left, right = self._sides(args)
        padded = (
            F.pad(args[0], self._pads(left, right))
            if any(r > n for n, r in zip(left, right, strict=True))
            else args[0]
        )
        return super().forward(call, self._with_numbers(args, padded, left), kwargs)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution, the extra padding cut off."""
        left, right = self._sides(saved.args)
        info = call.input_infos[0]
        extra = [r - n for n, r in zip(left, right, strict=True)]
        dims = (*info.dims[:2], *[d + e for d, e in zip(info.dims[2:], extra, strict=True)])
        widened = _replace_input(call, dims)
        numbers = Backward(saved.step, saved.kept, self._with_numbers(saved.args, saved.args[0], left), {})
        (result,) = super().backward(widened, multiplier, numbers)
        assert result is not None
        for axis, size in enumerate(info.dims[2:], start=2):
            result = result.narrow(axis, 0, size)
        return [result]

    def _sides(self, args: tuple[Any, ...]) -> tuple[list[int], list[int]]:
        weight, mode = args[1], args[4] if len(args) > 4 else "valid"
        dilation = args[5] if len(args) > 5 else [1] * self.axes
        dilation = (
            [dilation] * self.axes
            if isinstance(dilation, int)
            else list(dilation) * (self.axes // len(dilation))
        )
        total = [
            0 if mode == "valid" else d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)
        ]
        return [t // 2 for t in total], [t - t // 2 for t in total]

    @staticmethod
    def _pads(left: list[int], right: list[int]) -> list[int]:
        return [side for n, r in reversed(list(zip(left, right, strict=True))) for side in (0, r - n)]

    @staticmethod
    def _with_numbers(args: tuple[Any, ...], value: Any, left: list[int]) -> tuple[Any, ...]:
        return (
            value,
            args[1],
            args[2] if len(args) > 2 else None,
            args[3] if len(args) > 3 else 1,
            left,
            *args[5:],
        )


def _is_narrow(value: Tensor, weight: Tensor) -> bool:
    """Whether few outputs look at many positions, as in a profile head."""
    outputs, _, height, width = weight.shape
    return value.device.type == "cpu" and outputs <= 2 and value.shape[2] == 1 and height == 1 and width >= 16


def _narrow(value: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """The convolution as a product of matrices, and a sum along the diagonals of what each offset gives.

    CPU libraries compute convolutions of one or two outputs as if they had many. One product a row of the
    batch, so that its bits do not depend on its place.
    """
    outputs, channels, _, width = weight.shape
    rows = F.pad(value.squeeze(2).transpose(1, 2), (0, 0, padding, padding))
    kernel = weight.squeeze(2).permute(1, 2, 0).reshape(channels, width * outputs)
    offsets = torch.bmm(rows, kernel.expand(len(rows), -1, -1))
    size, length = width * outputs, rows.shape[1]
    diagonals = offsets.as_strided(
        (len(rows), length - width + 1, width, outputs), (length * size, size, size + outputs, 1)
    )
    result = diagonals.sum(2) if bias is None else diagonals.sum(2) + bias
    return result.transpose(1, 2).unsqueeze(2)


def _replace_input(call: Call, dims: tuple[int, ...]) -> Call:
    return replace(call, input_infos=(replace(call.input_infos[0], dims=dims),))


def channels_last(value: Tensor) -> Tensor:
    """Value of shape (batch, channels, height, width) lying in memory as (batch, height, width, channels)."""
    return value.contiguous(memory_format=torch.channels_last)


RULES: dict[Any, Rule] = {
    aten.conv1d.default: Convolution(1),
    aten.conv2d.default: Convolution(2),
    aten.convolution.default: AnyConvolution(),
    aten._convolution.default: AnyConvolution(),
    aten.conv1d.padding: SamePadding(1),
    aten.conv2d.padding: SamePadding(2),
}
