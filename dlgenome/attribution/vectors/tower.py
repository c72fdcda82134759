"""A tower of residual layers by products of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dlgenome.attribution.minimal_filtering import FOUR_OF_THREE, TWO_OF_THREE
from dlgenome.attribution.vectors.layers import Layer, TowerPasses, Way
from dlgenome.attribution.vectors.matrices import factor
from dlgenome.attribution.vectors.products import Factor
from dlgenome.attribution.vectors.tower_kernels import backward_rows, forward_rows

TAPS = 3
"""Of every layer."""


def vector_tower(
    layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, *, narrow: bool
) -> TowerPasses:
    """Its passes; narrow ones are of whole numbers of sixteen bits, both ways."""
    laid_out = partial(_laid_out, narrow=narrow)
    return TowerPasses(layers, weights, bias, Way(forward_rows, laid_out), Way(backward_rows, laid_out))


def _laid_out(weights: Sequence[Tensor], *, narrow: bool) -> Factor:
    """Weights of all layers, combined for the products of a tile, in panels."""
    scheme = FOUR_OF_THREE if narrow else TWO_OF_THREE
    layers, points = torch.stack(list(weights)).double(), torch.from_numpy(scheme.of_weights)
    combined = torch.einsum("pt,loct->lpco", points, layers).float()
    return factor(combined, narrow=narrow)
