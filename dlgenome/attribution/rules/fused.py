"""Several operations that together are a function of one value: one secant for the whole.

Functions written out by hand (``torch.where(x > 0, x, exp(x) - 1)``) branch on the value itself. No single
one of their operations has a rule, but the whole is a function of one number, whose multiplier is
``(f(x) - f(r)) / (x - r)`` like that of any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, fill, refs_in
from dlgenome.attribution.rules.elementwise import near_limit


@dataclass(frozen=True)
class Part:
    """One operation inside."""

    name: str
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class FusedElementwise(Rule):
    """Operations between one value and one result, each applied to every number by itself."""

    title = "rescale (fused)"
    keeps = "inputs"
    fresh = True

    def __init__(self, root: str, parts: tuple[Part, ...]) -> None:
        self.root, self.parts = root, parts

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Result for all rows; ``args`` are the root and then everything else the parts read."""
        return self.function(*args)

    def function(self, *args: Any) -> Tensor:
        """The operations as one: the root, then everything else that the parts read, to the result."""
        values: Tensor = self._run(args)[0]
        return values

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Quotient; the midpoint's derivative where x and r are close and nothing jumps or bends between."""
        batch, step = call.input_batch(0), saved.step
        x = step.flat_pairs(saved.sequence(0, batch).expand_as(saved.reference(0, batch)), batch)
        r = step.flat_pairs(saved.reference(0, batch), batch)
        others = saved.args[1:]
        f_x, branches_x = self._run((x, *others))
        f_r, branches_r = self._run((r, *others))
        gap = x - r
        near = gap.abs() <= near_limit(r.dtype)
        for one, other in zip(branches_x, branches_r, strict=True):
            near &= one == other
        with torch.enable_grad():
            middle = torch.where(gap == 0, r, (x + r) / 2).requires_grad_()
            value = self._run((middle, *others))[0]
            slope = torch.zeros_like(middle)
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value, middle, torch.ones_like(value))
        rise = f_x - f_r
        # abs and floor bend and jump without a branch: the derivative then misses the rise by far.
        rounding = 8 * torch.finfo(r.dtype).eps * torch.maximum(f_x.abs(), f_r.abs())
        near &= (rise - slope * gap).abs() <= rounding
        near |= gap == 0
        return [torch.where(near, slope, rise / gap.masked_fill(near, 1)) * multiplier]

    def _run(self, args: tuple[Any, ...]) -> tuple[Tensor, list[Tensor]]:
        """Result, and every yes-or-no value on the way to it."""
        names = [self.root, *self.other_names]
        values: dict[str, Any] = dict(zip(names, args, strict=True))
        branches: list[Tensor] = []
        result: Any = None
        for part in self.parts:
            result = part.op(*fill(part.args, values), **fill(part.kwargs, values))
            values[part.name] = result
            if result.dtype is torch.bool:
                branches.append(result.expand_as(args[0]))
        return result, branches

    @property
    def other_names(self) -> list[str]:
        """Names of the constants that the parts read, in the order of the call's arguments."""
        inside = {self.root, *(part.name for part in self.parts)}
        found = [ref.name for part in self.parts for ref in refs_in((part.args, part.kwargs))]
        return list(dict.fromkeys(name for name in found if name not in inside))
