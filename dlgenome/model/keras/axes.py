"""Where Keras and torch keep the channels.

A Keras tensor (batch, a, b, ..., channels) is held as (batch, channels, a, b, ...) from the first layer to
the last, so convolutions and pools need no transposition; layers that care about the order of axes
(Flatten, Reshape, Dense on several axes) go through :func:`to_keras` and :func:`from_keras`.
"""

from __future__ import annotations

from torch import Tensor, nn


def to_keras(value: Tensor) -> Tensor:
    """Axes in the order that Keras has: channels last."""
    return value.movedim(1, -1) if value.dim() > 2 else value


def from_keras(value: Tensor) -> Tensor:
    """Axes in the order that layers here take: channels second."""
    return value.movedim(-1, 1) if value.dim() > 2 else value


def torch_axis(axis: int, dims: int) -> int:
    """Where the Keras axis of a tensor with ``dims`` axes lies here."""
    if not -dims <= axis < dims:
        raise ValueError(f"axis {axis} of a tensor with {dims} axes")
    axis %= dims
    if axis == 0:
        return 0
    return 1 if axis == dims - 1 else axis + 1


class ChannelsFirst(nn.Module):
    """A layer whose Keras tensors have the channels first, which are held here as if they were an axis."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, value: Tensor) -> Tensor:
        """The layer on the axes that it takes, and back."""
        result: Tensor = self.layer(to_keras(value))
        return from_keras(result)
