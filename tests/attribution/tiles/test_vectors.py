"""Sixteen numbers at once: every operation number by number as numpy and torch make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dlgenome.attribution.tiles import vectors
from dlgenome.attribution.tiles.kernels import no_pieces, zeros
from dlgenome.attribution.vectors.secants import relu_slopes
from dlgenome.attribution.vectors.numbers import LANES, load, put_by, store
from dlgenome.compiled import compiled

pytestmark = pytest.mark.usefixtures("with_tiles")
Floats = NDArray[np.float32]
ODD = np.array(
    [0, -0.0, 1, -1, np.nan, np.inf, -np.inf, 3e38, 1e-38, -2.5, 7, 0.1, 1e-5, -1e10, 2, 3], np.float32
)
OTHER = np.array([1, 0.0, 1, 2, 5, np.nan, 1, -3e38, 1e-38, -2.5, -7, 0.2, 1e-6, 1e10, np.inf, 4], np.float32)


TWO: list[tuple[str, Callable[[Floats, Floats], Floats]]] = [
    ("plus", np.add),
    ("minus", np.subtract),
    ("times", np.multiply),
    ("at_least", lambda a, b: np.where(b > a, b, a)),
    ("at_most", lambda a, b: np.where(b < a, b, a)),
]


@pytest.mark.parametrize(("name", "expected"), TWO, ids=[name for name, _ in TWO])
def test_two_vectors_make_one(name: str, expected: Callable[[Floats, Floats], Floats]) -> None:
    combine = getattr(vectors, name)

    @compiled
    def run(a: Any, b: Any, out: Any) -> None:
        store(out, 0, combine(load(a, 0), load(b, 0)))

    made = np.empty(LANES, np.float32)
    run(ODD, OTHER, made)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(made, expected(ODD, OTHER))


def test_one_vector_makes_another() -> None:
    @compiled
    def run(a: Any, sizes: Any, signs: Any, sums: Any, once: Any) -> None:
        vector = load(a, 0)
        store(sizes, 0, vectors.size_of(vector))
        store(signs, 0, vectors.negative(vector))
        store(sums, 0, vectors.times_plus(vector, vector, vector))
        store(once, 0, vectors.all_of(a[3]))

    made = np.empty((4, LANES), np.float32)
    run(ODD, *made)
    with np.errstate(all="ignore"):
        exact = ODD.astype(float) ** 2 + ODD.astype(float)
        np.testing.assert_array_equal(
            made, [np.abs(ODD), -ODD, exact.astype(np.float32), np.full(LANES, ODD[3])]
        )


def numbers_and_ties(digits: int, largest: int) -> Floats:
    """Of every size up to a power of ten, and some between two that have so many binary digits."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=1600) * 10.0 ** rng.integers(-largest, largest, 1600)).astype(np.float32)
    values[:64] = np.repeat(np.array([1, 1.5, -1, 2], np.float32), 16) * (1 + 2.0**-digits)
    return values


def test_what_is_put_short_is_the_nearest_bfloat16() -> None:
    values = np.concatenate([numbers_and_ties(8, 20), ODD, OTHER])

    @compiled
    def run(values: Any, kept: Any) -> None:
        for at in range(0, values.size, 2 * LANES):
            vectors.put_short(kept, at, load(values, at), load(values, at + LANES))

    kept = np.empty(values.size, np.uint16)
    run(values, kept)
    made, expected = torch.from_numpy(kept).view(torch.bfloat16), torch.from_numpy(values).bfloat16()
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-37, equal_nan=True)


def test_eight_digits_are_those_of_bfloat16() -> None:
    """But for ties, which go away from zero."""
    values = numbers_and_ties(8, 20)

    @compiled
    def run(values: Any, digits: Any) -> None:
        for at in range(0, values.size, LANES):
            store(digits, at, vectors.in_eight_digits(load(values, at)))

    digits = np.empty(values.size, np.float32)
    run(values, digits)
    apart = 2.0 ** (np.frexp(values.astype(float))[1] - 8)
    away = np.copysign(np.floor(np.abs(values.astype(float)) / apart + 0.5) * apart, values)
    np.testing.assert_array_equal(digits, away)
    no_numbers = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001] * 4, np.uint32).view(np.float32)
    digits = np.empty(LANES, np.float32)
    run(no_numbers, digits)
    with np.errstate(invalid="ignore"):
        assert np.isnan(no_numbers - digits).all()


def test_what_is_put_past_the_caches_is_there() -> None:
    values = np.random.default_rng(1).normal(size=640).astype(np.float32)

    @compiled
    def run(values: Any, out: Any) -> None:
        for at in range(0, values.size, 2 * LANES):
            put_by(out, at, load(values, at), load(values, at + LANES))
            vectors.fetch(out, at + 100_000)

    out = zeros(640)
    run(values, out)
    np.testing.assert_array_equal(out, values)


def test_arrays_begin_with_a_line_of_the_cache() -> None:
    for count in (2, 30, 1000, 100_000):
        for made, size in ((zeros(count), count), (no_pieces(count), count)):
            assert made.ctypes.data % 64 == 0
            assert made.size == size
            assert not made.any()


def test_secants_of_relu_are_right_to_the_last_digit() -> None:
    rng = np.random.default_rng(2)
    x = (rng.normal(size=160_000) * 10.0 ** rng.integers(-30, 30, 160_000)).astype(np.float32)
    r = np.where(
        rng.random(x.size) < 0.5, (x * rng.normal(size=x.size)).astype(np.float32), rng.permutation(x)
    )
    x[:1000], r[500:1500] = 0, 0
    r[2000:2500] = x[2000:2500]

    @compiled
    def run(x: Any, r: Any, out: Any) -> None:
        for at in range(0, x.size, LANES):
            store(out, at, relu_slopes(load(x, at), load(r, at)))

    made = np.empty(x.size, np.float32)
    run(x, r, made)
    wide_x, wide_r = x.astype(float), r.astype(float)
    gap = np.where(wide_x == wide_r, 1, wide_x - wide_r)
    exact = np.where(wide_x == wide_r, wide_x > 0, (np.maximum(wide_x, 0) - np.maximum(wide_r, 0)) / gap)
    whole = (exact == 0) | (exact == 1)
    np.testing.assert_array_equal(made[whole], exact[whole])
    np.testing.assert_allclose(made, exact, rtol=2e-7, atol=1e-38)


def test_a_secant_of_what_is_not_a_number_is_none() -> None:
    @compiled
    def run(x: Any, r: Any, out: Any) -> None:
        store(out, 0, relu_slopes(load(x, 0), load(r, 0)))

    made, nothing = np.empty(LANES, np.float32), np.full(LANES, np.nan, np.float32)
    for x, r in ((nothing, OTHER), (OTHER, nothing)):
        run(x, r, made)
        assert np.isnan(made).all()
