"""Several products of matrices at once, by the processor's vectors or by the library."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.kernels import as_array, in_threads
from dlgenome.attribution.vectors.instructions import PANEL, PLACES
from dlgenome.attribution.vectors.numbers import LANES
from dlgenome.attribution.vectors.processor import has_vectors
from dlgenome.attribution.vectors.products import Factor, multiply_all
from dlgenome.attribution.vectors.shorts import multiply_all_shortened, shortened_columns

NONE = torch.empty(0)
"""Steps, where numbers are float32."""


class Products(Protocol):
    """Products with known weights, (matrices, channels, outputs)."""

    def __call__(self, values: Tensor, sums: Tensor, *, onto: bool) -> None:
        """Put the products of values (matrices, places, channels) into sums, or add them there.

        Sums are (matrices, places, outputs). There are whole groups of ``PLACES`` places. Of more matrices
        of values than there are of weights the first are taken.
        """


def products_with(weights: Tensor, *, narrow: bool = False) -> Products:
    """The products with weights (matrices, channels, outputs), outputs whole vectors, the faster way.

    Narrow ones are of whole numbers of sixteen bits, which the processor must have vectors of.
    """
    return _ByVectors(weights, narrow=narrow) if narrow or has_vectors() else _ByLibrary(weights)


class _ByVectors:
    def __init__(self, weights: Tensor, *, narrow: bool) -> None:
        self._count, self.channels, self.outputs = weights.shape
        self._multiply = multiply_all_shortened if narrow else multiply_all
        self._weights = factor(weights.unsqueeze(1), narrow=narrow)

    def __call__(self, values: Tensor, sums: Tensor, *, onto: bool) -> None:
        assert values.shape[1] == sums.shape[1]
        assert (values.stride(1), sums.stride(1)) == (self.channels, self.outputs)
        seen, made, n_places = _flat(values), _flat(sums), values.shape[1]
        in_threads(
            lambda first, last: self._run(
                seen, values.stride(0), n_places, made, sums.stride(0), first, last, onto=onto
            ),
            self._count,
        )

    def of_rows(self, rows: Tensor, sums: Tensor) -> None:
        """Put the products of rows (rows, channels) with the first matrix into sums (rows, outputs)."""
        seen, made = _flat(rows), _flat(sums)

        def work(first: int, last: int) -> None:
            begin, count = PLACES * first, PLACES * (last - first)
            values, put = seen[begin * self.channels :], made[begin * self.outputs :]
            self._run(values, 0, count, put, 0, 0, 1, onto=False)

        in_threads(work, len(rows) // PLACES)

    def _run(
        self, values: Any, apart: int, n_places: int, sums: Any, sums_apart: int, first: int, last: int, *,
        onto: bool,
    ) -> None:  # fmt: skip
        assert n_places % PLACES == 0
        self._multiply(
            values, apart, n_places, self.channels, self._weights, self.outputs, sums, sums_apart, first,
            last, onto,
        )  # fmt: skip


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

    Narrow ones are of whole numbers of sixteen bits.
    """

    def __init__(self, weights: Tensor, *, narrow: bool = False) -> None:
        self._outputs = weights.shape[1]
        filled = F.pad(weights, (0, -self._outputs % LANES))
        self._products = _ByVectors(filled.unsqueeze(0), narrow=narrow)

    def __call__(self, rows: Tensor) -> Tensor:
        """(rows, outputs), each row by the same steps wherever it stands."""
        assert rows.dtype is torch.float32
        assert rows.is_contiguous()
        whole = len(rows) - len(rows) % PLACES
        made = torch.empty(whole + PLACES, self._products.outputs)
        if whole > 0:
            self._products.of_rows(rows[:whole], made)
        if whole < len(rows):
            rest = torch.zeros(PLACES, self._products.channels)
            rest[: len(rows) - whole] = rows[whole:]
            self._products.of_rows(rest, made[whole:])
        return made[: len(rows), : self._outputs].contiguous()


def factor(weights: Tensor, *, narrow: bool) -> Factor:
    """Weights (parts, matrices, channels, outputs) as vectors multiply them, perhaps as whole numbers."""
    numbers, steps, scales = shortened_columns(weights) if narrow else (weights, NONE, NONE)
    panels = as_array(in_panels(numbers.flatten(0, 1)).flatten())
    whole = panels.view(np.int16) if narrow else panels
    return Factor(whole, as_array(steps.flatten()), as_array(scales.flatten()))


def in_panels(weights: Tensor) -> Tensor:
    """Weights (matrices, channels, outputs) as (matrices, panels of outputs, channels, outputs of one)."""
    panels = torch.split(weights, PANEL * LANES, dim=2)
    return torch.cat([panel.flatten(1) for panel in panels], dim=1).contiguous()


def _flat(value: Tensor) -> Any:
    """The memory of a value, from its first number on to its last."""
    steps = zip(value.shape, value.stride(), strict=True)
    return as_array(value.as_strided((1 + sum((size - 1) * stride for size, stride in steps),), (1,)))
