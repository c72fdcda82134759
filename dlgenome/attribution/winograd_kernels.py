"""The passes before and after the products of matrices that stand for a convolution, compiled.

Arrays are flat, and what lies in them is found by offsets: where pieces are short, making views of them would
take longer than working on them. Offsets are unsigned, for those are not looked at for counting from the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled

Numbers = NDArray[np.float32]
Offset = np.uint64
PIECE = 4096
"""Numbers that are worked on at once; those of all arrays of a pass stay in the first-level cache."""


class Lot(NamedTuple):
    """Some tiles of some rows: a few outputs each, ``dilation`` places apart."""

    top: int
    bottom: int
    first: int
    last: int
    beyond: int
    """Tiles after the last that weights look at which are not the first."""
    dilation: int
    n_outputs: int


@compiled
def _place(tile: int, lot: Lot) -> int:
    """The first output of a tile."""
    return lot.n_outputs * lot.dilation * (tile // lot.dilation) + tile % lot.dilation


@compiled
def _two(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    """The sum of two pieces, each times its factor; the first begins at ``a``, the other a step further."""
    p, q = by[0], by[1]
    b = a + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = p * of[a + i] + q * of[b + i]


@compiled
def _three(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    p, q, r = by[0], by[1], by[2]
    b, c = a + step, a + step + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = (p * of[a + i] + q * of[b + i]) + r * of[c + i]


@compiled
def _four(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    p, q, r, s = by[0], by[1], by[2], by[3]
    b, c, d = a + step, a + step + step, a + step + step + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = (p * of[a + i] + q * of[b + i]) + (r * of[c + i] + s * of[d + i])


@compiled
def _five(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    p, q, r, s, t = by[0], by[1], by[2], by[3], by[4]
    b, c, d = a + step, a + step + step, a + step + step + step
    e = d + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = (p * of[a + i] + q * of[b + i]) + (r * of[c + i] + s * of[d + i]) + t * of[e + i]


@compiled
def _six(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    p, q, r, s, t, u = by[0], by[1], by[2], by[3], by[4], by[5]
    b, c, d = a + step, a + step + step, a + step + step + step
    e, f = d + step, d + step + step
    for number in range(size):
        i = np.uint64(number)
        first = (p * of[a + i] + q * of[b + i]) + (r * of[c + i] + s * of[d + i])
        out[o + i] = first + (t * of[e + i] + u * of[f + i])


@compiled
def _combine(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    """The sum of pieces that lie steps apart, each times its factor; the outer ones may be zero."""
    first, last = 0, by.size
    while by[first] == 0:
        first += 1
    while by[last - 1] == 0:
        last -= 1
    factors, a = by[first:], a + np.uint64(first) * step
    if last - first == 2:
        _two(out, o, of, a, step, size, factors)
    elif last - first == 3:
        _three(out, o, of, a, step, size, factors)
    elif last - first == 4:
        _four(out, o, of, a, step, size, factors)
    elif last - first == 5:
        _five(out, o, of, a, step, size, factors)
    else:
        _six(out, o, of, a, step, size, factors)


@compiled
def _add_sum(total: Numbers, o: Offset, value: Numbers, other: Numbers, size: int) -> None:
    for number in range(size):
        i = np.uint64(number)
        total[o + i] += value[i] + other[i]


@compiled
def _sum(out: Numbers, o: Offset, value: Numbers, other: Numbers, size: int) -> None:
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = value[i] + other[i]


@compiled
def _copy_seen(
    row: Numbers, seen: Numbers, place: int, n_seen: int, dilation: int, run: int, channels: int
) -> None:
    """What tiles look at, one piece after the other; zeros before the row and after it."""
    size, length = run * channels, row.size // channels
    for look in range(n_seen):
        start = place + look * dilation
        inside = 0 <= start < length
        for number in range(size):
            to = look * size + number
            seen[to] = row[start * channels + number] if inside else np.float32(0)


@compiled
def _run_length(place: int, n_places: int, length: int, lot: Lot, tile: int, end: int, most: int) -> int:
    """How many tiles from here on lie side by side, with the same of their places inside the row."""
    run = min(end - tile, lot.dilation - tile % lot.dilation, most)
    for number in range(n_places):
        there = place + number * lot.dilation
        if there < 0:
            run = min(run, -there)
        elif there < length:
            run = min(run, length - there)
    return run


@compiled
def spread(
    rows: Numbers, channels: int, lot: Lot, padding: int, factors: Numbers, out: Numbers, room: int,
    seen: Numbers,
) -> None:  # fmt: skip
    """Combinations of the places that every tile looks at, of each row one tile after the other.

    ``rows`` are (rows, places * channels), ``factors`` (combinations, places), and ``out`` is (combinations,
    room, channels). ``seen`` has room for a piece of every place.
    """
    o, apart, most, n_seen = 0, room * channels, max(1, PIECE // channels), factors.shape[1]
    length, dilation, end = rows.shape[1] // channels, lot.dilation, lot.last + lot.beyond
    for number in range(lot.top, lot.bottom):
        row, tile = rows[number], lot.first
        while tile < end:
            place = _place(tile, lot) - padding
            run = _run_length(place, n_seen, length, lot, tile, end, most)
            source, a, step, size = row, place * channels, dilation * channels, run * channels
            if place < 0 or place + (n_seen - 1) * dilation >= length:
                _copy_seen(row, seen, place, n_seen, dilation, run, channels)
                source, a, step = seen, 0, size
            for point in range(len(factors)):
                to = np.uint64(o + point * apart)
                _combine(out, to, source, np.uint64(a), np.uint64(step), size, factors[point])
            tile, o = tile + run, o + size


@compiled
def gather(
    made: Numbers, room: int, columns: int, factors: Numbers, lot: Lot, bias: Numbers, spare: Numbers,
    out: Numbers, apart: int, length: int, channels: int, onto: bool,
) -> None:  # fmt: skip
    """The outputs of every tile from its products, and the bias, written or added to rows ``apart``.

    ``made`` is (products, room, columns), ``factors`` are (outputs, products), and a row is (length,
    channels). ``bias`` is as long as a piece, ``spare`` has room for one.
    """
    most = max(1, PIECE // channels) if columns == channels else 1
    step = np.uint64(room * columns)
    for row in range(lot.top, lot.bottom):
        a, tile = (row - lot.top) * (lot.last + lot.beyond - lot.first) * columns, lot.first
        while tile < lot.last:
            place = _place(tile, lot)
            run = _run_length(place, lot.n_outputs, length, lot, tile, lot.last, most)
            size = run * channels
            for output in range(lot.n_outputs):
                if place >= length:
                    break
                _combine(spare, np.uint64(0), made, np.uint64(a), step, size, factors[output])
                o = np.uint64(row * apart + place * channels)
                if onto:
                    _add_sum(out, o, spare, bias, size)
                else:
                    _sum(out, o, spare, bias, size)
                place += lot.dilation
            tile, a = tile + run, a + run * columns
