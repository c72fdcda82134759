"""A tower of residual layers by products of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from dlgenome.attribution.tiles.convolution import packed_weights
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.tower_kernels import backward_rows, forward_rows
from dlgenome.attribution.vectors.layers import Layer, TowerPasses, Way


def tiled_tower(
    layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, pieces: tuple[int, int]
) -> TowerPasses:
    """Its passes; values and weights count with so many pieces on the way there, and back."""
    groups = -(-len(weights[0]) // SIDE)
    there, back = (partial(packed_weights, n_pieces=count, at_once=groups) for count in pieces)
    return TowerPasses(
        layers, weights, bias, Way(forward_rows, there, pieces[0]), Way(backward_rows, back, pieces[1])
    )
