"""The way back through towers with numbers rounded to bfloat16, compiled.

Each product is of two channels at once. Nothing is combined before the products here: combinations, of
multipliers as of weights, would round more than these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.attribution.vectors.layers import Layers, layer_back, part_of, put_among_zeros, slope_times
from dlgenome.attribution.vectors.numbers import LANES, Numbers, load, plus, put_short, store, zeros
from dlgenome.attribution.vectors.products import convolve
from dlgenome.attribution.vectors.secants import times_slopes
from dlgenome.compiled import compiled

Pairs = NDArray[np.uint32]
Halves = NDArray[np.uint16]
"""The same memory, number by number."""
_PLACES = 96
"""That are worked on at once, in the nearest caches."""


@compiled
def narrow_backward_rows(
    own: Numbers, records: Numbers, multipliers: Numbers, at: int, layers: Layers, channels: int,
    weights: Pairs, first_own: Numbers, first_others: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """As :func:`dlgenome.attribution.vectors.tower_kernels.backward_rows`."""
    length, n_layers, units = out.shape[1] // channels, layers.width.size, channels // 2
    # before the row and after it zeros, as far as taps look
    beyond = (layers.dilation * (layers.taps - 1)).max() + _PLACES
    room, sums = zeros((length + 2 * beyond) * units), zeros(_PLACES * channels)
    of_c, halves = room.view(np.uint32), room.view(np.uint16)
    for pair in range(len(records)):
        m = out[pair]
        put_among_zeros(multipliers[pair], at * channels, m)
        first = layers.start.sum()
        for number in range(n_layers - 1, -1, -1):
            width, seen, base, padding = layer_back(layers, number, length, first)
            dilation, taps = layers.dilation[number], layers.taps[number]
            # what was there before may have been longer
            of_c[(beyond + width) * units :] = np.uint32(0)
            x = part_of(own, layers, number, channels)
            r, ready = part_of(records[pair], layers, number, channels), 0
            for place in range(0, seen, _PLACES):
                count = min(_PLACES, seen - place)
                # the multipliers that are still to be read are not added to yet
                wanted = max(ready, min(width, place + count + layers.padding[number]))
                _slopes(x, r, m, first, ready, wanted, channels, halves, beyond)
                ready = wanted
                convolve(
                    of_c, (beyond + place - padding) * units, count, taps, dilation * units, units, weights,
                    layers.weight[number], channels, sums, 0,
                )  # fmt: skip
                _add(sums, m, (base + place) * channels, count * channels)
            first = base
        if first_own.size > 0:
            times_slopes(first_own, first_others[pair], m)


@compiled
def _slopes(
    own: Numbers, record: Numbers, m: Numbers, first: int, begin: int, end: int, channels: int, out: Halves,
    beyond: int,
) -> None:  # fmt: skip
    """Multipliers of c at some positions, rounded: those of h, from ``first`` on, times secants of ReLU."""
    to = beyond * channels
    for at in range(begin * channels, end * channels, 2 * LANES):
        low = slope_times(own, record, at, m, first * channels)
        high = slope_times(own, record, at + LANES, m, first * channels)
        put_short(out, to + at, low, high)


@compiled
def _add(sums: Numbers, m: Numbers, to: int, count: int) -> Any:
    for at in range(0, count, LANES):
        store(m, to + at, plus(load(m, to + at), load(sums, at)))
