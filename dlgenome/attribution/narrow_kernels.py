"""Passes over values, those among them that a convolution left in bfloat16, for `kernels.py`.

numba has no bfloat16: its bits are the upper half of those of a float32, and so they are handled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from dlgenome.attribution.slopes import Floats, Scalar, relu_slope
from dlgenome.compiled import compiled

Halves = NDArray[np.uint16]
_SIXTEEN, _ONE, _BELOW_HALF = np.uint32(16), np.uint32(1), np.uint32(0x7FFF)
_NOT_A_NUMBER = np.uint16(0x7FC0)
STRETCH = 256
"""Numbers set aside at once: so few that the processor reads the next ones while it writes these."""


@compiled
def _widened(half: np.uint16) -> np.float32:
    return np.uint32(np.uint32(half) << _SIXTEEN).view(np.float32)


@compiled
def _rounded(value: np.float32) -> np.uint16:
    """The nearest bfloat16, of two the even one."""
    bits = np.float32(value).view(np.uint32)
    up = bits + (_BELOW_HALF + ((bits >> _SIXTEEN) & _ONE))
    return np.uint16(up >> _SIXTEEN) if value == value else _NOT_A_NUMBER


def wide(number: Any) -> Any:
    """The number itself, or the one whose bits are given; compiled code is made for either."""
    raise NotImplementedError("for compiled code")


@overload(wide)
def _compiled_wide(number: Any) -> Any:
    def of_bits(number: Any) -> Any:
        return _widened(number)

    def itself(number: Any) -> Any:
        return number

    return of_bits if isinstance(number, types.Integer) else itself


def stored(number: Any, like: Any) -> Any:
    """The number itself, or its bits where it is put beside bits; compiled code is made for either."""
    raise NotImplementedError("for compiled code")


@overload(stored)
def _compiled_stored(number: Any, like: Any) -> Any:
    def as_bits(number: Any, like: Any) -> Any:
        return _rounded(number)

    def itself(number: Any, like: Any) -> Any:
        return number

    return as_bits if isinstance(like, types.Integer) else itself


@compiled
def relu_rows(
    x: Any, r: Any, m: Floats, start: int, out: Any, least: Scalar, one: Scalar, zero: Scalar
) -> None:
    """Multipliers of the input of a ReLU for pairs of one sequence, as wide as the values are.

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
                aside[i] = given[i] * relu_slope(wide(values[i]), wide(others[i]), least, one, zero)
            for i in range(values.size):
                made[i] = stored(aside[i], made[i])


@compiled
def cropped_sums(first: Floats, start: int, value: Any, out: Floats, zero: Scalar) -> None:
    """Sums of the ReLU of a value and of longer rows from ``start`` on.

    They may be written over rows already read: each stretch of them is set aside first.
    """
    aside = np.empty(STRETCH, first.dtype)
    for row in range(value.shape[0]):
        for place in range(0, value.shape[1], STRETCH):
            values, sums = value[row, place : place + STRETCH], out[row, place : place + STRETCH]
            given = first[row, start + place : start + place + values.size]
            for i in range(values.size):
                added = wide(values[i])
                aside[i] = given[i] + (zero if added <= zero else added)
            for i in range(values.size):
                sums[i] = aside[i]


@compiled
def add_relu_of(total: Floats, value: Any, zero: Scalar) -> None:
    """Add the ReLU of a value to ``total``."""
    for i in range(total.size):
        added = wide(value[i])
        total[i] += zero if added <= zero else added


@compiled
def add_narrow(total: Floats, value: Halves) -> None:
    """Add a value to ``total``."""
    for i in range(total.size):
        total[i] += _widened(value[i])
