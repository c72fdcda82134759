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
N_SEEN, N_MADE = 6, 4
"""Places that a tile looks at, and outputs that it has."""


class Tiles(NamedTuple):
    """Some tiles of a row: four outputs each, ``dilation`` places apart."""

    first: int
    last: int
    at: int
    """Where the first of them is among the tiles of several rows."""
    dilation: int


@compiled
def _four(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    """The sum of four pieces, each times its factor; the first begins at ``a``, the others at steps."""
    p, q, r, s = by[0], by[1], by[2], by[3]
    b, c, d = a + step, a + step + step, a + step + step + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = (p * of[a + i] + q * of[b + i]) + (r * of[c + i] + s * of[d + i])


@compiled
def _five(out: Numbers, o: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers) -> None:
    """The sum of five."""
    p, q, r, s, t = by[0], by[1], by[2], by[3], by[4]
    b, c, d = a + step, a + step + step, a + step + step + step
    e = d + step
    for number in range(size):
        i = np.uint64(number)
        out[o + i] = (p * of[a + i] + q * of[b + i]) + (r * of[c + i] + s * of[d + i]) + t * of[e + i]


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
def _combine(
    out: Numbers, o: Offset, apart: Offset, of: Numbers, a: Offset, step: Offset, size: int, by: Numbers
) -> None:
    """The six combinations of what lies at ``a`` and five more steps, ``apart`` in ``out``."""
    _five(out, o, of, a, step, size, by[0])
    for point in range(1, N_SEEN - 1):
        _four(out, o + np.uint64(point) * apart, of, a + step, step, size, by[point, 1:])
    _five(out, o + np.uint64(N_SEEN - 1) * apart, of, a + step, step, size, by[N_SEEN - 1, 1:])


@compiled
def _copy_seen(row: Numbers, seen: Numbers, place: int, dilation: int, run: int, channels: int) -> None:
    """What tiles look at, one piece after the other; zeros before the row and after it."""
    size, length = run * channels, row.size // channels
    for look in range(N_SEEN):
        start = place + look * dilation
        inside = 0 <= start < length
        for number in range(size):
            to = look * size + number
            seen[to] = row[start * channels + number] if inside else np.float32(0)


@compiled
def _run_length(place: int, n_places: int, length: int, tiles: Tiles, tile: int, most: int) -> int:
    """How many tiles from here on lie side by side, with the same of their places inside the row."""
    run = min(tiles.last - tile, tiles.dilation - tile % tiles.dilation, most)
    for number in range(n_places):
        there = place + number * tiles.dilation
        if there < 0:
            run = min(run, -there)
        elif there < length:
            run = min(run, length - there)
    return run


@compiled
def spread(
    row: Numbers, channels: int, out: Numbers, widths: tuple[int, int, int], factors: Numbers, tiles: Tiles,
    begin: int, seen: Numbers,
) -> None:  # fmt: skip
    """Combinations of the six places that every tile looks at, the first tile from place ``begin`` on.

    ``out`` is (6, tiles, columns); ``widths`` are the numbers in a sixth of it, its columns, and the first of
    the columns that are written. ``seen`` has room for six pieces.
    """
    length, dilation = row.size // channels, tiles.dilation
    apart, width, column = widths
    most = max(1, PIECE // channels) if width == channels else 1
    tile = tiles.first
    while tile < tiles.last:
        place = begin + N_MADE * dilation * (tile // dilation) + tile % dilation
        run = _run_length(place, N_SEEN, length, tiles, tile, most)
        size = run * channels
        o = np.uint64((tiles.at + tile - tiles.first) * width + column)
        if place >= 0 and place + (N_SEEN - 1) * dilation < length:
            a, step = np.uint64(place * channels), np.uint64(dilation * channels)
            _combine(out, o, np.uint64(apart), row, a, step, size, factors)
        else:
            _copy_seen(row, seen, place, dilation, run, channels)
            _combine(out, o, np.uint64(apart), seen, np.uint64(0), np.uint64(size), size, factors)
        tile += run


@compiled
def gather(
    row: Numbers, channels: int, made: Numbers, widths: tuple[int, int], factors: Numbers, tiles: Tiles,
    bias: Numbers, spare: Numbers, onto: bool,
) -> None:  # fmt: skip
    """The four outputs of every tile from its six products, and the bias, written or added to the row.

    ``made`` is (6, tiles, columns); ``widths`` are the numbers in a sixth of it, and its columns. ``bias`` is
    as long as a piece, or empty, and ``spare`` has room for one.
    """
    length, dilation = row.size // channels, tiles.dilation
    apart, width = np.uint64(widths[0]), widths[1]
    most = max(1, PIECE // channels) if width == channels else 1
    tile = tiles.first
    while tile < tiles.last:
        place = N_MADE * dilation * (tile // dilation) + tile % dilation
        run = _run_length(place, N_MADE, length, tiles, tile, most)
        size, a = run * channels, np.uint64((tiles.at + tile - tiles.first) * width)
        for output in range(N_MADE):
            if place >= length:
                break
            o = np.uint64(place * channels)
            if output == 0:
                _five(spare, np.uint64(0), made, a, apart, size, factors[0])
            elif output == N_MADE - 1:
                _five(spare, np.uint64(0), made, a + apart, apart, size, factors[output, 1:])
            else:
                _four(spare, np.uint64(0), made, a + apart, apart, size, factors[output, 1:])
            if onto:
                _add_sum(row, o, spare, bias, size)
            else:
                _sum(row, o, spare, bias, size)
            place += dilation
        tile += run
