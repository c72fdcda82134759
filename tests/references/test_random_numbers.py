from __future__ import annotations

from collections.abc import Callable, Iterator

import numba.core.caching
import numpy as np
import pytest

from dlgenome.compiled import compiled
from dlgenome.references import random_numbers

MASK = 2**64 - 1
PUBLISHED_SPLITMIX64 = [  # the first outputs for the seed 1234567
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def plain_splitmix64(state: int) -> Iterator[int]:
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        value = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        yield value ^ (value >> 31)


def test_generator_gives_the_published_splitmix64_numbers() -> None:
    state = np.uint64(1234567)
    numbers = []
    for _ in range(5):
        number, following = random_numbers.random_64(state)
        numbers.append(int(number))
        state = np.uint64(following)
    assert numbers == PUBLISHED_SPLITMIX64
    plain = plain_splitmix64(1234567)
    assert numbers == [next(plain) for _ in range(5)]


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 1000, 3 << 30, 2**32 - 1])
def test_bounded_number_is_the_high_half_product_of_the_first_number_that_is_not_rejected(bound: int) -> None:
    for start in range(200):
        number, _ = random_numbers.random_below(np.uint64(bound), np.uint64(start))
        products = ((bits >> 32) * bound for bits in plain_splitmix64(start))
        accepted = next(product for product in products if product % 2**32 >= 2**32 % bound)
        assert number == accepted >> 32


def test_bounded_numbers_are_uniform_where_multiplying_alone_would_not_be(
    standard_deviations_from_uniform: Callable[..., float],
) -> None:
    bound = np.uint64(3 << 30)
    draws = [int(random_numbers.random_below(bound, np.uint64(state))[0]) % 3 for state in range(6000)]
    assert standard_deviations_from_uniform(draws, range(3)) < 5
    unguarded = [((next(plain_splitmix64(state)) >> 32) * (3 << 30) >> 32) % 3 for state in range(6000)]
    assert standard_deviations_from_uniform(unguarded, range(3)) > 100


@pytest.mark.parametrize("bound", [1, 5, 3 << 62])
def test_bounded_64_bit_numbers_are_uniform(
    bound: int, standard_deviations_from_uniform: Callable[..., float]
) -> None:
    draws = [
        int(random_numbers.random_below_64(np.uint64(bound), np.uint64(state))[0]) for state in range(6000)
    ]
    assert all(0 <= draw < bound for draw in draws)
    if bound > 1:
        parts = [draw * min(bound, 3) // bound for draw in draws] if bound > 5 else draws
        assert standard_deviations_from_uniform(parts, range(min(bound, 5) if bound <= 5 else 3)) < 5


def test_streams_of_neighbouring_seeds_sequences_and_references_all_differ() -> None:
    starts = {
        int(random_numbers.stream_state(np.uint64(seed), np.uint64(digest), np.uint64(reference)))
        for seed in range(8)
        for digest in range(8)
        for reference in range(8)
    }
    assert len(starts) == 8**3


def test_function_is_compiled_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    caching = numba.core.caching
    implementation = getattr(caching, "CacheImpl", None) or getattr(caching, "_CacheImpl")  # noqa: B009 - old numba
    monkeypatch.setattr(implementation, "_locator_classes", [])

    @compiled
    def double(value: int) -> int:
        return 2 * value

    assert double(21) == 42
