"""Compiled shuffles, and the counter-based random numbers that they draw.

All compiled functions live in this one file on purpose: numba's disk cache notices a change of the file
that a function is in, but not of another file whose functions it calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.types import Codes

LONGEST = 1 << 22
"""Bases in the longest sequence; the product of three edge counts then stays far below 2**64."""

# numba turns uint64 mixed with a Python integer into a float, so every constant has its type.
ZERO, ONE = np.uint64(0), np.uint64(1)
LOW_32_BITS, SHIFT_32 = np.uint64(0xFFFFFFFF), np.uint64(32)
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIER_1, MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_30, SHIFT_27, SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)

N_BASES = 4
N_PARENT_MAPS = 64
ABSENT = -1


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijective scramble of 64 bits: the output function of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> SHIFT_30)) * MULTIPLIER_1
    value = (value ^ (value >> SHIFT_27)) * MULTIPLIER_2
    return value ^ (value >> SHIFT_31)


@compiled
def random_64(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The next number of splitmix64 and the state after it; the n-th is ``mix(state + n * gamma)``."""
    state = state + GOLDEN_GAMMA
    return mix(state), state


@compiled
def stream_state(seed: np.uint64, digest: np.uint64, reference: np.uint64) -> np.uint64:
    """Where the random numbers of one reference of one sequence begin."""
    state = mix(seed + GOLDEN_GAMMA)
    state = mix((state ^ digest) + GOLDEN_GAMMA)
    return mix((state ^ reference) + GOLDEN_GAMMA)


