"""A pair of tensors, one for each sign of a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Signed:
    """Two tensors for the two signs: parts of a difference, or multipliers of the parts."""

    positive: Tensor
    negative: Tensor

    @property
    def same(self) -> bool:
        """Whether both are one tensor, which saves half of the work."""
        return self.positive is self.negative

    def map(self, function: Callable[[Tensor], Tensor]) -> Signed:
        """Both through one function."""
        first = function(self.positive)
        return Signed(first, first if self.same else function(self.negative))

    def __add__(self, other: Signed) -> Signed:
        first = self.positive + other.positive
        return Signed(first, first if self.same and other.same else self.negative + other.negative)

    def scaled(self, factor: Tensor) -> Signed:
        """Both times a factor whose negative entries swap their roles."""
        if self.same:
            return self.map(lambda tensor: tensor * factor)
        up, down = factor.clamp_min(0), factor.clamp_max(0)
        return Signed(self.positive * up + self.negative * down, self.negative * up + self.positive * down)

    def swapped(self) -> Signed:
        """The two in each other's place."""
        return Signed(self.negative, self.positive)

    def by_sign(self, difference: Tensor) -> Tensor:
        """The positive one where the difference is positive, the negative where negative, else the mean."""
        if self.same:
            return self.positive
        middle = (self.positive + self.negative) / 2
        return torch.where(difference > 0, self.positive, torch.where(difference < 0, self.negative, middle))


def split(difference: Tensor) -> Signed:
    """Positive and negative part by sign."""
    return Signed(difference.clamp_min(0), difference.clamp_max(0))
