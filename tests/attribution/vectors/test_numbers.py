"""Sixteen numbers at once: every operation number by number as numpy and torch make it.

What is compiled here is not kept on disk: it would stay as it is when the operations change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit, types
from numpy.typing import NDArray

from dlgenome.attribution.vectors import numbers
from dlgenome.attribution.vectors.numbers import (
    LANES,
    in_llvm,
    load,
    number_everywhere,
    place_in,
    put_by,
    put_vector,
    store,
    zeros,
)
from dlgenome.attribution.vectors.processor import compiles_for

pytestmark = pytest.mark.usefixtures("with_vectors")
with_bfloat16 = pytest.mark.skipif(
    not compiles_for("+avx512f", "+avx512bw", "+avx512bf16"),
    reason="the processor has no vectors of bfloat16",
)
Floats = NDArray[np.float32]
ODD = np.array(
    [0, -0.0, 1, -1, np.nan, np.inf, -np.inf, 3e38, 1e-38, -2.5, 7, 0.1, 1e-5, -1e10, 2, 3], np.float32
)
OTHER = np.array([1, 0.0, 1, 2, 5, np.nan, 1, -3e38, 1e-38, -2.5, -7, 0.2, 1e-6, 1e10, np.inf, 4], np.float32)


TWO: list[tuple[str, Callable[[Floats, Floats], Floats]]] = [
    ("plus", np.add),
    ("minus", np.subtract),
    ("times", np.multiply),
    ("over", np.divide),
    ("at_least", lambda a, b: np.where(b > a, b, a)),
    ("at_most", lambda a, b: np.where(b < a, b, a)),
]


@pytest.mark.parametrize(("name", "expected"), TWO, ids=[name for name, _ in TWO])
def test_two_vectors_make_one(name: str, expected: Callable[[Floats, Floats], Floats]) -> None:
    combine = getattr(numbers, name)

    @njit
    def run(a: Any, b: Any, out: Any) -> None:
        store(out, 0, combine(load(a, 0), load(b, 0)))

    made = np.empty(LANES, np.float32)
    run(ODD, OTHER, made)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(made, expected(ODD, OTHER))


def test_one_vector_makes_another() -> None:
    @njit
    def run(a: Any, sizes: Any, signs: Any, sums: Any, once: Any) -> None:
        vector = load(a, 0)
        store(sizes, 0, numbers.size_of(vector))
        store(signs, 0, numbers.negative(vector))
        store(sums, 0, numbers.times_plus(vector, vector, vector))
        store(once, 0, numbers.all_of(a[3]))

    made = np.empty((4, LANES), np.float32)
    run(ODD, *made)
    with np.errstate(all="ignore"):
        exact = ODD.astype(float) ** 2 + ODD.astype(float)
        np.testing.assert_array_equal(
            made, [np.abs(ODD), -ODD, exact.astype(np.float32), np.full(LANES, ODD[3])]
        )


def mapped(function: Any, values: Any) -> Any:
    """What a function of one vector makes of values, vector by vector."""

    @njit
    def run(values: Any, out: Any) -> None:
        for at in range(0, values.size, LANES):
            store(out, at, function(load(values, at)))

    made = np.empty(values.size, np.float32)
    run(values, made)
    return made


def test_reciprocals_are_right_to_fourteen_digits() -> None:
    values = numbers_and_ties(8, 30)
    made = mapped(numbers.about_one_over, values)
    np.testing.assert_allclose(made, 1 / values.astype(float), rtol=2.0**-14)


def test_numbers_are_taken_and_put_at_any_place() -> None:
    """No vector need begin with a line of the cache, or with one of sixteen numbers."""

    @njit
    def run(values: Any, at: Any, out: Any, to: Any) -> None:
        store(out, to, load(values, at))

    values = np.arange(100, dtype=np.float32)
    for at, to in ((0, 0), (1, 0), (84, 83), (37, 5)):
        made = np.full(100, -1, np.float32)
        run(values, at, made, to)
        expected = np.full(100, -1, np.float32)
        expected[to : to + LANES] = values[at : at + LANES]
        np.testing.assert_array_equal(made, expected)


@in_llvm
def _everywhere(typing: Any, array: Any, place: Any, out: Any) -> Any:
    """Put a number of an array, or a pair of numbers, sixteen times into another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = place_in(context, builder, signature.args[0], *arguments[:2])
        made = number_everywhere(builder, pointer)
        to = place_in(context, builder, signature.args[2], arguments[2], arguments[1])
        put_vector(builder, to, made)
        return context.get_dummy_value()

    return types.void(array, place, out), generate


