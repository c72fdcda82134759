"""Which edge each base leaves by last in a uniform Eulerian path: a spanning tree, drawn exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import ONE, ZERO, random_below_64
from dlgenome.references.stretches import N_BASES
from dlgenome.types import Codes

LONGEST = 1 << 22
"""Bases in the longest sequence; the product of three edge counts then stays far below 2**64."""

N_PARENT_MAPS = 64
ABSENT = -1


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
    weights: NDArray[np.uint64],
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
    pick, state = random_below_64(weights.sum(), state)
    choice = 0
    while pick >= weights[choice]:
        pick -= weights[choice]
        choice += 1
    tree_weight(edges, degrees, end, choice, parents)
    return state


@compiled
def weigh_stretch(
    stretch: Codes,
    edges: NDArray[np.uint64],
    degrees: NDArray[np.uint64],
    weights: NDArray[np.uint64],
    parents: NDArray[np.int64],
) -> None:
    """Count the dinucleotides of a stretch, and weigh every tree of last edges."""
    edges[:] = ZERO
    for position in range(1, stretch.size):
        edges[stretch[position - 1], stretch[position]] += ONE
    for base in range(N_BASES):
        degrees[base] = edges[base].sum()
    for choice in range(N_PARENT_MAPS):
        weights[choice] = tree_weight(edges, degrees, stretch[-1], choice, parents)
