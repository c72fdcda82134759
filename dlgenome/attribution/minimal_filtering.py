"""Schemes of minimal filtering (Winograd 1980; Lavin and Gray 2015), by which convolutions multiply less.

Some outputs of a kernel of a few weights are, with what they look at, a product of two polynomials. Evaluated
at as many points as the product has coefficients, it takes one multiplication at each: combinations of the
inputs, times combinations of the weights that are made once, combined to the outputs. With channels each is a
product of matrices. The last point is infinity, where only the last weight counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Scheme:
    """Factors of the combinations."""

    of_inputs: Numbers
    """(points, inputs)."""
    of_weights: Numbers
    """(points, weights)."""
    of_products: Numbers
    """(outputs, points)."""

    @property
    def n_outputs(self) -> int:
        return len(self.of_products)

    @property
    def n_weights(self) -> int:
        return int(self.of_weights.shape[1])

    @property
    def n_points(self) -> int:
        return len(self.of_inputs)

    def n_tiles(self, size: int, dilation: int) -> int:
        """Tiles that hold ``size`` outputs; some of the last look at fewer than all that a tile has."""
        whole, rest = divmod(size, self.n_outputs * dilation)
        return whole * dilation + min(rest, dilation)

    def n_beyond(self, width: int, dilation: int) -> int:
        """Tiles after the last that wider kernels look at."""
        return (-(-width // self.n_weights) - 1) * dilation


TWO_OF_THREE = Scheme(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
    np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
    np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
)
"""Two outputs of three weights, at 0, 1, -1 and infinity: rounds as a sum of all products does."""
_NEAR, _FAR = 2 / 3, 3 / 2
FOUR_OF_THREE = Scheme(
    np.array(
        [
            [1, 0, -(_NEAR**2) - _FAR**2, 0, 1, 0],
            [0, -_FAR, -(_FAR**2), _NEAR, 1, 0],
            [0, _FAR, -(_FAR**2), -_NEAR, 1, 0],
            [0, -_NEAR, -(_NEAR**2), _FAR, 1, 0],
            [0, _NEAR, -(_NEAR**2), -_FAR, 1, 0],
            [0, 1, 0, -(_NEAR**2) - _FAR**2, 0, 1],
        ]
    ),
    np.array(
        [
            [1, 0, 0],
            [-81 / 130, -54 / 130, -36 / 130],
            [-81 / 130, 54 / 130, -36 / 130],
            [16 / 130, 24 / 130, 36 / 130],
            [16 / 130, -24 / 130, 36 / 130],
            [0, 0, 1],
        ]
    ),
    np.array(
        [
            [1, 1, 1, 1, 1, 0],
            [0, _NEAR, -_NEAR, _FAR, -_FAR, 0],
            [0, _NEAR**2, _NEAR**2, _FAR**2, _FAR**2, 0],
            [0, _NEAR**3, -(_NEAR**3), _FAR**3, -(_FAR**3), 1],
        ]
    ),
)
"""Four outputs of three weights, at 0, 2/3, -2/3, 3/2, -3/2 and infinity: two points that are each other's
reciprocal round least of those that were tried, and save products with 1."""
FOUR_OF_FOUR = Scheme(
    np.array(
        [
            [2, -1, -10, 5, 8, -4, 0],
            [0, -2, -1, 9, 4, -4, 0],
            [0, 2, -3, -7, 12, -4, 0],
            [0, 2, 3, -4, -3, 2, 0],
            [0, -2, 5, 0, -5, 2, 0],
            [0, 1, 0, -5, 0, 4, 0],
            [0, -2, 1, 10, -5, -8, 4],
        ],
        float,
    ),
    np.array(
        [
            [1 / 2, 0, 0, 0],
            [1 / 6, 1 / 6, 1 / 6, 1 / 6],
            [1 / 18, -1 / 18, 1 / 18, -1 / 18],
            [8 / 9, 4 / 9, 2 / 9, 1 / 9],
            [8 / 15, -4 / 15, 2 / 15, -1 / 15],
            [1 / 90, 1 / 45, 2 / 45, 4 / 45],
            [0, 0, 0, 1 / 4],
        ]
    ),
    np.array(
        [
            [1, 1, 1, 1, 1, 1, 0],
            [0, 1, -1, 1 / 2, -1 / 2, 2, 0],
            [0, 1, 1, 1 / 4, 1 / 4, 4, 0],
            [0, 1, -1, 1 / 8, -1 / 8, 8, 1],
        ]
    ),
)
"""Four outputs of four weights, at 0, 1, -1, 1/2, -1/2, 2 and infinity, which round least of those tried."""
