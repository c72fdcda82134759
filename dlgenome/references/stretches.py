"""Stretches of bases between runs of N, and their permutations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import ONE, random_below, stream_state
from dlgenome.types import Codes

N_BASES = 4


@compiled
def stretch_end(codes: Codes, start: int) -> int:
    """Where the bases from ``start`` on end: at the next N, or with the sequence."""
    while start < codes.size and codes[start] < N_BASES:
        start += 1
    return start


@compiled
def next_stretch(codes: Codes, start: int, shuffled: Codes) -> int:
    """Where the next stretch of bases begins; every N before it stays where it is."""
    while start < codes.size and codes[start] >= N_BASES:
        shuffled[start] = N_BASES
        start += 1
    return start


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
def shuffle_all_bases(
    codes: Codes, digests: NDArray[np.uint64], seed: np.uint64, shuffled: Codes, first: np.uint64
) -> None:
    """Fill ``shuffled`` (sequences, references, length) with uniform permutations between runs of N."""
    for sequence in range(codes.shape[0]):
        for reference in range(shuffled.shape[1]):
            state = stream_state(seed, digests[sequence], first + np.uint64(reference))
            row = shuffled[sequence, reference]
            start = next_stretch(codes[sequence], 0, row)
            while start < codes.shape[1]:
                stop = stretch_end(codes[sequence], start)
                state = shuffle_bases(codes[sequence, start:stop], row[start:stop], state)
                start = next_stretch(codes[sequence], stop, row)
