"""Shuffles walked side by side are those that a plain program draws one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlgenome.references import stretches, walks
from dlgenome.references.random_numbers import random_64, random_below
from dlgenome.references.shuffled import shuffle_sequences

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def numbers(seed: int, sequence: list[int], reference: int) -> Iterator[int]:
    digest = int.from_bytes(hashlib.blake2b(bytes(sequence), digest_size=8).digest(), "little")
    state = mixed((seed + GAMMA) & MASK)
    for part in (digest, reference):
        state = mixed(((state ^ part) + GAMMA) & MASK)
    while True:
        state = (state + GAMMA) & MASK
        yield mixed(state)


def below(bound: int, random: Iterator[int]) -> int:
    return next(p >> 32 for p in ((bits >> 32) * bound for bits in random) if p % 2**32 >= 2**32 % bound)


def leads_to(end: int, parents: dict[int, int]) -> bool:
    for base in parents:
        for _ in range(4):
            base = parents.get(base, base)
        if base != end:
            return False
    return True


def last_edges(bases: list[int], edges: list[list[int]], random: Iterator[int]) -> dict[int, int]:
    others = [base for base in range(4) if base != bases[-1]]
    maps, weights = [], []
    for choice in product(range(4), repeat=3):
        named = dict(zip(others, reversed(choice), strict=True))
        parents = {base: parent for base, parent in named.items() if any(edges[base])}
        if leads_to(bases[-1], parents) and not any(named[base] for base in named if base not in parents):
            maps.append(parents)
            weights.append(int(np.prod([edges[base][parent] for base, parent in parents.items()])))
    total = sum(weights)
    pick = next(bits for bits in random if bits >= 2**64 % total) % total
    for parents, weight in zip(maps, weights, strict=True):
        if pick < weight:
            return parents
        pick -= weight
    raise AssertionError("the weights do not sum to their total")


def plain_walk(bases: list[int], random: Iterator[int]) -> list[int]:
    edges = [[0] * 4 for _ in range(4)]
    for one, other in pairwise(bases):
        edges[one][other] += 1
    parents = last_edges(bases, edges, random)
    bags = [[after for after in range(4) for _ in range(edges[base][after])] for base in range(4)]
    for base, parent in parents.items():
        bags[base].remove(parent)
    walk = [bases[0]]
    while len(walk) < len(bases):
        bag = bags[walk[-1]]
        walk.append(bag.pop(below(len(bag), random)) if bag else parents[walk[-1]])
    return walk


def plain_shuffle(sequence: list[int], seed: int, reference: int) -> list[int]:
    random, shuffled, stretch = numbers(seed, sequence, reference), list[int](), list[int]()
    for code in [*sequence, 4]:
        if code < 4:
            stretch.append(code)
            continue
        shuffled += [*(plain_walk(stretch, random) if stretch else []), 4]
        stretch = []
    return shuffled[:-1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40).flatmap(
        lambda length: st.lists(
            st.lists(st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 4]), min_size=length, max_size=length),
            max_size=5,
        )
    ),
    st.integers(0, 24),
    st.integers(0, MASK),
    st.integers(0, 3),
)
def test_walks_side_by_side_are_those_of_a_plain_program(
    sequences: list[list[int]], n_references: int, seed: int, first: int
) -> None:
    codes = np.array(sequences, np.uint8).reshape(len(sequences), len(sequences[0]) if sequences else 9)
    shuffled = shuffle_sequences(codes, n_references, seed, dinucleotides=True, first=first)
    for sequence, references in zip(sequences, shuffled.tolist(), strict=True):
        assert references == [plain_shuffle(sequence, seed, first + k) for k in range(n_references)]


def test_a_long_sequence_too() -> None:
    sequence = np.random.default_rng(0).choice(5, 500, p=[0.4, 0.3, 0.2, 0.095, 0.005]).tolist()
    assert sequence.count(4) > 0
    codes = np.array([sequence], np.uint8)
    assert shuffle_sequences(codes, 1, 5, dinucleotides=True)[0, 0].tolist() == plain_shuffle(sequence, 5, 0)


def test_a_draw_that_would_be_biased_is_made_again() -> None:
    """So rarely that no run of tests would come across it: edges in such numbers are only made up here."""
    degree = 3 << 30
    table = np.zeros(walks.TABLE, np.uint32)
    table[walks.DEGREE : walks.DEGREE + walks.LANES] = degree
    states = np.arange(walks.LANES, dtype=np.uint64)
    exact = [random_below(np.uint64(degree), state) for state in states]
    rejected = [following != random_64(state)[1] for (_, following), state in zip(exact, states, strict=True)]
    assert any(rejected)
    assert walks.draw_picks(states, table)
    walks.draw_again(states, np.zeros((walks.LANES, 4), np.int64), table)
    assert table[walks.PICK :].tolist() == [int(pick) for pick, _ in exact]
    assert states.tolist() == [int(following) for _, following in exact]


@pytest.mark.parametrize("dinucleotides", [True, False])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(dinucleotides: bool, threads: int) -> None:
    codes = np.random.default_rng(1).integers(0, 5, (5, 50)).astype(np.uint8)
    alone = shuffle_sequences(codes, 7, 3, dinucleotides=dinucleotides)
    beside = shuffle_sequences(codes, 7, 3, dinucleotides=dinucleotides, threads=threads)
    assert np.array_equal(alone, beside)


def test_shuffles_run_without_the_interpreter_lock() -> None:
    for function in (walks.shuffle_dinucleotides, stretches.shuffle_all_bases):
        assert function.targetoptions["nogil"]  # type: ignore[attr-defined]
