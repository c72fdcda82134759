"""A tower of residual layers by products of vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlgenome.attribution.vectors.layers import Layer, TowerPasses, Way
from dlgenome.attribution.vectors.matrices import in_pairs, in_panels
from dlgenome.attribution.vectors.narrow_tower import narrow_backward_rows
from dlgenome.attribution.vectors.tower_kernels import OF_WEIGHTS, backward_rows, forward_rows

TAPS = 3
"""Of every layer."""


def vector_tower(
    layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, *, narrow_back: bool
) -> TowerPasses:
    """Its passes; on the way back weights and multipliers may be rounded to bfloat16."""
    back = Way(narrow_backward_rows, _in_pairs) if narrow_back else Way(backward_rows, _combined)
    return TowerPasses(layers, weights, bias, Way(forward_rows, _combined), back)


def _combined(weight: Tensor) -> Tensor:
    """Weights combined for the four products of a tile, in panels."""
    combined = torch.einsum("pt,oct->pco", torch.from_numpy(OF_WEIGHTS), weight.double())
    return in_panels(combined.float()).flatten()


def _in_pairs(weight: Tensor) -> Tensor:
    """Weights rounded to bfloat16: (panels of outputs, taps, pairs of channels, outputs of one)."""
    taps = in_pairs(weight.permute(2, 1, 0))
    return in_panels(taps.flatten(0, 1).unsqueeze(0)).flatten()
