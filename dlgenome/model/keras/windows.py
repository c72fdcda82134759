"""Convolutions and pools with the padding of TensorFlow.

``same`` pads as little as gives ceil(length / stride) outputs, the smaller half in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Positions to add before and after each axis."""
    found = []
    for size, width, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        found.append((total // 2, total - total // 2))
    return found


def _for_pad(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [size for pair in reversed(padding) for size in pair]


class Convolution(nn.Module):
    """Conv1D or Conv2D; the kernel comes as Keras has it, (window..., inputs, outputs)."""

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None,
        strides: tuple[int, ...],
        dilations: tuple[int, ...],
        padding: str,
        groups: int,
    ) -> None:
        super().__init__()
        axes = kernel.dim() - 2
        if len(strides) != axes or len(dilations) != axes:
            raise ValueError(f"a kernel with {axes} axes and strides {list(strides)}")
        self.weight = nn.Parameter(kernel.permute(axes + 1, axes, *range(axes)).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias)
        self.window = tuple(kernel.shape[:axes])
        self.strides, self.dilations, self.padding, self.groups = strides, dilations, padding, groups

    def forward(self, value: Tensor) -> Tensor:
        """The convolution's output, channels second."""
        padding = self._padding(value.shape[2:])
        around = [front for front, _ in padding]
        if any(front != back for front, back in padding):
            value, around = F.pad(value, _for_pad(padding)), [0] * len(padding)
        convolve = F.conv1d if len(padding) == 1 else F.conv2d
        return convolve(value, self.weight, self.bias, self.strides, around, self.dilations, self.groups)

    def _padding(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        if self.padding == "same":
            return same_padding(sizes, self.window, self.strides, self.dilations)
        if self.padding == "causal":
            return [((self.window[0] - 1) * self.dilations[0], 0)]
        return [(0, 0)] * len(self.window)


class Pool(nn.Module):
    """What both pools share."""

    def __init__(self, window: tuple[int, ...], strides: tuple[int, ...], padding: str) -> None:
        super().__init__()
        self.window, self.strides, self.padding = window, strides, padding

    def around(self, value: Tensor) -> list[tuple[int, int]]:
        """Positions to add before and after each axis."""
        if self.padding != "same":
            return [(0, 0)] * len(self.window)
        return same_padding(value.shape[2:], self.window, self.strides, [1] * len(self.window))


class MaxPooling(Pool):
    """The largest value of each window; positions added around never win."""

    def forward(self, value: Tensor) -> Tensor:
        """Largest values.

        torch pads both sides alike. With a stride, the window that reaches one further at the end comes by
        rounding up; without, one window too many in front is cut off again.
        """
        padding = self.around(value)
        extra = [
            back if stride == 1 else front
            for (front, back), stride in zip(padding, self.strides, strict=True)
        ]
        pool = F.max_pool1d if len(extra) == 1 else F.max_pool2d
        pooled = pool(value, self.window, self.strides, extra, ceil_mode=self.padding == "same")
        for axis, ((front, _), added) in enumerate(zip(padding, extra, strict=True), start=2):
            if added > front:
                pooled = pooled.narrow(axis, added - front, pooled.shape[axis] - (added - front))
        return pooled


class AveragePooling(Pool):
    """The mean of each window; positions added around do not count."""

    def forward(self, value: Tensor) -> Tensor:
        """Means."""
        padding = self.around(value)
        pool = F.avg_pool1d if len(padding) == 1 else F.avg_pool2d
        if not any(back for _, back in padding):
            return pool(value, self.window, self.strides)
        inside = torch.ones(1, 1, *value.shape[2:], dtype=value.dtype, device=value.device)
        share = pool(F.pad(inside, _for_pad(padding)), self.window, self.strides)
        return pool(F.pad(value, _for_pad(padding)), self.window, self.strides) / share


class GlobalPooling(nn.Module):
    """One number for each channel."""

    def __init__(self, largest: bool, keeps_axes: bool) -> None:
        super().__init__()
        self.largest, self.keeps_axes = largest, keeps_axes

    def forward(self, value: Tensor) -> Tensor:
        """Largest values or means, over all positions."""
        axes = list(range(2, value.dim()))
        if self.largest:
            return value.amax(axes, keepdim=self.keeps_axes)
        return value.mean(axes, keepdim=self.keeps_axes)
