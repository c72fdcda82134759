"""Several products of matrices at once, by the processor's vectors or by the library."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.kernels import as_array, in_threads
from dlgenome.attribution.vectors.instructions import PANEL, PLACES
from dlgenome.attribution.vectors.numbers import LANES
from dlgenome.attribution.vectors.processor import has_vectors
from dlgenome.attribution.vectors.products import multiply, multiply_all


class Products(Protocol):
    """Products with known weights, (matrices, channels, outputs)."""

    def __call__(self, values: Tensor, sums: Tensor, *, onto: bool) -> None:
        """Put the products of values (matrices, places, channels) into sums, or add them there.

        Sums are (matrices, places, outputs). There are whole groups of ``PLACES`` places. Of more matrices
        of values than there are of weights the first are taken.
        """


def products_with(weights: Tensor, *, narrow: bool = False) -> Products:
    """The products with weights (matrices, channels, outputs), outputs whole vectors, the faster way.

    Narrow ones are of pairs of bfloat16 numbers, as :func:`rounded_to_pairs` makes them of values.
    """
    if narrow:
        return _ByVectors(in_pairs(weights))
    return _ByVectors(weights) if has_vectors() else _ByLibrary(weights)


class _ByVectors:
    def __init__(self, weights: Tensor) -> None:
        self._count, self._channels, self._outputs = weights.shape
        self._weights = as_array(in_panels(weights).flatten())

    def __call__(self, values: Tensor, sums: Tensor, *, onto: bool) -> None:
        assert values.shape[1] == sums.shape[1]
        assert values.shape[1] % PLACES == 0
        assert (values.stride(1), sums.stride(1)) == (self._channels, self._outputs)
        seen, made = _flat(values), _flat(sums)

        def work(first: int, last: int) -> None:
            multiply_all(
                seen, values.stride(0), values.shape[1], self._channels, self._weights, self._outputs,
                made, sums.stride(0), first, last, onto,
            )  # fmt: skip

        in_threads(work, self._count)


class _ByLibrary:
    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, values: Tensor, sums: Tensor, *, onto: bool) -> None:
        seen, made = values[: len(self._weights)], sums[: len(self._weights)]
        if onto:
            made.baddbmm_(seen, self._weights)
        else:
            torch.bmm(seen, self._weights, out=made)


class RowProducts:
    """Products of rows (rows, channels) with weights (channels, outputs), by vectors.

    Narrow ones are of numbers rounded to bfloat16.
    """

    def __init__(self, weights: Tensor, *, narrow: bool = False) -> None:
        channels, self._outputs = weights.shape
        self._odd = channels % 2 if narrow else 0
        filled = F.pad(weights, (0, -self._outputs % LANES, 0, self._odd)).unsqueeze(0)
        laid_out = in_pairs(filled) if narrow else filled
        self._narrow, (_, self._channels, self._columns) = narrow, laid_out.shape
        self._panels = as_array(in_panels(laid_out).flatten())

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, outputs), each row by the same steps wherever it stands."""
        assert rows.dtype is torch.float32
        assert rows.is_contiguous()
        if self._narrow:
            rows = rounded_to_pairs(F.pad(rows, (0, self._odd)))
        whole = len(rows) - len(rows) % PLACES
        made = torch.empty(whole + PLACES, self._columns)
        if whole > 0:
            self._multiply(rows[:whole], made)
        if whole < len(rows):
            rest = torch.zeros(PLACES, self._channels, dtype=rows.dtype)
            rest[: len(rows) - whole] = rows[whole:]
            self._multiply(rest, made[whole:])
        return made[: len(rows), : self._outputs].contiguous()

    def _multiply(self, rows: Tensor, made: Tensor) -> None:
        seen, sums, channels, columns = _flat(rows), _flat(made), self._channels, self._columns

        def work(first: int, last: int) -> None:
            value, place, count = PLACES * first * channels, PLACES * first * columns, PLACES * (last - first)
            multiply(seen, value, channels, count, channels, self._panels, 0, columns, sums, place, False)

        in_threads(work, len(rows) // PLACES)


def in_panels(weights: Tensor) -> Tensor:
    """Weights (matrices, channels, outputs) as (matrices, panels of outputs, channels, outputs of one)."""
    panels = torch.split(weights, PANEL * LANES, dim=2)
    return torch.cat([panel.flatten(1) for panel in panels], dim=1).contiguous()


def in_pairs(weights: Tensor) -> Tensor:
    """Weights (matrices, channels, outputs) as (matrices, pairs of channels, outputs), rounded to bfloat16.

    A pair is a number of 32 bits, with the first channel in the lower half.
    """
    rounded = weights.bfloat16().view(torch.uint16).to(torch.int64)
    return (rounded[:, 0::2] | rounded[:, 1::2] << 16).to(torch.uint32)


def rounded_to_pairs(values: Tensor) -> Tensor:
    """Values of an even number of channels, which come last, as pairs of bfloat16 numbers."""
    return values.bfloat16().view(torch.uint16).view(torch.uint32)


def _flat(value: Tensor) -> Any:
    """The memory of a value, from its first number on to its last."""
    steps = zip(value.shape, value.stride(), strict=True)
    return as_array(value.as_strided((1 + sum((size - 1) * stride for size, stride in steps),), (1,)))
