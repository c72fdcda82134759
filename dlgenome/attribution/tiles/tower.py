"""A tower of residual layers by products of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dlgenome.attribution.kernels import as_array
from dlgenome.attribution.tiles.convolution import packed_weights
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.tower_kernels import backward_rows, forward_rows
from dlgenome.attribution.vectors.layers import Layer, Layers, laid_out


class TiledTower:
    """Passes over rows of values (rows, positions * channels) and their records.

    Weights, of every layer, are (channels, channels, taps); values and weights count with so many pieces on
    the way there, and back.
    """

    def __init__(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, pieces: tuple[int, int]
    ) -> None:
        self._channels, self._bias = len(weights[0]), as_array(bias)
        self._there = self._on_one_way(layers, weights, pieces[0])
        turned = [weight.flip(2).transpose(0, 1) for weight in weights]
        self._back = self._on_one_way(layers, turned, pieces[1])

    def _on_one_way(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], n_pieces: int
    ) -> tuple[Layers, Any]:
        packed = [packed_weights(weight, n_pieces, -(-self._channels // SIDE)) for weight in weights]
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
        backward_rows(
            own, records, multipliers, at, layers, self._channels, weights, first_own, first_others, out
        )
