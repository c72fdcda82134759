"""Fully connected layers, which are linear in the sequence as everything in `linear.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.linear import Linear
from dlgenome.attribution.steady import steady_linear
from dlgenome.attribution.vectors.matrices import RowProducts
from dlgenome.attribution.vectors.processor import has_narrow_vectors, has_vectors

_FEWEST = 16
"""Inputs, and outputs, from which on vectors are filled."""


class Dense(Linear):
    """Fully connected layer ``x W^T + b``.

    A ``narrow`` one may round multipliers, and the weights that they meet, to whole numbers of sixteen bits.
    """

    title = "linear (dense)"
    owns_output = True

    def __init__(self, *, narrow: bool = False) -> None:
        self.narrow = narrow

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they meet the batch."""
        if call.inputs != (call.args[0],):
            return "its weights depend on the sequence"
        across = call.input_batch(0).axis == len(call.input_infos[0].dims) - 1
        return "it multiplies across the batch" if across else None

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for vectors, where the processor has them."""
        weight = args[1]
        known = weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.dim() == 2
        if not known or min(weight.shape) < _FEWEST or not has_vectors():
            return self
        return VectorDense(weight, narrow_back=self.narrow)

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Weighted sums that are the same bits for the same row, wherever it stands."""
        value, weight, bias = args if len(args) > 2 else (*args, None)
        return steady_linear(value, weight, bias)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the weights."""
        return [steady_linear(multiplier, saved.args[1].T, None)]


class VectorDense(Dense):
    """A fully connected layer of known weights, by the processor's vectors."""

    def __init__(self, weight: Tensor, *, narrow_back: bool = False) -> None:
        super().__init__(narrow=narrow_back)
        self._there = RowProducts(weight.T)
        self._back = RowProducts(weight, narrow=narrow_back and has_narrow_vectors())

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Weighted sums, each row's by the same steps wherever it stands."""
        made = _of_rows(self._there, args[0])
        return made if len(args) < 3 or args[2] is None else made.add_(args[2])

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the weights."""
        return [_of_rows(self._back, multiplier)]


def _of_rows(products: RowProducts, value: Tensor) -> Tensor:
    """Products of a value of any number of axes along its last one."""
    made = products(value.reshape(-1, value.shape[-1]).contiguous())
    return made.view(*value.shape[:-1], made.shape[1])


RULES: dict[Any, Rule] = {aten.linear.default: Dense()}
