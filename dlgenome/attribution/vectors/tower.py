"""A tower of residual layers by products of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.kernels import as_array
from dlgenome.attribution.vectors.layers import Layer, Layers, laid_out
from dlgenome.attribution.vectors.matrices import in_pairs, in_panels
from dlgenome.attribution.vectors.tower_kernels import OF_WEIGHTS, backward_rows, forward_rows

ALL_DIGITS, IN_PAIRS = 3, 1
TAPS = 3
"""Of every layer."""


class VectorTower:
    """Passes over rows of values (rows, positions * channels) and their records.

    Weights, of every layer, are (channels, channels, 3). On the way back they, and multipliers, may be
    rounded to bfloat16.
    """

    def __init__(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, *, narrow_back: bool
    ) -> None:
        self._channels, self._bias = len(weights[0]), as_array(bias)
        self._there = self._on_one_way(layers, weights, narrow=False)
        turned = [weight.flip(2).transpose(0, 1) for weight in weights]
        self._back = self._on_one_way(layers, turned, narrow=narrow_back)

    def _on_one_way(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], *, narrow: bool
    ) -> tuple[Layers, int, Any]:
        """The layers, how many numbers or pairs the channels of a position are, and the weights."""
        packed = [_packed(weight, narrow) for weight in weights]
        n_pieces = IN_PAIRS if narrow else ALL_DIGITS
        numbers, together = laid_out(layers, self._channels, n_pieces, packed)
        return numbers, self._channels // 2 if narrow else self._channels, as_array(together)

    def forward(self, values: Any, of_relu: bool, records: Any, out: Any) -> None:
        """The last h of each row, and its record."""
        layers, units, weights = self._there
        forward_rows(values, of_relu, layers, self._channels, units, weights, self._bias, records, out)

    def backward(
        self, own: Any, records: Any, multipliers: Any, at: int, first_own: Any, first_others: Any, out: Any
    ) -> None:
        """Multipliers of the first h of the pairs of one sequence."""
        layers, units, weights = self._back
        backward_rows(
            own, records, multipliers, at, layers, self._channels, units, weights, first_own, first_others,
            out,
        )  # fmt: skip


def _packed(weight: Tensor, narrow: bool) -> Tensor:
    """Weights combined for the four products of a tile, in panels."""
    combined = torch.einsum("pt,oct->pco", torch.from_numpy(OF_WEIGHTS), weight.double()).float()
    return in_panels(in_pairs(combined) if narrow else combined).flatten()
