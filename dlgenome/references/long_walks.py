"""Eulerian paths over stretches of any length: the shuffles of one sequence, walked in turns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import ONE, ZERO, random_below, stream_state
from dlgenome.references.stretches import N_BASES, next_stretch, stretch_end
from dlgenome.references.trees import N_PARENT_MAPS, draw_last_edges, weigh_stretch
from dlgenome.types import Codes

IN_TURNS = 8
"""Walks that take their steps in turns, so that the processor has others to go on with while one waits."""


@compiled
def lay_edges(edges: NDArray[np.uint64], parents: NDArray[np.int64], left: NDArray[np.uint64]) -> None:
    """Fill ``left``: how many edges of each base, all but the last, lead to A, A or C, A to G, any base."""
    for base in range(N_BASES):
        total = ZERO
        for successor in range(N_BASES):
            total += edges[base, successor] - (ONE if parents[base] == successor else ZERO)
            left[base, successor] = total


@compiled
def take_edge(left: NDArray[np.uint64], pick: np.uint64) -> np.uint64:
    """Where the picked one of the edges that are left to a base leads; the edge is then gone."""
    to_a = ONE if pick < left[0] else ZERO
    to_c = ONE if pick < left[1] else ZERO
    to_g = ONE if pick < left[2] else ZERO
    left[0] -= to_a
    left[1] -= to_c
    left[2] -= to_g
    left[3] -= ONE
    return np.uint64(3) - to_a - to_c - to_g


@compiled
def walk_in_turns(
    states: NDArray[np.uint64], parents: NDArray[np.int64], left: NDArray[np.uint64], shuffled: Codes
) -> None:
    """Fill the rows of ``shuffled`` from the second base on, each with a walk that begins at its first."""
    walks, length = shuffled.shape
    for position in range(1, length):
        for walk in range(walks):
            here = shuffled[walk, position - 1]
            degree = left[walk, here, 3]
            if degree == ZERO:
                shuffled[walk, position] = parents[walk, here]
            else:
                pick, states[walk] = random_below(degree, states[walk])
                shuffled[walk, position] = take_edge(left[walk, here], pick)


@compiled
def shuffle_long_dinucleotides(
    codes: Codes, digests: NDArray[np.uint64], seed: np.uint64, shuffled: Codes, first: np.uint64
) -> None:
    """Fill ``shuffled`` as ``shuffle_dinucleotides`` does, with sequences of any length.

    Slower where there are many walks, and faster where there are few.
    """
    edges, degrees = np.zeros((N_BASES, N_BASES), np.uint64), np.zeros(N_BASES, np.uint64)
    weights, states = np.zeros(N_PARENT_MAPS, np.uint64), np.zeros(IN_TURNS, np.uint64)
    left = np.zeros((IN_TURNS, N_BASES, N_BASES), np.uint64)
    parents = np.zeros((IN_TURNS, N_BASES), np.int64)
    for sequence in range(codes.shape[0]):
        for group in range(0, shuffled.shape[1], IN_TURNS):
            rows = shuffled[sequence, group : group + IN_TURNS]
            for walk in range(rows.shape[0]):
                states[walk] = stream_state(seed, digests[sequence], first + np.uint64(group + walk))
            start = stop = 0
            while True:
                for walk in range(rows.shape[0]):
                    start = next_stretch(codes[sequence], stop, rows[walk])
                if start == codes.shape[1]:
                    break
                stop = stretch_end(codes[sequence], start)
                stretch = codes[sequence, start:stop]
                weigh_stretch(stretch, edges, degrees, weights, parents[0])
                for walk in range(rows.shape[0]):
                    states[walk] = draw_last_edges(
                        weights, edges, degrees, stretch[-1], parents[walk], states[walk]
                    )
                    lay_edges(edges, parents[walk], left[walk])
                rows[:, start] = stretch[0]
                walk_in_turns(states, parents, left, rows[:, start:stop])
