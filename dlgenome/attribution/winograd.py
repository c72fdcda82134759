"""Convolutions with fewer multiplications: minimal filtering (see `minimal_filtering.py`).

Four outputs of a kernel of four weights take seven products of combinations instead of sixteen. A wider
kernel is a sum of kernels of four, whose products add up before they are combined; what the second four
weights of four outputs look at is what the first four of the next four outputs do.

So many at once round four times as much as a sum of so many numbers must. The library adds up all of a wide
kernel one by one and is hardly better. Kernels of three take two outputs at once, from four products instead
of six, which round as the library does; of whole numbers of sixteen bits, which are rounded anyway, four
outputs from six. An output is combined of what its whole tile looks at: where it is exactly zero otherwise, a
rounding error may be left.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.kernels import rows_apart, rows_of
from dlgenome.attribution.minimal_filtering import FOUR_OF_FOUR, FOUR_OF_THREE, TWO_OF_THREE, Scheme
from dlgenome.attribution.vectors.instructions import PLACES
from dlgenome.attribution.vectors.matrices import products_with
from dlgenome.attribution.vectors.numbers import LANES
from dlgenome.attribution.vectors.processor import has_narrow_vectors
from dlgenome.attribution.winograd_kernels import PIECE, Lot, gather, spread

_TILES = 200
"""Tiles at once, at most: enough for fast products of matrices, few enough for the cache."""
_COMBINING = 50
"""Multiplications that take as long as one number of the combinations before or after the products."""
WORTH_IT = 0.9
"""Share of the plain convolution's time from which on that is taken."""
_NARROW_WORTH_IT = 0.55
"""The same where sixteen bits will do: of bfloat16 the library multiplies twice as many at once."""


def _cost_of_tile(scheme: Scheme, outputs: int, channels: int, width: int, *, narrow: bool = False) -> int:
    """Multiplications of a tile in float32, and what takes as long; narrow ones take half of it."""
    whole, rest = divmod(width, scheme.n_weights)
    products = (whole * scheme.n_points + (scheme.n_points - 1 if rest else 0)) * channels * outputs
    return products // (2 if narrow else 1) + _COMBINING * scheme.n_points * (channels + outputs)


