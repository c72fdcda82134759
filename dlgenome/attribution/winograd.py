"""Convolutions with half the multiplications: minimal filtering (Winograd 1980; Lavin and Gray 2015).

Four outputs of a kernel of three weights look at six inputs. As the product of two polynomials, evaluated
at six points, they take six products instead of twelve: combinations of the inputs, times combinations of
the weights that are made once, combined to the outputs. With channels every product is one of matrices. A
wider kernel is a sum of kernels of three, whose products add up before they are combined.
Points are 0, 1, -1, 2, -1/2 and infinity, which round least (Barabasz et al. 2020). Rounding is about that
of the plain way: there are fewer and shorter sums, and factors up to eight.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.winograd_kernels import PIECE, Numbers, Tiles, gather, spread

_OUTPUTS, _TAPS, _POINTS = 4, 3, 6
_TILES = 200
"""Tiles at once, at most: enough for fast products of matrices, few enough for the cache."""
_COMBINING = 50
"""Multiplications that take as long as one number of the combinations before or after the products."""
_WORTH_IT = 0.9
"""Share of the plain convolution's time from which on that is taken."""
_LANES = 16
"""Outputs that the processor computes at once; products of other widths are slower."""
_OF_INPUTS = np.array(
    [
        [2, 3, -4, -3, 2, 0],
        [0, 2, 5, 1, -2, 0],
        [0, 2, 1, -5, 2, 0],
        [0, -1, -2, 1, 2, 0],
        [0, -2, 1, 2, -1, 0],
        [0, 2, 3, -4, -3, 2],
    ],
    np.float32,
)
_OF_WEIGHTS = torch.tensor(
    [
        [1 / 2, 0, 0],
        [1 / 6, 1 / 6, 1 / 6],
        [1 / 6, -1 / 6, 1 / 6],
        [1 / 30, 1 / 15, 2 / 15],
        [16 / 15, -8 / 15, 4 / 15],
        [0, 0, 1 / 2],
    ],
    dtype=torch.float64,
)
_OF_PRODUCTS = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -1 / 2, 0], [0, 1, 1, 4, 1 / 4, 0], [0, 1, -1, 8, -1 / 8, 1]],
    np.float32,
)


