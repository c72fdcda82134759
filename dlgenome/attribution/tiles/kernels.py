"""Convolutions of rows of values by products of tiles, compiled.

The numbers of a row are taken apart into pieces first: (groups of 32 channels, pieces, positions, 32), with
zeros before the row and after it, so that every tile lies in memory in one piece.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlgenome.attribution.tiles.instructions import (
    BLOCK,
    FULL_TILES,
    SIDE,
    block_of_sums,
    configure,
    read_configuration,
)
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    in_eight_digits,
    load,
    minus,
    plus,
    put_short,
    store,
    zeros,
)
from dlgenome.compiled import compiled

Pieces = NDArray[np.uint16]
_AT_ONCE = 512
"""Places whose sums stay in the second-level cache while all weights pass by."""
ONE, TWO, ALL = 1, 2, 3
"""Pieces that stand for a number: bfloat16 itself, with sixteen binary digits, and all of a float32."""

_small_products = block_of_sums(ALL, [(0, 2), (0, 1), (1, 1), (1, 0), (2, 0)])
"""Three more are less than a part in 2^24 of the largest, and left out."""
_large_products = block_of_sums(ALL, [(0, 0)])
_products_of_two = block_of_sums(TWO, [(0, 1), (0, 0), (1, 0)])
"""One more is less than a part in 2^16."""
_products_of_one = block_of_sums(ONE, [(0, 0)])
SMALL, LARGE = 0, 1
"""Parts of a sum. All small products come first: each that is added to a large sum rounds it once more.

