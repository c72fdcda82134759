"""The secant of ReLU, compiled, and the types of what compiled passes work on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled

Scalar = np.floating[Any]
Floats = NDArray[Scalar]


@compiled
def relu_slope(a: Scalar, b: Scalar, least: Scalar, one: Scalar, zero: Scalar) -> Scalar:
    """Secant of ReLU between a and b; numbers are in the precision of the values."""
    high = a if a > b else b
    width = abs(a - b)
    width = width if width > least else least
    slope = high / width
    slope = slope if slope < one else one
    return slope if slope > zero else zero