class Winograd:
    """A convolution along the last axis, of stride 1; values and outputs are channels-last in memory."""

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> None:
        self._outputs, self._channels, _, self._width = weight.shape
        self._padding, self._dilation = padding, dilation
        self._weights, self._last_weights = _combined_weights(weight)
        filled = torch.zeros(self._outputs) if bias is None else bias
        self._bias = filled.repeat(max(1, PIECE // self._outputs)).numpy()

    def pays(self, value: Tensor) -> bool:
        """Whether the value is of a kind that is known, and as long as it takes to be faster so."""
        size = self._size(value)
        if value.dtype is not torch.float32 or size < 1:
            return False
        a_tile = _cost_of_tile(self._outputs, self._channels, self._width)
        plain = self._width * self._channels * self._outputs * size
        return a_tile * _n_tiles(size, self._dilation) <= _WORTH_IT * plain

    def __call__(self, value: Tensor) -> Tensor:
        """Convolved values."""
        made = value.new_empty(len(value), value.shape[2], self._size(value), self._outputs)
        self._run(value, made, onto=False)
        return made.permute(0, 3, 1, 2)

    def onto(self, value: Tensor, total: Tensor) -> None:
        """The same, added to ``total``."""
        self._run(value, total.permute(0, 2, 3, 1), onto=True)

    def _run(self, value: Tensor, made: Tensor, *, onto: bool) -> None:
        rows = value.permute(0, 2, 3, 1).flatten(0, 1).flatten(1).contiguous().numpy()
        results = made.view(-1, made.shape[2] * made.shape[3]).numpy()
        room, lots = _lots(len(rows), _n_tiles(made.shape[2], self._dilation), self._dilation)
        combined = value.new_empty(_POINTS, room, self._weights.shape[1])
        products = value.new_empty(_POINTS, room, self._weights.shape[2])
        inputs, outputs = combined.view(-1).numpy(), products.view(-1).numpy()
        widths = room * products.shape[2], products.shape[2]
        seen, spare = (
            np.empty(n * max(PIECE, c), np.float32) for n, c in ((6, self._channels), (1, self._outputs))
        )
        for lot in lots:
            for row, tiles in lot:
                self._spread(rows[row], inputs, combined.shape, tiles, seen)
            self._multiply(combined, products)
            for row, tiles in lot:
                gather(
                    results[row], self._outputs, outputs, widths, _OF_PRODUCTS, tiles, self._bias, spare, onto
                )

    def _spread(
        self, row: Numbers, out: Numbers, shape: tuple[int, ...], tiles: Tiles, seen: Numbers
    ) -> None:
        for part, start in enumerate(range(0, self._width, _TAPS)):
            begin = start * self._dilation - self._padding
            widths = shape[1] * shape[2], shape[2], part * self._channels
            spread(row, self._channels, out, widths, _OF_INPUTS, tiles, begin, seen)

    def _multiply(self, combined: Tensor, products: Tensor) -> None:
        """Of all the room there is, used or not: another number of rows may be summed in another order."""
        n = len(self._weights)
        torch.bmm(combined[:n], self._weights, out=products[:n])
        if n < _POINTS:
            torch.mm(combined[n, :, : len(self._last_weights)], self._last_weights, out=products[n])

    def _size(self, value: Tensor) -> int:
        return value.shape[3] + 2 * self._padding - self._dilation * (self._width - 1)


def winograd(weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Winograd | None:
    """The convolution with weights (outputs, channels, 1, width); None where no length makes it faster."""
    outputs, channels, height, width = weight.shape
    known = weight.device.type == "cpu" and weight.dtype is torch.float32 and height == 1 and width >= _TAPS
    plain = _OUTPUTS * width * channels * outputs
    if not known or _cost_of_tile(outputs, channels, width) > _WORTH_IT * plain:
        return None
    return Winograd(weight, bias, padding, dilation)


def _cost_of_tile(outputs: int, channels: int, width: int) -> int:
    """Multiplications of a tile, and what takes as long."""
    whole, rest = divmod(width, _TAPS)
    products = (whole * _POINTS + (_POINTS - 1 if rest else 0)) * channels * outputs
    return products + _COMBINING * _POINTS * (-(-width // _TAPS) * channels + outputs)


def _combined_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """For every point the matrix (channels of every three weights, outputs), filled up with zeros.

    At infinity only whole threes count; where not all are, its matrix is smaller and stands alone.
    """
    outputs, channels, _, width = weight.shape
    taps = weight[:, :, 0].permute(2, 1, 0).double()
    filled = F.pad(taps, (0, -outputs % _LANES, 0, 0, 0, -width % _TAPS))
    groups = filled.view(-1, _TAPS, channels, filled.shape[2])
    points = torch.einsum("pt,gtco->pgco", _OF_WEIGHTS, groups).float()
    whole = width // _TAPS
    n_alike = _POINTS if whole == len(groups) else _POINTS - 1
    return points[:n_alike].flatten(1, 2).contiguous(), points[-1, :whole].flatten(0, 1).contiguous()


def _n_tiles(size: int, dilation: int) -> int:
    """Tiles that hold ``size`` outputs; the last of them look at fewer than four that are there."""
    whole, rest = divmod(size, _OUTPUTS * dilation)
    return whole * dilation + min(rest, dilation)


def _lots(n_rows: int, n_tiles: int, dilation: int) -> tuple[int, list[list[tuple[int, Tiles]]]]:
    """Tiles of a lot, and the tiles of all rows by lots: parts of one row, or several rows."""
    if n_tiles > _TILES:
        room = -(-n_tiles // -(-n_tiles // _TILES))
        parts = [range(first, min(n_tiles, first + room)) for first in range(0, n_tiles, room)]
        return room, [
            [(row, Tiles(part.start, part.stop, 0, dilation))] for row in range(n_rows) for part in parts
        ]
    most = min(n_rows, _TILES // n_tiles)
    at_once = min(range(most, most // 2, -1), key=lambda rows: -n_rows % rows)
    lots = [range(top, min(n_rows, top + at_once)) for top in range(0, n_rows, at_once)]
    return at_once * n_tiles, [
        [(row, Tiles(0, n_tiles, (row - lot.start) * n_tiles, dilation)) for row in lot] for lot in lots
    ]