class Winograd:
    """A convolution along the last axis, of stride 1; values and outputs are channels-last in memory.

    A ``narrow`` one multiplies whole numbers of sixteen bits. Values suit that take at most such a share of
    the plain convolution's time.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, padding: int, dilation: int, *, narrow: bool = False,
        at_most: float = WORTH_IT,
    ) -> None:  # fmt: skip
        self._outputs, self._channels, _, self._width = weight.shape
        self._padding, self._dilation, self._at_most = padding, dilation, at_most
        self._scheme = _scheme_for(self._width, narrow=narrow)
        self._of_inputs = self._scheme.of_inputs.astype(np.float32)
        self._of_products = self._scheme.of_products.astype(np.float32)
        self._columns = self._outputs + -self._outputs % LANES
        groups = _combined_weights(weight, self._scheme)
        self._narrow, self._products = narrow, [products_with(points, narrow=narrow) for points in groups]
        self._beyond = self._scheme.n_beyond(self._width, dilation)
        filled = torch.zeros(self._outputs) if bias is None else bias
        self._bias = filled.repeat(max(1, PIECE // self._outputs)).numpy()

    def suits(self, value: Tensor) -> bool:
        """Whether the value is of a kind that is known, and as long as it takes to be faster so."""
        size = self._size(value)
        if value.dtype is not torch.float32 or size < 1:
            return False
        sizes = self._outputs, self._channels, self._width
        a_tile = _cost_of_tile(self._scheme, *sizes, narrow=self._narrow)
        n_tiles = self._scheme.n_tiles(size, self._dilation) + self._beyond
        return a_tile * n_tiles <= self._at_most * self._width * self._channels * self._outputs * size

    def __call__(self, value: Tensor) -> Tensor:
        """Convolved values."""
        made = value.new_empty(len(value), value.shape[2], self._size(value), self._outputs)
        self._run(value, made, onto=False)
        return made.permute(0, 3, 1, 2)

    def onto(self, value: Tensor, total: Tensor) -> None:
        """The same, added to ``total``."""
        self._run(value, total.permute(0, 2, 3, 1), onto=True)

    def _run(self, value: Tensor, made: Tensor, *, onto: bool) -> None:
        rows = rows_of(value).numpy()
        everywhere, apart = rows_apart(made)
        room, lots = self._lots(len(rows), made.shape[2])
        combined = value.new_empty(self._scheme.n_points, room + self._beyond, self._channels)
        products = value.new_empty(self._scheme.n_points, room, self._columns)
        inputs, outputs = combined.view(-1).numpy(), products.view(-1).numpy()
        spare = np.empty(max(PIECE, self._outputs), np.float32)
        seen = np.empty(self._scheme.n_points * max(PIECE, self._channels), np.float32)
        for lot in lots:
            spread(
                rows, self._channels, lot, self._padding, self._of_inputs, inputs,
                combined.shape[1], seen,
            )  # fmt: skip
            self._multiply(combined, products)
            gather(
                outputs, room, products.shape[2], self._of_products, lot, self._bias, spare,
                everywhere, apart, made.shape[2], self._outputs, onto,
            )  # fmt: skip

    def _lots(self, n_rows: int, size: int) -> tuple[int, list[Lot]]:
        """How many tiles are multiplied at once, and which: some of one row, or those of several rows.

        Between rows are the tiles beyond, of which products are made, too, and none read.
        """
        n_tiles, beyond = self._scheme.n_tiles(size, self._dilation), self._beyond
        moves = beyond, self._dilation, self._scheme.n_outputs
        if n_tiles > _TILES:
            room = _whole_blocks(-(-n_tiles // -(-n_tiles // _TILES)))
            parts = [(first, min(n_tiles, first + room)) for first in range(0, n_tiles, room)]
            return room, [Lot(row, row + 1, *part, *moves) for row in range(n_rows) for part in parts]
        most = min(n_rows, max(1, _TILES // (n_tiles + beyond)))
        at_once = min(range(most, most // 2, -1), key=lambda rows: -n_rows % rows)
        lots = [Lot(t, min(n_rows, t + at_once), 0, n_tiles, *moves) for t in range(0, n_rows, at_once)]
        return _whole_blocks(at_once * (n_tiles + beyond) - beyond), lots

    def _multiply(self, combined: Tensor, made: Tensor) -> None:
        """Of all the room there is, used or not: another number of rows may be summed in another order."""
        room = made.shape[1]
        for number, products in enumerate(self._products):
            first = number * self._dilation
            products(combined[:, first : first + room], made, onto=number > 0)

    def _size(self, value: Tensor) -> int:
        return value.shape[3] + 2 * self._padding - self._dilation * (self._width - 1)


def winograd(weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Winograd | None:
    """The convolution with weights (outputs, channels, 1, width); None where no length makes it faster."""
    if cost_of_place(weight) > WORTH_IT * weight.numel():
        return None
    return Winograd(weight, bias, padding, dilation)


def narrow_winograd(weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Winograd | None:
    """The same with products of whole numbers; None where the library is faster with bfloat16."""
    if not has_narrow_vectors() or cost_of_place(weight, narrow=True) > _NARROW_WORTH_IT * weight.numel():
        return None
    return Winograd(weight, bias, padding, dilation, narrow=True, at_most=_NARROW_WORTH_IT)


def rounds_little(weight: Tensor) -> bool:
    """Whether narrow products will do for values: what chooses among near equals soon chooses otherwise."""
    return int(weight.shape[3]) == FOUR_OF_THREE.n_weights


def cost_of_place(weight: Tensor, *, narrow: bool = False) -> float:
    """Multiplications of a library in the time that a place takes, with all that is around the products.

    Infinitely many for weights of a kind that is not known.
    """
    outputs, channels, height, width = weight.shape
    if weight.device.type != "cpu" or weight.dtype is not torch.float32 or height != 1 or width < 3:
        return math.inf
    scheme = _scheme_for(width, narrow=narrow)
    return _cost_of_tile(scheme, outputs, channels, width, narrow=narrow) / scheme.n_outputs


def _whole_blocks(tiles: int) -> int:
    """So many at least, in groups that are multiplied at once."""
    return tiles + -tiles % PLACES


def _scheme_for(width: int, *, narrow: bool) -> Scheme:
    if width > TWO_OF_THREE.n_weights:
        return FOUR_OF_FOUR
    return FOUR_OF_THREE if narrow else TWO_OF_THREE


def _combined_weights(weight: Tensor, scheme: Scheme) -> list[Tensor]:
    """For every group of weights (points, channels, outputs), the outputs filled up with zeros.

    Of a group that is not whole there is nothing at infinity.
    """
    outputs, _, _, width = weight.shape
    taps = weight[:, :, 0].permute(2, 1, 0).double()
    taps = F.pad(taps, (0, -outputs % LANES, 0, 0, 0, -width % scheme.n_weights))
    groups = []
    for start in range(0, width, scheme.n_weights):
        group, factors = taps[start : start + scheme.n_weights], torch.from_numpy(scheme.of_weights)
        points = torch.einsum("pt,tco->pco", factors, group).float().contiguous()
        groups.append(points if start + scheme.n_weights <= width else points[:-1])
    return groups
