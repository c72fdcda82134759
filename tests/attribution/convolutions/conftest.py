"""Convolutions along the last axis, and what every way of computing them must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.convolving import (
    Geometry,
    OwnPasses,
    adjoint,
    adjoint_onto,
    channels_last,
    convolution,
)

Kind = Callable[[Tensor, Tensor | None, int, int], OwnPasses]
"""Makes a convolution of weight, bias, padding and dilation."""


@dataclass(frozen=True)
class ConvolutionCase:
    """Channels and places of a value, and a convolution of it."""

    channels: int
    length: int
    outputs: int
    width: int
    padding: int = 0
    dilation: int = 1
    bias: bool = True
    rows: int = 3
    height: int = 1

    def value(self) -> Tensor:
        """Random, channels-last in memory."""
        return channels_last(torch.randn(self.rows, self.channels, self.height, self.length))

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias."""
        weight = torch.randn(self.outputs, self.channels, 1, self.width)
        return weight, torch.randn(self.outputs) if self.bias else None

    def by_library(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """In the numbers that are given."""
        return F.conv2d(value, weight, bias, 1, (0, self.padding), (1, self.dilation))

    def expected(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """By the library, in float64."""
        return self.by_library(value.double(), weight.double(), None if bias is None else bias.double())

    def made_by(self, kind: Kind, weight: Tensor, bias: Tensor | None) -> OwnPasses:
        """The convolution with these weights."""
        return kind(weight, bias, self.padding, self.dilation)

    def rounding(self, kind: Kind) -> tuple[float, float]:
        """Root mean square error, own and the library's, as a share of the root mean square."""
        value, (weight, bias) = self.value(), self.weights()
        expected = self.expected(value, weight, bias)
        both = self.made_by(kind, weight, bias)(value), self.by_library(value, weight, bias)
        own, library = (float((made - expected).norm() / expected.norm()) for made in both)
        return own, library

    def check_values(self, kind: Kind, most: float) -> None:
        """In float32 they are wrong by less than so much of the largest."""
        value, (weight, bias) = self.value(), self.weights()
        made, expected = self.made_by(kind, weight, bias)(value), self.expected(value, weight, bias)
        assert made.shape == expected.shape
        assert made.dtype is torch.float32
        assert made.is_contiguous(memory_format=torch.channels_last)
        assert self.relative_error(made, expected) < most

    def check_onto(self, kind: Kind, most: float) -> None:
        """With its bias it is added to whole rows, and to parts of longer rows and to nothing beside them."""
        value, (weight, bias) = self.value(), self.weights()
        expected = self.expected(value, weight, bias)
        batch, outputs, height, length = expected.shape
        for left, right in [(0, 0), (2, 3)]:
            before = torch.randn(batch, height, left + length + right, outputs)
            after = before.clone()
            total = after[:, :, left : left + length].permute(0, 3, 1, 2)
            self.made_by(kind, weight, bias).onto(value, total)
            added = (after.double() - before).permute(0, 3, 1, 2)
            assert self.relative_error(added[..., left : left + length], expected) < most
            assert not added[..., :left].any()
            assert not added[..., left + length :].any()

    def check_order(self, kind: Kind) -> None:
        """A row gets the same bits at any place of the batch."""
        value, convolve = self.value(), self.made_by(kind, *self.weights())
        order = torch.randperm(len(value))
        assert torch.equal(convolve(value[order]), convolve(value)[order])

    @staticmethod
    def relative_error(found: Tensor, expected: Tensor) -> float:
        """The largest, as a share of the largest number."""
        return float((found.double() - expected).abs().max() / expected.abs().max())


NAMED: dict[str, tuple[Any, ...]] = {
    "odd": (5, 40, 7, 3, 1),
    "one channel": (1, 12, 1, 3),
    "one place": (6, 3, 5, 3, {"rows": 1}),
    "no bias": (6, 4, 16, 3, 2, {"bias": False}),
    "dilated": (16, 50, 16, 3, 8, 8),
    "with a rest": (16, 67, 17, 3, 16, 16),
}
"""Cases for every way of computing them."""


@pytest.fixture
def case(request: pytest.FixtureRequest) -> ConvolutionCase:
    """A named one, or of its numbers in their order; the last may be a dictionary of others."""
    numbers = list(NAMED[request.param] if isinstance(request.param, str) else request.param)
    others = numbers.pop() if isinstance(numbers[-1], dict) else {}
    return ConvolutionCase(*numbers, **others)


@pytest.fixture
def runs_both_ways(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bool]]:
    """Whether each run of a kind added, when a convolution goes there, back, and back onto a value.

    ``most`` is by how much the values that it makes may be wrong.
    """

    def check(kind: Any, weight: Tensor, most: float, stride: int = 1, groups: int = 1) -> list[bool]:
        runs: list[bool] = []
        run = kind._run

        def noted(self: OwnPasses, value: Tensor, made: Tensor, *, onto: bool) -> None:
            runs.append(onto)
            run(self, value, made, onto=onto)

        monkeypatch.setattr(kind, "_run", noted)
        geometry = Geometry((1, stride), (0, 4), (1, 4), groups)
        value = channels_last(torch.randn(2, weight.shape[1] * groups, 2, 100))
        made = convolution(weight, None, geometry)(value)
        expected = F.conv2d(value, weight, None, *vars(geometry).values())
        torch.testing.assert_close(made, expected, rtol=0, atol=most)
        multiplier = channels_last(torch.randn_like(made))
        back = adjoint(weight, geometry, (2, 100))(multiplier)
        wide = value.double().requires_grad_()
        exact = F.conv2d(wide, weight.double(), None, *vars(geometry).values())
        (right,) = torch.autograd.grad(exact, wide, multiplier.double())
        torch.testing.assert_close(back.double(), right, rtol=0, atol=most)
        onto = adjoint_onto(weight, geometry, (2, 100))
        total = value.clone(memory_format=torch.preserve_format)
        is_added = onto is not None and onto(multiplier, total)
        torch.testing.assert_close(total, value + back if is_added else value, rtol=0, atol=1e-4)
        return runs

    return check
