"""Secants of ReLU, sixteen at once, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    about_one_over,
    all_of,
    at_least,
    at_most,
    fetch,
    load,
    minus,
    negative,
    size_of,
    store,
    times,
    times_plus,
)
from dlgenome.compiled import compiled

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_LEAST = np.finfo(np.float32).tiny
AHEAD = 1024
"""Numbers: what comes from far away has to be asked for so early."""


@compiled
def relu_slopes(x: Any, r: Any) -> Any:
    """Secants of ReLU, by a reciprocal and one step of Newton's method, right but for the last digit.

    A quotient above 2 need not be right: it is on one piece of ReLU, where the secant is 1.
    """
    high, width = at_least(at_least(x, r), all_of(_ZERO)), at_least(size_of(minus(x, r)), all_of(_LEAST))
    inverse = about_one_over(width)
    slope = at_most(times(high, inverse), all_of(_TWO))
    left = times_plus(negative(width), slope, high)
    return at_most(times_plus(inverse, left, slope), all_of(_ONE))


@compiled
def times_slopes(x: Numbers, r: Numbers, m: Numbers) -> None:
    """Multipliers of what a ReLU reads in the place of those of what it makes."""
    for at in range(0, m.size, LANES):
        fetch(r, at + AHEAD)
        store(m, at, times(load(m, at), relu_slopes(load(x, at), load(r, at))))
