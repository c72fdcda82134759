"""Dinucleotide shuffles: Eulerian paths, many walked side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import (
    GOLDEN_GAMMA,
    ONE,
    SHIFT_32,
    ZERO,
    mix,
    random_below,
    stream_state,
)
from dlgenome.references.stretches import N_BASES, next_stretch, stretch_end
from dlgenome.references.trees import ABSENT, N_PARENT_MAPS, draw_last_edges, weigh_stretch
from dlgenome.types import Codes

LONGEST = 1 << 22
"""Bases in the longest sequence; the product of three edge counts then stays far below 2**64."""

LANES = 16
"""Walks side by side: two vectors of 32-bit numbers on AVX2; more or fewer were not faster."""
# The table of walks has rows of one number for each lane. Four rows for every base say how many of its edges
# are left that lead to A, to A or C, to A, C or G, and to any; then come the base where the walk is, and the
# edge that it picks.
SIDE, DEGREE = N_BASES * LANES, 3 * LANES
HERE = N_BASES * SIDE
PICK, TABLE = HERE + LANES, HERE + 2 * LANES
NONE, UNIT, LAST_BASE, IDLE = np.uint32(0), np.uint32(1), np.uint32(3), np.uint32(4)


@compiled
def begin_walk(
    edges: NDArray[np.uint64], parents: NDArray[np.int64], first: int, table: NDArray[np.uint32], lane: int
) -> None:
    """Lay the edges that a walk may take, all but the last of each base, into its lane of the table."""
    for base in range(N_BASES):
        total = ZERO
        for successor in range(N_BASES):
            total += edges[base, successor] - (ONE if parents[base] == successor else ZERO)
            table[base * SIDE + successor * LANES + lane] = np.uint32(total)
    table[HERE + lane] = np.uint32(first)


@compiled
def draw_picks(states: NDArray[np.uint64], table: NDArray[np.uint32]) -> bool:
    """Draw which of the edges that are left each walk takes; tells whether one must be looked at again.

    Loops over lanes have no branches, so that they become vector instructions.
    """
    doubtful = NONE
    for lane in range(LANES):
        here = table[HERE + lane]
        degree = UNIT  # of an idle lane, which then is hardly ever looked at again
        for base in range(N_BASES):
            left = table[base * SIDE + DEGREE + lane]
            degree = left if here == np.uint32(base) else degree
        states[lane] += GOLDEN_GAMMA
        product = (mix(states[lane]) >> SHIFT_32) * np.uint64(degree)
        table[PICK + lane] = np.uint32(product >> SHIFT_32)
        doubtful |= UNIT if np.uint32(product) <= degree else NONE
    return bool(doubtful != NONE)


@compiled
def draw_again(states: NDArray[np.uint64], parents: NDArray[np.int64], table: NDArray[np.uint32]) -> None:
    """Draw exactly where the first draw may be biased; lead walks with none but a last edge to that."""
    for lane in range(LANES):
        here = table[HERE + lane]
        if here == IDLE:
            continue
        side = here * SIDE
        degree = np.uint64(table[side + DEGREE + lane])
        before = states[lane] - GOLDEN_GAMMA
        if degree != ZERO:
            pick, states[lane] = random_below(degree, before)
            table[PICK + lane] = np.uint32(pick)
            continue
        states[lane] = before
        for successor in range(N_BASES):
            is_there = successor >= parents[lane, here]
            table[side + successor * LANES + lane] = UNIT if is_there else NONE


@compiled
def take_edges(table: NDArray[np.uint32]) -> None:
    """Let every walk take the edge that it picked; the edge is then gone."""
    for lane in range(LANES):
        here, pick = table[HERE + lane], table[PICK + lane]
        to_a = to_c = to_g = NONE
        for base in range(N_BASES):
            first = base * SIDE + lane
            a, c, g = table[first], table[first + LANES], table[first + 2 * LANES]
            to_a = a if here == np.uint32(base) else to_a
            to_c = c if here == np.uint32(base) else to_c
            to_g = g if here == np.uint32(base) else to_g
        below_a = UNIT if pick < to_a else NONE
        below_c = UNIT if pick < to_c else NONE
        below_g = UNIT if pick < to_g else NONE
        for base in range(N_BASES):
            first = base * SIDE + lane
            is_here = UNIT if here == np.uint32(base) else NONE
            table[first] -= below_a & is_here
            table[first + LANES] -= below_c & is_here
            table[first + 2 * LANES] -= below_g & is_here
            table[first + DEGREE] -= is_here
        table[HERE + lane] = LAST_BASE - below_a - below_c - below_g


@compiled
def walk_on(
    steps: int,
    states: NDArray[np.uint64],
    parents: NDArray[np.int64],
    table: NDArray[np.uint32],
    places: NDArray[np.int64],
    shuffled: Codes,
) -> None:
    """Let every walk take so many steps, and write them from its place in ``shuffled`` (one dimension) on."""
    for step in range(steps):
        if draw_picks(states, table):
            draw_again(states, parents, table)
        take_edges(table)
        for lane in range(LANES):
            if places[lane] == ABSENT:
                table[HERE + lane] = IDLE
            else:
                shuffled[places[lane] + step] = table[HERE + lane]


@compiled
def shuffle_dinucleotides(
    codes: Codes, digests: NDArray[np.uint64], seed: np.uint64, shuffled: Codes, first: np.uint64
) -> None:
    """Fill ``shuffled`` (sequences, references, length) with uniform Eulerian paths over the dinucleotides.

    By the BEST theorem a path is a spanning tree of last edges towards the last base together with any
    order of each base's other edges. That order is drawn while walking, one edge at a time without
    replacement, which is the same as shuffling the edges beforehand. As many paths as there are lanes are
    walked side by side; one that has come to the end of its stretch makes room for the next.
    """
    sequences, references, length = shuffled.shape
    edges, degrees = np.zeros((N_BASES, N_BASES), np.uint64), np.zeros(N_BASES, np.uint64)
    weights = np.zeros(N_PARENT_MAPS, np.uint64)
    table, states = np.zeros(TABLE, np.uint32), np.zeros(LANES, np.uint64)
    parents = np.zeros((LANES, N_BASES), np.int64)
    rows, places = np.full(LANES, ABSENT, np.int64), np.full(LANES, ABSENT, np.int64)
    positions, stops = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    next_row, weighed = 0, (ABSENT, ABSENT)
    while True:
        steps = LONGEST
        for lane in range(LANES):
            while positions[lane] == stops[lane]:
                sequence, reference = divmod(rows[lane], references)
                start = length
                if rows[lane] != ABSENT:
                    start = next_stretch(codes[sequence], stops[lane], shuffled[sequence, reference])
                if start == length:
                    rows[lane], positions[lane], stops[lane] = next_row, 0, 0
                    if next_row == sequences * references:
                        rows[lane] = ABSENT
                        break
                    sequence, reference = divmod(next_row, references)
                    states[lane] = stream_state(seed, digests[sequence], first + np.uint64(reference))
                    next_row += 1
                    continue
                stop = stretch_end(codes[sequence], start)
                stretch = codes[sequence, start:stop]
                if weighed != (sequence, start):
                    weigh_stretch(stretch, edges, degrees, weights, parents[lane])
                    weighed = (sequence, start)
                states[lane] = draw_last_edges(
                    weights, edges, degrees, stretch[-1], parents[lane], states[lane]
                )
                begin_walk(edges, parents[lane], stretch[0], table, lane)
                shuffled[sequence, reference, start] = stretch[0]
                positions[lane], stops[lane] = start + 1, stop
            places[lane] = ABSENT if rows[lane] == ABSENT else rows[lane] * length + positions[lane]
            if rows[lane] != ABSENT:
                steps = min(steps, stops[lane] - positions[lane])
        if next_row == sequences * references and (rows == ABSENT).all():
            return
        walk_on(steps, states, parents, table, places, shuffled.reshape(-1))
        positions += steps