@pytest.mark.parametrize("kind", [np.float32, np.uint32])
def test_a_number_or_a_pair_is_put_everywhere(kind: type[Any]) -> None:
    """Bit by bit, whatever number the bits of a pair would be."""

    @njit
    def run(values: Any, place: Any, out: Any) -> None:
        _everywhere(values, place, out)

    bits = np.array([0, 0x3F800000, 0x7F800001, 0xFFFFFFFF, 0x00010000, 0x00000001, 0x7FC00000], np.uint32)
    values = bits.view(kind)
    for place, one in enumerate(bits):
        made = np.zeros(40, kind)
        run(values, place, made)
        expected = np.zeros(40, np.uint32)
        expected[place : place + LANES] = one
        np.testing.assert_array_equal(made.view(np.uint32), expected)


def numbers_and_ties(digits: int, largest: int) -> Floats:
    """Of every size up to a power of ten, and some between two that have so many binary digits."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=1600) * 10.0 ** rng.integers(-largest, largest, 1600)).astype(np.float32)
    values[:64] = np.repeat(np.array([1, 1.5, -1, 2], np.float32), 16) * (1 + 2.0**-digits)
    return values


@with_bfloat16
def test_what_is_put_short_is_the_nearest_bfloat16() -> None:
    values = np.concatenate([numbers_and_ties(8, 20), ODD, OTHER])

    @njit
    def run(values: Any, kept: Any) -> None:
        for at in range(0, values.size, 2 * LANES):
            numbers.put_short(kept, at, load(values, at), load(values, at + LANES))

    kept = np.empty(values.size, np.uint16)
    run(values, kept)
    made, expected = torch.from_numpy(kept).view(torch.bfloat16), torch.from_numpy(values).bfloat16()
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-37, equal_nan=True)


@njit
def _put_all(values: Any, first: Any, kept: Any) -> None:
    """Put vectors two by two, from a place on."""
    for at in range(0, values.size, 2 * LANES):
        numbers.put_short(kept, first + at, load(values, at), load(values, at + LANES))


@with_bfloat16
@pytest.mark.parametrize("first", [0, 2, 32, 70])
def test_two_vectors_are_put_among_pairs_as_the_nearest_bfloat16(first: int) -> None:
    """The first of two neighbours is the lower half: in memory they follow one another."""
    values = np.concatenate([numbers_and_ties(8, 20), ODD, OTHER])
    kept = np.full((values.size + 100) // 2, 0xABCDABCD, np.uint32)
    _put_all(values, first, kept.view(np.uint16))
    halves = np.stack([kept & 0xFFFF, kept >> 16], 1).astype(np.uint16).ravel()
    made = torch.from_numpy(halves[first : first + values.size]).view(torch.bfloat16)
    expected = torch.from_numpy(values).bfloat16()
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-37, equal_nan=True)
    assert (np.delete(halves, slice(first, first + values.size)) == 0xABCD).all()


def test_eight_digits_are_those_of_bfloat16() -> None:
    """But for ties, which go away from zero."""
    values = numbers_and_ties(8, 20)
    digits = mapped(numbers.in_eight_digits, values)
    apart = 2.0 ** (np.frexp(values.astype(float))[1] - 8)
    away = np.copysign(np.floor(np.abs(values.astype(float)) / apart + 0.5) * apart, values)
    np.testing.assert_array_equal(digits, away)
    no_numbers = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001] * 4, np.uint32).view(np.float32)
    digits = mapped(numbers.in_eight_digits, no_numbers)
    with np.errstate(invalid="ignore"):
        assert np.isnan(no_numbers - digits).all()


def test_what_is_put_past_the_caches_is_there() -> None:
    values = np.random.default_rng(1).normal(size=640).astype(np.float32)

    @njit
    def run(values: Any, out: Any) -> None:
        for at in range(0, values.size, 2 * LANES):
            put_by(out, at, load(values, at), load(values, at + LANES))
            numbers.fetch(out, at + 100_000)

    out = zeros(640)
    run(values, out)
    np.testing.assert_array_equal(out, values)


def test_zeros_begin_with_a_line_of_the_cache() -> None:
    for count in (1, 2, 30, 1000, 100_000, *range(17, 60)):
        made = zeros(count)
        assert made.ctypes.data % 64 == 0
        assert made.size == count
        assert made.dtype == np.float32
        assert not made.any()
