"""Towers of residual layers on the way there and back, row by row, compiled.

A layer is ``c = convolution(h)``, then ``h + max(c, 0)``. All layers of one row follow one another, so that
h, and its multiplier on the way back, stay in the second-level cache; only c of every layer is written to
memory and read again. It lies in a record, one layer after the other, in float32 or in half precision. That
has few exponents, so each layer of a row is scaled by a power of two, which the end of the record tells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlgenome.attribution.tiles.instructions import (
    BLOCK,
    FULL_TILES,
    SIDE,
    configure,
    read_configuration,
)
from dlgenome.attribution.tiles.kernels import (
    ALL,
    Numbers,
    Pieces,
    Shape,
    n_groups,
    no_pieces,
    put_apart,
    sum_up,
    take_apart,
    zeros,
)
from dlgenome.attribution.tiles.secants import AHEAD, relu_slopes, times_slopes
from dlgenome.attribution.tiles.vectors import (
    LANES,
    all_of,
    as_kept,
    at_least,
    fetch,
    first_of,
    largest_of,
    load,
    plus,
    put_by,
    size_of,
    store,
    times,
)
from dlgenome.compiled import compiled

Integers = NDArray[np.int64]
_ZERO, _INFINITE = np.float32(0), np.float32(np.inf)
_SLAB = 256
"""Places that are worked on at once: going from tiles to other instructions and back takes its time."""
_DIGITS, _BIAS = np.uint32(23), 127
"""Of a float32: binary digits after the first, and what is added to its exponent."""
_OF_HALF = 14
"""The largest exponent of half precision, less one for what rounding may add."""
_FARTHEST = 126
"""Beyond, a power of two or one over it is no ordinary number of float32 any more."""


class Layers(NamedTuple):
    """A number for each layer; positions are of h, of which a layer may have fewer than the one before."""

    n_pieces: int
    """Of all values and weights on this way."""
    width: Integers
    """Positions that it makes."""
    start: Integers
    """The first of them among those of the layer before."""
    padding: Integers
    dilation: Integers
    taps: Integers
    weight: Integers
    """Where its weights begin."""
    record: Integers
    """Where its c begins in a record."""


class Bounds(NamedTuple):
    """How large c may be at most, layer by layer: so many times as large as h, and so much more."""

    gain: Numbers
    """The largest sum of sizes of the weights of one output."""
    offset: Numbers
    """The largest size of a bias."""


@compiled
def forward_rows(
    values: Numbers, of_relu: bool, layers: Layers, channels: int, weights: Pieces, bias: Numbers,
    bounds: Bounds, record: Any, out: Numbers,
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
    pieces = no_pieces(groups * layers.n_pieces * room * SIDE)
    for row in range(len(values)):
        most, seen, scale = _copy(values[row], of_relu, h), length, record.shape[1] - n_layers * SIDE
        for number in range(n_layers):
            width, start, padding = layers.width[number], layers.start[number], layers.padding[number]
            shape = _shape(channels, layers, number, padding)
            _clear_after(pieces, groups * layers.n_pieces, room, seen)
            exponent = _exponent(most * bounds.gain[number] + bounds.offset[number], layers.n_pieces)
            put_by(
                record[row], scale + number * SIDE, all_of(np.float32(exponent)), all_of(np.float32(exponent))
            )
            down, up = _power(-exponent), _power(exponent)
            layer_bias = bias[number * channels : (number + 1) * channels]
            c, weight = record[row, layers.record[number] :], layers.weight[number]
            ready, ahead, most = 0, shape.dilation * (shape.width - 1) - padding, _ZERO
            for place in range(0, width, _SLAB):
                end = min(width, place + _SLAB)
                # just before it is used, and written over: then it is in the nearest cache
                wanted = max(ready, min(seen, end + ahead))
                take_apart(h, ready, wanted, channels, layers.n_pieces, pieces, room)
                ready = wanted
                sum_up(pieces, room, place, end, seen, shape, weights, weight, sums, _SLAB)
                most = max(most, _add_relu(sums, layer_bias, h, start, place, end, c, down, up))
            seen = width
        out[row] = h[: seen * channels]
    configure(before)


@compiled
def _exponent(most: np.float32, n_pieces: int) -> int:
    """Of the power of two by which numbers up to ``most`` are divided to fit half precision."""
    if n_pieces == ALL:
        return 0
    exponent = int(np.float32(most).view(np.uint32) >> _DIGITS) - _BIAS - _OF_HALF
    return min(max(exponent, -_FARTHEST), _FARTHEST)


@compiled
def _power(exponent: int) -> np.float32:
    """Of two."""
    made: np.float32 = np.uint32(np.uint32(exponent + _BIAS) << _DIGITS).view(np.float32)
    return made


@compiled
def backward_rows(
    own: Any, records: Any, multipliers: Numbers, at: int, layers: Layers, channels: int, weights: Pieces,
    first_own: Numbers, first_others: Numbers, out: Numbers,
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
    pieces = no_pieces(groups * layers.n_pieces * room * SIDE)
    for pair in range(len(records)):
        m = out[pair]
        m[:] = _ZERO
        m[at * channels : at * channels + multipliers.shape[1]] = multipliers[pair]
        first, scale = layers.start.sum(), own.size - n_layers * SIDE
        for number in range(n_layers - 1, -1, -1):
            width, base = layers.width[number], first - layers.start[number]
            seen = layers.width[number - 1] if number > 0 else length
            padding = layers.dilation[number] * (layers.taps[number] - 1) - layers.padding[number]
            shape = _shape(channels, layers, number, padding)
            part = slice(layers.record[number], layers.record[number] + width * channels)
            scales = (_scale(own, scale + number * SIDE), _scale(records[pair], scale + number * SIDE))
            _clear_after(pieces, groups * layers.n_pieces, room, width)
            _layer_back(
                own[part], records[pair, part], scales, m, first, base, seen, layers.padding[number], shape,
                weights, layers.weight[number], pieces, room, sums,
            )  # fmt: skip
            first = base
        if first_own.size > 0:
            times_slopes(first_own, first_others[pair], m)
    configure(before)


@compiled
def _layer_back(
    x: Any, r: Any, scales: tuple[np.float32, np.float32], m: Numbers, first: int, base: int, seen: int,
    ahead: int, shape: Shape, weights: Pieces, weight: int, pieces: Pieces, room: int, sums: Numbers,
) -> None:  # fmt: skip
    """Add what goes back through a convolution to the multipliers of the h that it sees, from ``base`` on."""
    ready, width = 0, x.size // shape.channels
    for place in range(0, seen, _SLAB):
        end = min(seen, place + _SLAB)
        # what is read from memory here comes while there is something else to do
        wanted = max(ready, min(width, end + ahead))
        _slopes_apart(x, r, scales, m, first, ready, wanted, shape.channels, pieces, shape.n_pieces, room)
        ready = wanted
        sum_up(pieces, room, place, end, width, shape, weights, weight, sums, _SLAB)
        _add(sums, m, base, place, end, shape.channels)


@compiled
def _scale(record: Any, at: int) -> np.float32:
    """What the numbers of a layer of a record are to be multiplied with."""
    return _power(int(first_of(load(record, at))))


@compiled
def _copy(values: Numbers, of_relu: bool, out: Numbers) -> np.float32:
    """The values, or their ReLU; the largest size of them."""
    most, least = all_of(_ZERO), all_of(_ZERO if of_relu else -_INFINITE)
    for at in range(0, values.size, LANES):
        fetch(values, at + AHEAD)
        vector = at_least(load(values, at), least)
        store(out, at, vector)
        most = at_least(most, size_of(vector))
    return np.float32(largest_of(most))


@compiled
def _shape(channels: int, layers: Layers, number: int, padding: int) -> Shape:
    taps, dilation = layers.taps[number], layers.dilation[number]
    return Shape(channels, channels, taps, padding, dilation, layers.n_pieces, n_groups(channels))


@compiled
def _clear_after(pieces: Pieces, count: int, room: int, width: int) -> None:
    """Zeros after so many positions: what was there before may have been longer."""
    for piece in range(count):
        start = (piece * room + SIDE + width) * SIDE
        pieces[start : start + BLOCK] = np.uint16(0)


@compiled
def _add_relu(
    sums: Numbers, bias: Numbers, h: Numbers, start: int, begin: int, end: int, record: Any,
    down: np.float32, up: np.float32,
) -> np.float32:  # fmt: skip
    """At some places: c into the record, and h of the next layer in the place of this one's.

    ``down`` and ``up`` take c to what the record keeps, and back. The largest size of the new h.
    """
    zero, smaller, larger, channels = all_of(_ZERO), all_of(down), all_of(up), bias.size
    most = zero
    for place in range(begin, end):
        for output in range(0, channels, SIDE):
            at, of = place * channels + output, output * _SLAB + (place - begin) * SIDE
            first = times(smaller, plus(load(sums, of), load(bias, output)))
            second = times(smaller, plus(load(sums, of + LANES), load(bias, output + LANES)))
            put_by(record, at, first, second)
            for half, made in ((0, first), (LANES, second)):
                c = at_least(times(larger, as_kept(record, made)), zero)
                following = plus(load(h, at + half + start * channels), c)
                store(h, at + half, following)
                most = at_least(most, size_of(following))
    return np.float32(largest_of(most))


@compiled
def _add(sums: Numbers, m: Numbers, base: int, begin: int, end: int, channels: int) -> None:
    for place in range(begin, end):
        for output in range(0, channels, SIDE):
            at, of = (base + place) * channels + output, output * _SLAB + (place - begin) * SIDE
            for half in (0, LANES):
                store(m, at + half, plus(load(m, at + half), load(sums, of + half)))


@compiled
def _slopes_apart(
    own: Any, record: Any, scales: tuple[np.float32, np.float32], m: Numbers, first: int, begin: int,
    end: int, channels: int, pieces: Pieces, n_pieces: int, room: int,
) -> None:  # fmt: skip
    """Multipliers of c at some positions in pieces: those of h, from ``first`` on, times secants of ReLU."""
    for position in range(begin, end):
        at, to = position * channels, (SIDE + position) * SIDE
        for channel in range(0, channels, SIDE):
            low = _slope_times(own, record, scales, at + channel, m, first * channels + at + channel)
            high = _slope_times(
                own, record, scales, at + channel + LANES, m, first * channels + at + channel + LANES
            )
            put_apart(low, high, n_pieces, pieces, to + channel * n_pieces * room, room * SIDE)


@compiled
def _slope_times(
    own: Any, record: Any, scales: tuple[np.float32, np.float32], at: int, m: Numbers, place: int
) -> Any:
    fetch(own, at + AHEAD)
    fetch(record, at + AHEAD)
    x, r = times(all_of(scales[0]), load(own, at)), times(all_of(scales[1]), load(record, at))
    return times(load(m, place), relu_slopes(x, r))
