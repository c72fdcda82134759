"""Combinations for four outputs in whole numbers, against the scheme in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dlgenome.attribution.minimal_filtering import FOUR_OF_THREE
from dlgenome.attribution.vectors.numbers import store
from dlgenome.attribution.vectors.short_tiles import LOOKS, combine, four_outputs
from dlgenome.attribution.vectors.tower_tiles import TILES
from dlgenome.compiled import compiled

pytestmark = pytest.mark.usefixtures("with_narrow_vectors")
CHANNELS, COUNT = 64, 19
SIZES = [1e-36, 1e-30, 1e-20, 1e-12, 1e-6, 1.0, 1e6, 1e12, 1e20, 1e30]


def combined(rows: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows (tiles, places, channels): whole numbers (products, tiles, channels), and their steps."""
    looks = (np.arange(COUNT * LOOKS) * CHANNELS).astype(np.int64)
    out, steps = np.zeros(LOOKS * TILES * CHANNELS, np.int16), np.zeros(LOOKS * TILES, np.float32)
    units = np.ones(TILES, np.float32)
    combine(rows.astype(np.float32).ravel(), looks, COUNT, TILES, CHANNELS, scales, 0, out, steps, units)
    whole = out.reshape(LOOKS, TILES, CHANNELS)[:, :COUNT].astype(float)
    return whole, steps.reshape(LOOKS, TILES)[:, :COUNT].astype(float)


def exact(rows: np.ndarray, scales: np.ndarray) -> Any:
    seen = rows.astype(np.float32).astype(float) * scales
    return np.einsum("pl,tlc->ptc", FOUR_OF_THREE.of_inputs, seen)


def rows_of(kind: str) -> Any:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(COUNT, LOOKS, CHANNELS))
    if kind == "alike":
        rows[:] = rows[:, :1]
    if kind == "at the edge":
        rows[:, :-1] = 0
    if kind == "one channel":
        rows[:, :, 1:] = 0
    if kind == "one combination vanishes":
        rows[:, 0] = -rows[:, 4] - FOUR_OF_THREE.of_inputs[0, 2] * rows[:, 2]
    return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["any", "alike", "at the edge", "one channel", "one combination vanishes"])
def test_they_are_multiples_of_steps_as_near_as_the_longest_of_a_tile_allows(kind: str, size: float) -> None:
    rows, scales = size * rows_of(kind), np.linspace(0.1, 1, CHANNELS).astype(np.float32)
    whole, steps = combined(rows, scales)
    expected = exact(rows, scales)
    assert np.linalg.norm(whole, axis=2).max() < 2**15
    error = np.linalg.norm(whole * steps[:, :, None] - expected, axis=2)
    own, longest = np.linalg.norm(expected, axis=2), np.linalg.norm(expected, axis=2).max(0)
    # half a step of each channel, and what float32 rounds in what is combined
    assert (error <= 3e-4 * own + 1e-6 * longest + 1e-33).all()


def test_tiles_of_zeros_are_zeros() -> None:
    whole, steps = combined(np.zeros((COUNT, LOOKS, CHANNELS)), np.ones(CHANNELS, np.float32))
    assert not whole.any()
    assert np.isfinite(1 / steps).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_vanish_and_stays_in_its_tile(bad: float) -> None:
    rows, scales = rows_of("any"), np.ones(CHANNELS, np.float32)
    expected, steps = combined(rows, scales)
    rows[4, 2, 17] = bad
    whole, bad_steps = combined(rows, scales)
    others = np.arange(COUNT) != 4
    assert np.array_equal(whole[:, others], expected[:, others])
    assert np.array_equal(bad_steps[:, others], steps[:, others])
    assert not np.isfinite(bad_steps[:, 4]).all()


def test_outputs_are_the_sums_of_the_scheme() -> None:
    products = np.random.default_rng(4).normal(size=(LOOKS, 3, 16)).astype(np.float32)
    made = _outputs(products.ravel(), 16, 48)
    expected = FOUR_OF_THREE.of_products @ products[:, 1].astype(float)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@compiled
def _outputs(products: Any, at: int, apart: int) -> Any:
    from_tile, made = four_outputs(products, at, apart), np.empty((4, 16), np.float32)
    flat = made.ravel()
    store(flat, 0, from_tile[0])
    store(flat, 16, from_tile[1])
    store(flat, 32, from_tile[2])
    store(flat, 48, from_tile[3])
    return made
