"""Keras activations, as layers and by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.model.keras.axes import torch_axis

LINK_FUNCTIONS = ("sigmoid", "softmax", "log_softmax")
"""Left off at the end of a model: what is explained is the logit before them (Shrikumar et al. 2017, 3.6)."""


def _softmax(value: Tensor) -> Tensor:
    return F.softmax(value, dim=1)


def _log_softmax(value: Tensor) -> Tensor:
    return F.log_softmax(value, dim=1)


def _hard_sigmoid_of_keras2(value: Tensor) -> Tensor:
    return torch.clamp(0.2 * value + 0.5, 0, 1)


def _leaky_relu(value: Tensor) -> Tensor:
    return F.leaky_relu(value, 0.2)


def _identity(value: Tensor) -> Tensor:
    return value


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _identity,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "exponential": torch.exp,
    "swish": F.silu,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "hard_silu": F.hardswish,
    "gelu": F.gelu,
    "mish": F.mish,
    "leaky_relu": _leaky_relu,
    "log_sigmoid": F.logsigmoid,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


class Activation(nn.Module):
    """A function of each value, by its Keras name; hard_sigmoid changed its slope with Keras 3."""

    def __init__(self, name: str, keras_major: int = 3) -> None:
        super().__init__()
        self.name = name
        old = name == "hard_sigmoid" and keras_major < 3
        self.function = _hard_sigmoid_of_keras2 if old else FUNCTIONS[name]

    def forward(self, value: Tensor) -> Tensor:
        """The function's values."""
        return self.function(value)

    def extra_repr(self) -> str:
        """The name."""
        return self.name


class Softmax(nn.Module):
    """Softmax over one Keras axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, value: Tensor) -> Tensor:
        """Shares that sum to 1."""
        return F.softmax(value, dim=torch_axis(self.axis, value.dim()))


class ReLU(nn.Module):
    """0 up to a threshold, with a slope below it and a ceiling where they are given."""

    def __init__(self, ceiling: float | None, slope: float, threshold: float) -> None:
        super().__init__()
        self.ceiling, self.slope, self.threshold = ceiling, slope, threshold

    def forward(self, value: Tensor) -> Tensor:
        """The value above the threshold, ``slope (value - threshold)`` below."""
        above = F.threshold(value, self.threshold, 0.0) if self.threshold else F.relu(value)
        above = above if self.ceiling is None else above.clamp_max(self.ceiling)
        return above - self.slope * F.relu(self.threshold - value) if self.slope else above


class LeakyReLU(nn.Module):
    """A slope below zero."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, value: Tensor) -> Tensor:
        """The value above zero, ``slope value`` below."""
        return F.leaky_relu(value, self.slope)


class ELU(nn.Module):
    """An exponential below zero."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, value: Tensor) -> Tensor:
        """The value above zero, ``alpha (e^value - 1)`` below."""
        return F.elu(value, self.alpha)


class PReLU(nn.Module):
    """A slope below zero for every position and channel, or shared along axes.

    Two rectifiers instead of torch's own function, which has one slope for a channel; their secants add up
    to the secant of the whole.
    """

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self.alpha = nn.Parameter(alpha.movedim(-1, 0) if alpha.dim() > 1 else alpha)

    def forward(self, value: Tensor) -> Tensor:
        """The value above zero, ``alpha value`` below."""
        return F.relu(value) - self.alpha * F.relu(-value)


class LogSumExp(nn.Module):
    """Counts added in count space and taken back to logs.

    One by one, as in the ChromBPNet of :mod:`dlgenome.model.architectures.chrombpnet`: a fused logsumexp
    has another Rescale rule.
    """

    def forward(self, value: Tensor) -> Tensor:
        """Log of the summed exponentials over the channels, which stay as one."""
        return torch.log(torch.exp(value).sum(dim=1, keepdim=True))
