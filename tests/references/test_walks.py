"""Shuffles walked side by side are those that a plain program draws one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlgenome.references import shuffled, stretches, walks
from dlgenome.references.long_walks import shuffle_long_dinucleotides
from dlgenome.references.random_numbers import random_64, random_below
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome.references.side_by_side import shuffle_dinucleotides
from dlgenome.types import Codes

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


@pytest.mark.parametrize("n_references", [1, 20])
def test_a_long_sequence_too(n_references: int) -> None:
    sequence = np.random.default_rng(0).choice(5, 500, p=[0.4, 0.3, 0.2, 0.095, 0.005]).tolist()
    assert sequence.count(4) > 0
    references = shuffle_sequences(np.array([sequence], np.uint8), n_references, 5, dinucleotides=True)[0]
    assert references.tolist() == [plain_shuffle(sequence, 5, k) for k in range(n_references)]


def shuffled_with(shuffle: Callable[..., None], codes: Codes, n_references: int) -> Codes:
    digests = np.arange(len(codes), dtype=np.uint64)
    references = np.full((len(codes), n_references, codes.shape[1]), 9, np.uint8)
    shuffle(codes, digests, np.uint64(7), references, np.uint64(1))
    return references


@pytest.mark.parametrize("length", [300, walks.LONGEST_PACKED])
@pytest.mark.parametrize("n_references", [1, 7, 11])
def test_walks_in_turns_are_those_side_by_side(length: int, n_references: int) -> None:
    codes = np.random.default_rng(2).choice(5, (2, length), p=[0.6, 0.1, 0.2, 0.098, 0.002]).astype(np.uint8)
    codes[1, codes[1] == 4] = 0
    beside = shuffled_with(shuffle_dinucleotides, codes, n_references)
    assert np.array_equal(beside, shuffled_with(shuffle_long_dinucleotides, codes, n_references))


def test_the_longest_run_of_one_base_can_be_counted_side_by_side() -> None:
    codes = np.stack([np.full(walks.LONGEST_PACKED, base, np.uint8) for base in range(4)])
    references = shuffled_with(shuffle_dinucleotides, codes, 3)
    assert np.array_equal(references, np.repeat(codes[:, np.newaxis], 3, axis=1))


@pytest.mark.parametrize("excess", [0, 1])
def test_longer_sequences_are_walked_in_turns(excess: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = list[str]()
    for name in ("shuffle_dinucleotides", "shuffle_long_dinucleotides"):
        monkeypatch.setattr(shuffled, name, lambda *_, name=name: used.append(name))
    for sequences in (3, 4):
        codes = np.zeros((sequences, walks.LONGEST_PACKED + excess), np.uint8)
        shuffle_sequences(codes, 2, 0, dinucleotides=True)
    longer = "shuffle_long_dinucleotides"
    assert used == [longer, longer if excess else "shuffle_dinucleotides"]


def unmixed(number: int) -> int:
    """The state after which ``number`` is drawn."""
    for shift, multiplier in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        number = number ^ (number >> shift) ^ (number >> 2 * shift)
        number = number * pow(multiplier, -1, 2**64) & MASK
    return (number - GAMMA) & MASK


def test_a_draw_that_would_be_biased_is_made_again() -> None:
    """So rarely that no run of tests would come across it: numbers so low are only made up here."""
    edges = np.zeros((4, 4), np.uint64)
    edges[2] = 10000, 1, 12000, 8000
    degree = np.uint64(edges.sum())
    states = np.array([unmixed(lane << 32) for lane in range(walks.LANES)], np.uint64)
    exact = [random_below(degree, state) for state in states]
    again = [following != random_64(state)[1] for (_, following), state in zip(exact, states, strict=True)]
    assert any(again)
    assert not all(again)
    parents, table = np.full((walks.LANES, 4), -1), np.zeros(walks.TABLE, np.uint64)
    for lane in range(walks.LANES):
        walks.begin_walk(edges, parents[lane], 2, table, lane)
    table[walks.STATE : walks.STATE + walks.LANES] = states
    written = np.zeros(walks.LANES, np.uint8)
    walks.walk_on(1, parents, table, np.arange(walks.LANES), written)
    bag = np.repeat(np.arange(4), edges[2].astype(np.int64))
    assert written.tolist() == [bag[int(pick)] for pick, _ in exact]
    assert table[walks.STATE : walks.STATE + walks.LANES].tolist() == [int(state) for _, state in exact]


@pytest.mark.parametrize("dinucleotides", [True, False])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_change_nothing(dinucleotides: bool, threads: int) -> None:
    codes = np.random.default_rng(1).integers(0, 5, (5, 50)).astype(np.uint8)
    alone = shuffle_sequences(codes, 7, 3, dinucleotides=dinucleotides)
    beside = shuffle_sequences(codes, 7, 3, dinucleotides=dinucleotides, threads=threads)
    assert np.array_equal(alone, beside)


def test_shuffles_run_without_the_interpreter_lock() -> None:
    for function in (shuffle_dinucleotides, shuffle_long_dinucleotides, stretches.shuffle_all_bases):
        assert function.targetoptions["nogil"]  # type: ignore[attr-defined]
