"""Choices among sixteen numbers at once, number by number as numpy makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from dlgenome.attribution.vectors import choices
from dlgenome.attribution.vectors.choices import chosen, either, first_of, load_some, store_some
from dlgenome.attribution.vectors.numbers import LANES, load, store

pytestmark = pytest.mark.usefixtures("with_vectors")
Floats = NDArray[np.float32]
A = np.array([0, -0.0, 1, -1, np.nan, np.inf, -np.inf, 3e38, 2, -2, 7, 0.1, np.nan, -1e10, 2, 3], np.float32)
B = np.array([1, 0.0, 1, -2, 5, np.nan, 1, -3e38, 3, -3, 7, 0.2, np.nan, 1e10, np.inf, 4], np.float32)


COMPARED: list[tuple[str, Callable[[Floats, Floats], Any]]] = [
    ("is_larger", np.greater),
    ("is_equal", np.equal),
    ("is_larger_or_none", lambda a, b: ~(a <= b)),
    ("is_no_number", lambda a, b: np.isnan(a) | np.isnan(b)),
]


@pytest.mark.parametrize(("name", "expected"), COMPARED, ids=[name for name, _ in COMPARED])
def test_vectors_are_compared_number_by_number(name: str, expected: Callable[[Floats, Floats], Any]) -> None:
    compare = getattr(choices, name)

    @njit
    def run(a: Any, b: Any, out: Any) -> None:
        first, second = load(a, 0), load(b, 0)
        store(out, 0, chosen(compare(first, second), first, second))

    made = np.empty(LANES, np.float32)
    run(A, B, made)
    np.testing.assert_array_equal(made, np.where(expected(A, B), A, B))


def test_either_of_two_things_may_be_true() -> None:
    @njit
    def run(a: Any, b: Any, out: Any) -> None:
        first, second = load(a, 0), load(b, 0)
        truths = either(choices.is_larger(first, second), choices.is_equal(first, second))
        store(out, 0, chosen(truths, first, second))

    made = np.empty(LANES, np.float32)
    run(A, B, made)
    np.testing.assert_array_equal(made, np.where(A >= B, A, B))


@njit
def copy_some(values: Any, at: Any, count: Any, out: Any, to: Any) -> None:
    which = first_of(count)
    store_some(out, to, which, load_some(values, at, which))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("count", [0, 1, 7, 15, 16, 40])
def test_only_the_first_numbers_are_read_and_written(count: int, kind: type[Any]) -> None:
    """Those of the last vector of a row, of which not all are there."""
    values = np.arange(100, 200).astype(kind)
    for at, to in ((0, 0), (3, 5), (80, 81)):
        made = np.full(100, -1, kind)
        copy_some(values, at, count, made, to)
        expected, some = np.full(100, -1, kind), min(count, LANES)
        expected[to : to + some] = values[at : at + some]
        np.testing.assert_array_equal(made, expected)


def test_what_is_not_read_is_zero() -> None:
    @njit
    def run(values: Any, count: Any, out: Any) -> None:
        store(out, 0, load_some(values, 0, first_of(count)))

    made = np.empty(LANES, np.float32)
    run(np.full(LANES, 5, np.float32), 9, made)
    assert made.tolist() == [5] * 9 + [0] * 7