With fewer than all pieces that is less than what is missing, and there is only one part.
"""


class Shape(NamedTuple):
    """A convolution along positions, of stride 1."""

    channels: int
    outputs: int
    width: int
    padding: int
    dilation: int
    n_pieces: int
    at_once: int
    """Groups of 32 channels whose weights are used at many places before the next ones."""


@compiled
def no_pieces(count: int) -> Pieces:
    """Zeros as :func:`zeros`, for so many pieces, an even number."""
    return zeros(count // 2).view(np.uint16)


@compiled
def n_groups(channels: int) -> int:
    """Groups of 32 that hold so many channels, or outputs."""
    return (channels + SIDE - 1) // SIDE


@compiled
def n_made(length: int, shape: Shape) -> int:
    """Positions that a convolution makes of so many."""
    return length + 2 * shape.padding - shape.dilation * (shape.width - 1)


@compiled
def take_apart(
    row: Numbers, begin: int, end: int, channels: int, n_pieces: int, pieces: Pieces, room: int
) -> None:
    """Split some positions of a row (positions, channels); each piece has room for so many positions."""
    whole, spare = channels - channels % SIDE, np.zeros(SIDE, np.float32)
    for position in range(begin, end):
        at, to = position * channels, (SIDE + position) * SIDE
        for channel in range(0, whole, SIDE):
            first, second = load(row, at + channel), load(row, at + channel + LANES)
            put_apart(first, second, n_pieces, pieces, to + channel * n_pieces * room, room * SIDE)
        if whole < channels:
            for number in range(channels - whole):
                spare[number] = row[at + whole + number]
            first, second = load(spare, 0), load(spare, LANES)
            put_apart(first, second, n_pieces, pieces, to + whole * n_pieces * room, room * SIDE)


@compiled
def put_apart(first: Any, second: Any, n_pieces: int, pieces: Pieces, to: int, apart: int) -> None:
    """Put the pieces of two vectors where they belong."""
    for _ in range(n_pieces - 1):
        digits = in_eight_digits(first), in_eight_digits(second)
        put_short(pieces, to, digits[0], digits[1])
        first, second = minus(first, digits[0]), minus(second, digits[1])
        to += apart
    put_short(pieces, to, first, second)


@compiled
def taps_seen(start: int, dilation: int, width: int, length: int) -> tuple[int, int]:
    """The first tap, and the one after the last, that sees positions of the row from 32 places.

    ``start`` is the position that the first tap sees from the first place.
    """
    first, last = 0, width
    while first < last and start + first * dilation + SIDE <= 0:
        first += 1
    while last > first and start + (last - 1) * dilation >= length:
        last -= 1
    return first, last


@compiled
def _add_block(
    pieces: Pieces, room: int, group: int, start: int, length: int, shape: Shape, weights: Pieces,
    weight: int, sums: Numbers, place: int, groups: int, part: int, onto: bool,
) -> None:  # fmt: skip
    """One part of the sums at 32 places of 32 outputs, over some groups of channels, from ``group`` on."""
    first, last = taps_seen(start, shape.dilation, shape.width, length)
    value = (group * shape.n_pieces * room + SIDE + start) * SIDE
    tap, piece = shape.dilation * SIDE, room * SIDE
    if shape.n_pieces == ONE:
        _products_of_one(pieces, value, tap, piece, weights, weight, sums, place, first, last, groups, onto)
    elif shape.n_pieces == TWO:
        _products_of_two(pieces, value, tap, piece, weights, weight, sums, place, first, last, groups, onto)
    elif part == SMALL:
        _small_products(pieces, value, tap, piece, weights, weight, sums, place, first, last, groups, onto)
    else:
        _large_products(pieces, value, tap, piece, weights, weight, sums, place, first, last, groups, onto)


@compiled
def _put(sums: Numbers, n_places: int, out: Numbers, first: int, bias: Numbers, onto: bool) -> None:
    """Write what is (groups of outputs, places, 32) to (places, outputs), or add it there."""
    outputs = bias.size
    whole = outputs - outputs % LANES
    for place in range(n_places):
        for output in range(0, whole, LANES):
            made = load(sums, ((output // SIDE) * _AT_ONCE + place) * SIDE + output % SIDE)
            at, total = first + place * outputs + output, plus(made, load(bias, output))
            store(out, at, plus(total, load(out, at)) if onto else total)
        for output in range(whole, outputs):
            one = sums[((output // SIDE) * _AT_ONCE + place) * SIDE + output % SIDE] + bias[output]
            at = first + place * outputs + output
            out[at] = one + out[at] if onto else one


@compiled
def sum_up(
    pieces: Pieces, room: int, begin: int, end: int, length: int, shape: Shape, weights: Pieces, first: int,
    sums: Numbers, at_most: int,
) -> None:  # fmt: skip
    """The convolution at some places, (groups of outputs, ``at_most`` places, 32).

    Weights, from ``first`` on, are (parts of the groups of channels, groups of outputs, taps, groups, pieces,
    two registers).
    """
    groups, beginning = n_groups(shape.channels), SMALL if shape.n_pieces == ALL else LARGE
    for part in range(beginning, LARGE + 1):
        weight = first
        for group in range(0, groups, shape.at_once):
            some, onto = min(shape.at_once, groups - group), part > beginning or group > 0
            for panel in range(n_groups(shape.outputs)):
                for place in range(begin, end, SIDE):
                    to = (panel * at_most + place - begin) * SIDE
                    _add_block(
                        pieces, room, group, place - shape.padding, length, shape, weights, weight, sums, to,
                        some, part, onto,
                    )  # fmt: skip
                weight += shape.width * some * shape.n_pieces * BLOCK


@compiled
def convolve(
    rows: Numbers, shape: Shape, weights: Pieces, bias: Numbers, out: Numbers, apart: int, onto: bool
) -> None:
    """The convolution of rows (rows, positions * channels), written or added to rows that lie ``apart``."""
    before = np.zeros(64, np.uint8)
    read_configuration(before)
    configure(FULL_TILES)
    length = rows.shape[1] // shape.channels
    size, room = n_made(length, shape), length + 3 * SIDE
    pieces = no_pieces(n_groups(shape.channels) * shape.n_pieces * room * SIDE)
    sums = zeros(n_groups(shape.outputs) * _AT_ONCE * SIDE)
    for row in range(rows.shape[0]):
        take_apart(rows[row], 0, length, shape.channels, shape.n_pieces, pieces, room)
        for begin in range(0, size, _AT_ONCE):
            end = min(size, begin + _AT_ONCE)
            sum_up(pieces, room, begin, end, length, shape, weights, 0, sums, _AT_ONCE)
            _put(sums, end - begin, out, row * apart + begin * shape.outputs, bias, onto)
    configure(before)
