"""Dense layers, normalisation, merges, and layers that only move values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.model.keras.axes import from_keras, to_keras, torch_axis


class Dense(nn.Module):
    """A matrix on the last Keras axis; the kernel comes as Keras has it, (inputs, outputs)."""

    def __init__(self, kernel: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        if kernel.dim() != 2:
            raise ValueError(f"a kernel with {kernel.dim()} axes")
        self.weight = nn.Parameter(kernel.t().contiguous())
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, value: Tensor) -> Tensor:
        """The product, plus the bias."""
        return from_keras(F.linear(to_keras(value), self.weight, self.bias))


class BatchNormalization(nn.Module):
    """Moving mean and variance of training, along one Keras axis."""

    mean: Tensor
    variance: Tensor

    def __init__(
        self, mean: Tensor, variance: Tensor, scale: Tensor | None, shift: Tensor | None,
        epsilon: float, axis: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.scale = None if scale is None else nn.Parameter(scale)
        self.shift = None if shift is None else nn.Parameter(shift)
        self.epsilon, self.axis = epsilon, axis

    def forward(self, value: Tensor) -> Tensor:
        """Values normalised as in training."""
        factor = torch.rsqrt(self.variance + self.epsilon)
        factor = factor if self.scale is None else factor * self.scale
        offset = -self.mean * factor
        offset = offset if self.shift is None else offset + self.shift
        shape = [1] * value.dim()
        shape[torch_axis(self.axis, value.dim())] = -1
        return value * factor.reshape(shape) + offset.reshape(shape)


class Identity(nn.Module):
    """Dropout and noise: nothing at prediction time."""

    def forward(self, value: Tensor) -> Tensor:
        """The value."""
        return value


class Flatten(nn.Module):
    """All values of an item in one row, in the order that Keras has."""

    def __init__(self, channels_first: bool) -> None:
        super().__init__()
        self.channels_first = channels_first

    def forward(self, value: Tensor) -> Tensor:
        """(batch, values); of tensors with the channels first Keras flattens the channels last."""
        if value.dim() < 2:
            return value.unsqueeze(1)
        return (value if self.channels_first else to_keras(value)).flatten(1)


class Reshape(nn.Module):
    """Another shape for the same values in the order that Keras has."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, value: Tensor) -> Tensor:
        """(batch, *shape), held channels second."""
        return from_keras(to_keras(value).reshape(value.shape[0], *self.shape))


class Permute(nn.Module):
    """Keras axes in another order, counted from 1."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, value: Tensor) -> Tensor:
        """The same values, axes moved."""
        return from_keras(to_keras(value).permute(0, *self.order))


class Cropping(nn.Module):
    """Positions cut from both ends of each axis."""

    def __init__(self, margins: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.margins = tuple(margins)

    def forward(self, value: Tensor) -> Tensor:
        """What is left."""
        for axis, (front, back) in enumerate(self.margins, start=2):
            value = value.narrow(axis, front, value.shape[axis] - front - back)
        return value


class ZeroPadding(nn.Module):
    """Zeros at both ends of each axis."""

    def __init__(self, margins: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.margins = tuple(margins)

    def forward(self, value: Tensor) -> Tensor:
        """The longer tensor."""
        return F.pad(value, [size for pair in reversed(self.margins) for size in pair])


MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Average": torch.add,
    "Subtract": torch.sub,
    "Multiply": torch.mul,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
}


class Merge(nn.Module):
    """Several tensors of one shape combined position by position."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, *values: Tensor) -> Tensor:
        """One tensor."""
        if len({value.dim() for value in values}) > 1:
            raise ValueError("it combines tensors with different numbers of axes")
        merged = functools.reduce(MERGES[self.kind], values)
        return merged / len(values) if self.kind == "Average" else merged


class Concatenate(nn.Module):
    """Several tensors one after the other along a Keras axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *values: Tensor) -> Tensor:
        """One tensor."""
        return torch.cat(values, dim=torch_axis(self.axis, values[0].dim()))