@compiled
def random_below(bound: np.uint64, state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A uniform integer in [0, bound), 1 <= bound < 2**32, and the new state (Lemire 2019, algorithm 5)."""
    bits, state = random_64(state)
    product = (bits >> SHIFT_32) * bound
    if (product & LOW_32_BITS) < bound:
        rejected = ((LOW_32_BITS - bound) + ONE) % bound
        while (product & LOW_32_BITS) < rejected:
            bits, state = random_64(state)
            product = (bits >> SHIFT_32) * bound
    return product >> SHIFT_32, state


@compiled
def random_below_64(bound: np.uint64, state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A uniform integer in [0, bound), 1 <= bound < 2**64, and the new state."""
    rejected = (ZERO - bound) % bound
    bits, state = random_64(state)
    while bits < rejected:
        bits, state = random_64(state)
    return bits % bound, state


@compiled
def take_base(counts: NDArray[np.uint64], pick: np.uint64) -> int:
    """The base of item ``pick`` of a bag that holds ``counts`` of each base; the item leaves the bag."""
    first = counts[0]
    second = first + counts[1]
    third = second + counts[2]
    base = int(pick >= first) + int(pick >= second) + int(pick >= third)
    counts[base] -= ONE
    return base


@compiled
def tree_weight(
    edges: NDArray[np.uint64], degrees: NDArray[np.uint64], end: int, choice: int, parents: NDArray[np.int64]
) -> np.uint64:
    """The number of labelled spanning trees towards ``end`` that parent map ``choice`` stands for.

    Fills ``parents``; every other base has two bits of ``choice``. Bases without outgoing edges are not
    in the graph; only the map that gives them the bits 0 counts, so that no tree is counted twice.
    """
    weight = ONE
    for base in range(N_BASES):
        parents[base] = ABSENT
        if base == end:
            continue
        parent = choice & 3
        choice >>= 2
        if degrees[base] != ZERO:
            parents[base] = parent
            weight *= edges[base, parent]
        elif parent != 0:
            return ZERO
    for base in range(N_BASES):
        ancestor = base
        for _ in range(N_BASES - 1):
            if parents[ancestor] != ABSENT:
                ancestor = parents[ancestor]
        if parents[base] != ABSENT and ancestor != end:
            return ZERO
    return weight


@compiled
def draw_last_edges(
    edges: NDArray[np.uint64],
    degrees: NDArray[np.uint64],
    end: int,
    parents: NDArray[np.int64],
    state: np.uint64,
) -> np.uint64:
    """Fill ``parents`` with each base's last successor, a uniform labelled spanning tree towards ``end``.

    Four bases have so few parent maps that all are weighed: the draw is exact and nothing is rejected.
    Returns the new state.
    """
    total = ZERO
    for choice in range(N_PARENT_MAPS):
        total += tree_weight(edges, degrees, end, choice, parents)
    pick, state = random_below_64(total, state)
    for choice in range(N_PARENT_MAPS):
        weight = tree_weight(edges, degrees, end, choice, parents)
        if pick < weight:
            break
        pick -= weight
    return state


@compiled
def shuffle_dinucleotides(stretch: Codes, shuffled: Codes, state: np.uint64) -> np.uint64:
    """Fill ``shuffled`` with a uniform Eulerian path over the dinucleotides of ``stretch`` (no N in it).

    By the BEST theorem a path is a spanning tree of last edges towards the last base together with any
    order of each base's other edges. That order is drawn while walking, one edge at a time without
    replacement, which is the same as shuffling the edges beforehand. Returns the new state.
    """
    edges = np.zeros((N_BASES, N_BASES), dtype=np.uint64)
    for position in range(1, stretch.size):
        edges[stretch[position - 1], stretch[position]] += ONE
    degrees = edges.sum(axis=1)
    parents = np.empty(N_BASES, dtype=np.int64)
    state = draw_last_edges(edges, degrees, stretch[-1], parents, state)
    for base in range(N_BASES):
        if parents[base] != ABSENT:
            edges[base, parents[base]] -= ONE
            degrees[base] -= ONE
    base = int(stretch[0])
    shuffled[0] = base
    for position in range(1, stretch.size):
        if degrees[base] == ZERO:
            base = parents[base]
        else:
            pick, state = random_below(degrees[base], state)
            degrees[base] -= ONE
            base = take_base(edges[base], pick)
        shuffled[position] = base
    return state


@compiled
def shuffle_bases(stretch: Codes, shuffled: Codes, state: np.uint64) -> np.uint64:
    """Fill ``shuffled`` with a uniform permutation of ``stretch`` (no N in it); returns the new state."""
    counts = np.zeros(N_BASES, dtype=np.uint64)
    for base in stretch:
        counts[base] += ONE
    for position in range(stretch.size):
        pick, state = random_below(np.uint64(stretch.size - position), state)
        shuffled[position] = take_base(counts, pick)
    return state


@compiled
def shuffle_sequence(codes: Codes, dinucleotides: bool, shuffled: Codes, state: np.uint64) -> None:
    """Fill ``shuffled`` with ``codes``: N stays where it is, each stretch between is shuffled on its own."""
    start = 0
    while start < codes.size:
        if codes[start] >= N_BASES:
            shuffled[start] = N_BASES
            start += 1
            continue
        stop = start + 1
        while stop < codes.size and codes[stop] < N_BASES:
            stop += 1
        if dinucleotides:
            state = shuffle_dinucleotides(codes[start:stop], shuffled[start:stop], state)
        else:
            state = shuffle_bases(codes[start:stop], shuffled[start:stop], state)
        start = stop


@compiled
def shuffle_batch(
    codes: Codes,
    digests: NDArray[np.uint64],
    seed: np.uint64,
    dinucleotides: bool,
    shuffled: Codes,
    first: np.uint64,
) -> None:
    """Fill ``shuffled`` (sequences, references, length) with shuffles ``first`` and on of ``codes``."""
    for sequence in range(codes.shape[0]):
        for reference in range(shuffled.shape[1]):
            state = stream_state(seed, digests[sequence], first + np.uint64(reference))
            shuffle_sequence(codes[sequence], dinucleotides, shuffled[sequence, reference], state)
