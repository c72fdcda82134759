"""Passes over values that a ReLU reads, for `kernels.py`."""

from __future__ import annotations

import numpy as np

from dlgenome.attribution.slopes import Floats, Scalar, relu_slope
from dlgenome.compiled import compiled

STRETCH = 256
"""Numbers set aside at once: so few that the processor reads the next ones while it writes these."""


@compiled
def relu_rows(
    x: Floats, r: Floats, m: Floats, start: int, out: Floats, least: Scalar, one: Scalar, zero: Scalar
) -> None:
    """Multipliers of the input of a ReLU for pairs of one sequence.

    Rows of multipliers may be longer than those of values, which then begin at ``start`` of them. The result
    may be written over the values of the references: each stretch of it is set aside first.
    """
    aside = np.empty(STRETCH, m.dtype)
    for pair in range(r.shape[0]):
        for place in range(0, x.size, STRETCH):
            values, others = x[place : place + STRETCH], r[pair, place : place + STRETCH]
            given = m[pair, start + place : start + place + values.size]
            made = out[pair, place : place + STRETCH]
            for i in range(values.size):
                aside[i] = given[i] * relu_slope(values[i], others[i], least, one, zero)
            for i in range(values.size):
                made[i] = aside[i]


@compiled
def cropped_sums(first: Floats, start: int, value: Floats, out: Floats, zero: Scalar) -> None:
    """Sums of the ReLU of a value and of longer rows from ``start`` on.

    They may be written over rows already read: each stretch of them is set aside first.
    """
    aside = np.empty(STRETCH, first.dtype)
    for row in range(value.shape[0]):
        for place in range(0, value.shape[1], STRETCH):
            values, sums = value[row, place : place + STRETCH], out[row, place : place + STRETCH]
            given = first[row, start + place : start + place + values.size]
            for i in range(values.size):
                aside[i] = given[i] + (zero if values[i] <= zero else values[i])
            for i in range(values.size):
                sums[i] = aside[i]


@compiled
def add_relu_of(total: Floats, value: Floats, zero: Scalar) -> None:
    """Add the ReLU of a value to ``total``."""
    for i in range(total.size):
        total[i] += zero if value[i] <= zero else value[i]
