"""A convolution along the last axis by products of tiles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.kernels import as_array, in_threads, rows_apart, rows_of
from dlgenome.attribution.tiles.instructions import BLOCK, SIDE
from dlgenome.attribution.tiles.kernels import ALL, ONE, TWO, Shape, convolve, n_made
from dlgenome.attribution.tiles.processor import has_tiles

_BYTES_AT_ONCE, _GROUPS_AT_ONCE = 1 << 21, 6
"""Weights, and groups of 32 channels, that the second-level cache holds beside sums and what is summed up."""
_PRODUCT = {ALL: 0.6, TWO: 0.3, ONE: 0.1}
"""Multiplications of a library in float32 in the time of one here: six products of pieces, three, or one."""
_AROUND = 25
"""Multiplications of a library in the time that taking a number apart, or putting a sum away, takes."""


class TiledConvolution:
    """Of stride 1; values and outputs are channels-last in memory.

    Weights are (outputs, channels, 1, width). They and values count with so many pieces.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, padding: int, dilation: int, n_pieces: int = ALL
    ) -> None:
        outputs, channels, _, width = weight.shape
        group = width * (-(-outputs // SIDE)) * n_pieces * BLOCK * 2
        at_once = max(1, min(_GROUPS_AT_ONCE, _BYTES_AT_ONCE // group))
        self._shape = Shape(channels, outputs, width, padding, dilation, n_pieces, at_once)
        self._weights = as_array(packed_weights(weight[:, :, 0], n_pieces, at_once))
        self._bias = (torch.zeros(outputs) if bias is None else bias.contiguous()).numpy()

    def suits(self, value: Tensor) -> bool:
        """Whether the value is of a kind that is known."""
        return value.dtype is torch.float32 and value.numel() > 0 and n_made(value.shape[3], self._shape) > 0

    def __call__(self, value: Tensor) -> Tensor:
        """Convolved values."""
        size = n_made(value.shape[3], self._shape)
        made = value.new_empty(len(value), value.shape[2], size, self._shape.outputs)
        self._run(value, made, onto=False)
        return made.permute(0, 3, 1, 2)

    def onto(self, value: Tensor, total: Tensor) -> None:
        """The same, added to ``total``."""
        self._run(value, total.permute(0, 2, 3, 1), onto=True)

    def _run(self, value: Tensor, made: Tensor, *, onto: bool) -> None:
        rows = as_array(rows_of(value))
        everywhere, apart = rows_apart(made)

        def work(first: int, last: int) -> None:
            shape, out = self._shape, everywhere[first * apart :]
            convolve(rows[first:last], shape, self._weights, self._bias, out, apart, onto)

        in_threads(work, len(rows))


def tiled(
    weight: Tensor, bias: Tensor | None, padding: int, dilation: int, n_pieces: int, at_most: float
) -> TiledConvolution | None:
    """The convolution with weights (outputs, channels, 1, width).

    None where a place takes longer than ``at_most`` multiplications of a library do.
    """
    known = weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.shape[2] == 1
    if not known or _cost(weight, n_pieces) > at_most or not has_tiles():
        return None
    return TiledConvolution(weight, bias, padding, dilation, n_pieces)


def _cost(weight: Tensor, n_pieces: int) -> float:
    """Multiplications of a library that take as long as a place takes here."""
    outputs, channels, _, width = weight.shape
    blocks = -(-channels // SIDE) * -(-outputs // SIDE)
    return _PRODUCT[n_pieces] * width * blocks * BLOCK + _AROUND * (channels + outputs)


def packed_weights(weight: Tensor, n_pieces: int, at_once: int) -> Tensor:
    """Weights (outputs, channels, width) in pieces, as the registers want them, filled up with zeros.

    (parts of so many groups of channels, groups of outputs, taps, groups of channels, pieces, 2 registers of
    outputs, 16 pairs of channels, 16 outputs, pair).
    """
    outputs, channels, width = weight.shape
    whole = F.pad(weight.double(), (0, 0, 0, -channels % SIDE, 0, -outputs % SIDE))
    pieces, rest = [], whole
    for _ in range(n_pieces):
        piece = rest.bfloat16()
        pieces.append(piece)
        rest = rest - piece.double()
    half = SIDE // 2
    laid_out = torch.stack(pieces).view(n_pieces, -1, 2, half, whole.shape[1] // SIDE, half, 2, width)
    laid_out = laid_out.permute(4, 1, 7, 0, 2, 5, 3, 6)
    parts = [part.permute(1, 2, 0, *range(3, 8)).flatten() for part in torch.split(laid_out, at_once)]
    return torch.cat(parts)
