"""Secants of ReLU, sixteen at once, against numpy's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from dlgenome.attribution.vectors.numbers import LANES, load, store
from dlgenome.attribution.vectors.secants import relu_slopes, times_slopes

pytestmark = pytest.mark.usefixtures("with_vectors")
Floats = NDArray[np.float32]


@njit
def slopes(x: Any, r: Any, out: Any) -> None:
    for at in range(0, x.size, LANES):
        store(out, at, relu_slopes(load(x, at), load(r, at)))


def drawn(count: int) -> tuple[Floats, Floats]:
    """Of every size, some of them zero, or equal."""
    rng = np.random.default_rng(2)
    x = (rng.normal(size=count) * 10.0 ** rng.integers(-30, 30, count)).astype(np.float32)
    r = np.where(
        rng.random(x.size) < 0.5, (x * rng.normal(size=x.size)).astype(np.float32), rng.permutation(x)
    )
    x[: count // 160], r[count // 320 : 3 * count // 320] = 0, 0
    r[count // 80 : count // 64] = x[count // 80 : count // 64]
    return x, r


def exact_slopes(x: Floats, r: Floats) -> NDArray[np.float64]:
    """Of what is equal those on its right."""
    wide_x, wide_r = x.astype(float), r.astype(float)
    gap = np.where(wide_x == wide_r, 1, wide_x - wide_r)
    return np.where(wide_x == wide_r, wide_x > 0, (np.maximum(wide_x, 0) - np.maximum(wide_r, 0)) / gap)


def test_they_are_right_to_the_last_digit() -> None:
    x, r = drawn(160_000)
    made, exact = np.empty(x.size, np.float32), exact_slopes(x, r)
    slopes(x, r, made)
    whole = (exact == 0) | (exact == 1)
    np.testing.assert_array_equal(made[whole], exact[whole])
    np.testing.assert_allclose(made, exact, rtol=2e-7, atol=1e-38)


def test_a_secant_of_what_is_not_a_number_is_none() -> None:
    made, nothing = np.empty(LANES, np.float32), np.full(LANES, np.nan, np.float32)
    others = np.array([1, 0, -1, 2, 5, np.nan, 1, -3e38, 1e-38, -2.5, -7, 0.2, 1e-6, 1e10, np.inf, 4])
    for x, r in ((nothing, others), (others, nothing)):
        slopes(x.astype(np.float32), r.astype(np.float32), made)
        assert np.isnan(made).all()


def test_multipliers_are_taken_times_them() -> None:
    x, r = drawn(1600)
    before = np.random.default_rng(3).normal(size=x.size).astype(np.float32)
    made = before.copy()
    times_slopes(x, r, made)
    np.testing.assert_allclose(made, before * exact_slopes(x, r), rtol=4e-7, atol=1e-37)
