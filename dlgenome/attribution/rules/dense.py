"""Fully connected layers, which are linear in the sequence as everything in `linear.py`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.linear import Linear
from dlgenome.attribution.steady import steady_linear


class Dense(Linear):
    """Fully connected layer ``x W^T + b``."""

    title = "linear (dense)"
    owns_output = True

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they meet the batch."""
        if call.inputs != (call.args[0],):
            return "its weights depend on the sequence"
        across = call.input_batch(0).axis == len(call.input_infos[0].dims) - 1
        return "it multiplies across the batch" if across else None

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for the way onward."""
        suits = args[1].device.type == "cpu" and args[1].dim() == 2
        return BoundDense(args[1]) if suits else self

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Weighted sums that are the same bits for the same row, wherever it stands."""
        value, weight, bias = args if len(args) > 2 else (*args, None)
        return steady_linear(value, weight, bias)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the weights."""
        return [steady_linear(multiplier, saved.args[1].T, None)]


class BoundDense(Dense):
    """A fully connected layer of known weights, which lie in memory input by input.

    Libraries multiply by them a third faster so than as models store them, which is good for the way back.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.T.contiguous().T

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Weighted sums, as of the layer with its weights where they were."""
        return super().forward(call, (args[0], self._weight, *args[2:]), kwargs)


RULES: dict[Any, Rule] = {aten.linear.default: Dense()}
