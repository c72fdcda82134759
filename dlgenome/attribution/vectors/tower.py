"""A tower of residual layers by products of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.kernels import as_array
from dlgenome.attribution.vectors.layers import Layer, Layers, laid_out
from dlgenome.attribution.vectors.matrices import in_pairs, in_panels
from dlgenome.attribution.vectors.narrow_tower import narrow_backward_rows
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
        self._there = self._on_one_way(layers, weights, ALL_DIGITS)
        turned = [weight.flip(2).transpose(0, 1) for weight in weights]
        self._back = self._on_one_way(layers, turned, IN_PAIRS if narrow_back else ALL_DIGITS)
        self._run_back = narrow_backward_rows if narrow_back else backward_rows

    def _on_one_way(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], n_pieces: int
    ) -> tuple[Layers, Any]:
        packed = [_in_pairs(weight) if n_pieces == IN_PAIRS else _combined(weight) for weight in weights]
        numbers, together = laid_out(layers, self._channels, n_pieces, packed)
        return numbers, as_array(together)

    def forward(self, values: Any, of_relu: bool, records: Any, out: Any) -> None:
        """The last h of each row, and its record."""
        layers, weights = self._there
        forward_rows(values, of_relu, layers, self._channels, weights, self._bias, records, out)

    def backward(
        self, own: Any, records: Any, multipliers: Any, at: int, first_own: Any, first_others: Any, out: Any
    ) -> None:
        """Multipliers of the first h of the pairs of one sequence."""
        layers, weights = self._back
        self._run_back(
            own, records, multipliers, at, layers, self._channels, weights, first_own, first_others, out
        )


def _combined(weight: Tensor) -> Tensor:
    """Weights combined for the four products of a tile, in panels."""
    combined = torch.einsum("pt,oct->pco", torch.from_numpy(OF_WEIGHTS), weight.double())
    return in_panels(combined.float()).flatten()


def _in_pairs(weight: Tensor) -> Tensor:
    """Weights rounded to bfloat16: (panels of outputs, taps, pairs of channels, outputs of one)."""
    taps = in_pairs(weight.permute(2, 1, 0))
    return in_panels(taps.flatten(0, 1).unsqueeze(0)).flatten()
