"""A tower of residual layers by products of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dlgenome.attribution.kernels import as_array
from dlgenome.attribution.tiles.convolution import packed_weights
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.tower_kernels import Weights, backward_rows, forward_rows
from dlgenome.attribution.vectors.layers import Layer, TowerPasses, Way, begins


def tiled_tower(
    layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, pieces: tuple[int, int]
) -> TowerPasses:
    """Its passes; values and weights count with so many pieces on the way there, and back."""
    there, back = (partial(_laid_out, n_pieces=count) for count in pieces)
    return TowerPasses(layers, weights, bias, Way(forward_rows, there), Way(backward_rows, back))


def _laid_out(weights: Sequence[Tensor], *, n_pieces: int) -> Weights:
    packed = [packed_weights(weight, n_pieces, at_once=-(-len(weight) // SIDE)) for weight in weights]
    return Weights(as_array(torch.cat(packed)), begins([len(part) for part in packed]), n_pieces)
