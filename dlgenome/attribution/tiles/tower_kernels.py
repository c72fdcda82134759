"""Towers of residual layers on the way there and back, row by row, compiled.

A layer is ``c = convolution(h)``, then ``h + max(c, 0)``. All layers of one row follow one another, so that
h, and its multiplier on the way back, stay in the second-level cache; only c of every layer is written to
memory and read again. It lies in a record, one layer after the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dlgenome.attribution.tiles.instructions import (
    BLOCK,
    FULL_TILES,
    SIDE,
    configure,
    read_configuration,
)
from dlgenome.attribution.tiles.kernels import (
    Pieces,
    Shape,
    n_groups,
    no_pieces,
    put_apart,
    sum_up,
    take_apart,
)
from dlgenome.attribution.vectors.layers import (
    Integers,
    Layers,
    copied,
    layer_back,
    part_of,
    put_among_zeros,
    slope_times,
)
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    all_of,
    at_least,
    load,
    plus,
    put_by,
    store,
    zeros,
)
from dlgenome.attribution.vectors.secants import times_slopes
from dlgenome.compiled import compiled

_ZERO = np.float32(0)
_SLAB = 256
"""Places that are worked on at once: going from tiles to other instructions and back takes its time."""


class Weights(NamedTuple):
    """Of all layers, in pieces."""

    numbers: Pieces
    first: Integers
    """Where those of each layer begin."""
    n_pieces: int
    """Of bfloat16 that stand for a weight, or for a value."""


@compiled
def forward_rows(
    values: Numbers, of_relu: bool, layers: Layers, channels: int, weights: Weights, bias: Numbers,
    record: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """The last h of rows of the first, (rows, positions * channels), and the record of each row.

    The first is the ReLU of the values, or these themselves.
    """
    before = np.zeros(64, np.uint8)
    read_configuration(before)
    configure(FULL_TILES)
    length, n_layers = values.shape[1] // channels, layers.width.size
    room, groups = length + 3 * SIDE, n_groups(channels)
    h, sums = zeros(values.shape[1]), zeros(groups * _SLAB * SIDE)
    pieces = no_pieces(groups * weights.n_pieces * room * SIDE)
    for row in range(len(values)):
        copied(values[row], of_relu, h)
        seen = length
        for number in range(n_layers):
            width, start, padding = layers.width[number], layers.start[number], layers.padding[number]
            shape = _shape(channels, layers, number, padding, weights.n_pieces)
            _clear_after(pieces, groups * weights.n_pieces, room, seen)
            layer_bias = bias[number * channels : (number + 1) * channels]
            c, weight = record[row, layers.record[number] :], weights.first[number]
            ready, ahead = 0, shape.dilation * (shape.width - 1) - padding
            for place in range(0, width, _SLAB):
                end = min(width, place + _SLAB)
                # just before it is used, and written over: then it is in the nearest cache
                wanted = max(ready, min(seen, end + ahead))
                take_apart(h, ready, wanted, channels, weights.n_pieces, pieces, room)
                ready = wanted
                sum_up(pieces, room, place, end, seen, shape, weights.numbers, weight, sums, _SLAB)
                _add_relu(sums, layer_bias, h, start, place, end, c)
            seen = width
        out[row] = h[: seen * channels]
    configure(before)


@compiled
def backward_rows(
    own: Numbers, records: Numbers, multipliers: Numbers, at: int, layers: Layers, channels: int,
    weights: Weights, first_own: Numbers, first_others: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """Multipliers of the first h, (pairs, positions * channels), from those of the last, which begin ``at``.

    ``own`` is the record of the sequence of these pairs, ``records`` are those of their references. Where the
    first h is a ReLU, multipliers are of what it reads: ``first_own`` and ``first_others`` for these.
    """
    before = np.zeros(64, np.uint8)
    read_configuration(before)
    configure(FULL_TILES)
    length, n_layers = out.shape[1] // channels, layers.width.size
    room, groups = length + 3 * SIDE, n_groups(channels)
    sums = zeros(groups * _SLAB * SIDE)
    pieces = no_pieces(groups * weights.n_pieces * room * SIDE)
    for pair in range(len(records)):
        m = out[pair]
        put_among_zeros(multipliers[pair], at * channels, m)
        first = layers.start.sum()
        for number in range(n_layers - 1, -1, -1):
            width, seen, base, padding = layer_back(layers, number, length, first)
            shape = _shape(channels, layers, number, padding, weights.n_pieces)
            x = part_of(own, layers, number, channels)
            r = part_of(records[pair], layers, number, channels)
            _clear_after(pieces, groups * weights.n_pieces, room, width)
            _layer_back(
                x, r, m, first, base, seen, layers.padding[number], shape, weights.numbers,
                weights.first[number], pieces, room, sums,
            )  # fmt: skip
            first = base
        if first_own.size > 0:
            times_slopes(first_own, first_others[pair], m)
    configure(before)


@compiled
def _layer_back(
    x: Numbers, r: Numbers, m: Numbers, first: int, base: int, seen: int, ahead: int, shape: Shape,
    weights: Pieces, weight: int, pieces: Pieces, room: int, sums: Numbers,
) -> None:  # fmt: skip
    """Add what goes back through a convolution to the multipliers of the h that it sees, from ``base`` on."""
    ready, width = 0, x.size // shape.channels
    for place in range(0, seen, _SLAB):
        end = min(seen, place + _SLAB)
        # what is read from memory here comes while there is something else to do
        wanted = max(ready, min(width, end + ahead))
        _slopes_apart(x, r, m, first, ready, wanted, shape.channels, pieces, shape.n_pieces, room)
        ready = wanted
        sum_up(pieces, room, place, end, width, shape, weights, weight, sums, _SLAB)
        _add(sums, m, base, place, end, shape.channels)


@compiled
def _shape(channels: int, layers: Layers, number: int, padding: int, n_pieces: int) -> Shape:
    taps, dilation = layers.taps[number], layers.dilation[number]
    return Shape(channels, channels, taps, padding, dilation, n_pieces, n_groups(channels))


@compiled
def _clear_after(pieces: Pieces, count: int, room: int, width: int) -> None:
    """Zeros after so many positions: what was there before may have been longer."""
    for piece in range(count):
        start = (piece * room + SIDE + width) * SIDE
        pieces[start : start + BLOCK] = np.uint16(0)


@compiled
def _add_relu(
    sums: Numbers, bias: Numbers, h: Numbers, start: int, begin: int, end: int, record: Numbers
) -> None:
    """At some places: c into the record, and h of the next layer in the place of this one's."""
    zero, channels = all_of(_ZERO), bias.size
    for place in range(begin, end):
        for output in range(0, channels, SIDE):
            at, of = place * channels + output, output * _SLAB + (place - begin) * SIDE
            first = plus(load(sums, of), load(bias, output))
            second = plus(load(sums, of + LANES), load(bias, output + LANES))
            put_by(record, at, first, second)
            for half, made in ((0, first), (LANES, second)):
                store(h, at + half, plus(load(h, at + half + start * channels), at_least(made, zero)))


@compiled
def _add(sums: Numbers, m: Numbers, base: int, begin: int, end: int, channels: int) -> None:
    for place in range(begin, end):
        for output in range(0, channels, SIDE):
            at, of = (base + place) * channels + output, output * _SLAB + (place - begin) * SIDE
            for half in (0, LANES):
                store(m, at + half, plus(load(m, at + half), load(sums, of + half)))


@compiled
def _slopes_apart(
    own: Numbers, record: Numbers, m: Numbers, first: int, begin: int, end: int, channels: int,
    pieces: Pieces, n_pieces: int, room: int,
) -> None:  # fmt: skip
    """Multipliers of c at some positions in pieces: those of h, from ``first`` on, times secants of ReLU."""
    for position in range(begin, end):
        at, to = position * channels, (SIDE + position) * SIDE
        for channel in range(0, channels, SIDE):
            low = slope_times(own, record, at + channel, m, first * channels)
            high = slope_times(own, record, at + channel + LANES, m, first * channels)
            put_apart(low, high, n_pieces, pieces, to + channel * n_pieces * room, room * SIDE)
