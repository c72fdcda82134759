"""Dinucleotide shuffles of many sequences: which walk is where in the table of walks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import stream_state
from dlgenome.references.stretches import N_BASES, next_stretch, stretch_end
from dlgenome.references.trees import ABSENT, N_PARENT_MAPS, draw_last_edges, weigh_stretch
from dlgenome.references.walks import LANES, LONGEST_PACKED, STATE, TABLE, begin_walk, rest, walk_on
from dlgenome.types import Codes


@compiled
def shuffle_dinucleotides(
    codes: Codes, digests: NDArray[np.uint64], seed: np.uint64, shuffled: Codes, first: np.uint64
) -> None:
    """Fill ``shuffled`` (sequences, references, length) with uniform Eulerian paths over the dinucleotides.

    By the BEST theorem a path is a spanning tree of last edges towards the last base together with any
    order of each base's other edges. That order is drawn while walking, one edge at a time without
    replacement, which is the same as shuffling the edges beforehand. As many paths as there are lanes are
    walked side by side; one that has come to the end of its stretch makes room for the next. Sequences have
    LONGEST_PACKED bases at most.
    """
    sequences, references, length = shuffled.shape
    edges, degrees = np.zeros((N_BASES, N_BASES), np.uint64), np.zeros(N_BASES, np.uint64)
    weights = np.zeros(N_PARENT_MAPS, np.uint64)
    table, parents = np.zeros(TABLE, np.uint64), np.zeros((LANES, N_BASES), np.int64)
    rows, places = np.full(LANES, ABSENT, np.int64), np.full(LANES, ABSENT, np.int64)
    positions, stops = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    next_row, weighed, stop = 0, (ABSENT, ABSENT), 0
    while True:
        steps = LONGEST_PACKED
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
                    table[STATE + lane] = stream_state(seed, digests[sequence], first + np.uint64(reference))
                    next_row += 1
                    continue
                if weighed != (sequence, start):
                    weighed, stop = (sequence, start), stretch_end(codes[sequence], start)
                    weigh_stretch(codes[sequence, start:stop], edges, degrees, weights, parents[lane])
                stretch = codes[sequence, start:stop]
                table[STATE + lane] = draw_last_edges(
                    weights, edges, degrees, stretch[-1], parents[lane], table[STATE + lane]
                )
                begin_walk(edges, parents[lane], stretch[0], table, lane)
                shuffled[sequence, reference, start] = stretch[0]
                positions[lane], stops[lane] = start + 1, stop
            if rows[lane] == ABSENT:
                places[lane] = ABSENT
                rest(table, lane)
            else:
                places[lane] = rows[lane] * length + positions[lane]
                steps = min(steps, stops[lane] - positions[lane])
        if next_row == sequences * references and (rows == ABSENT).all():
            return
        walk_on(steps, parents, table, places, shuffled.reshape(-1))
        positions += steps  # of idle lanes, too, which then look for no walk again
