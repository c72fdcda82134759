"""The passes before and after the products of matrices that stand for a convolution, compiled.

Values lie in memory as (places, channels), channels closest together. A loop over numbers writes one array:
of more, the compiler would have to know that they do not overlap, and would not use vector instructions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled

Numbers = NDArray[np.float32]
PIECE = 4096
"""Numbers that are worked on at once; those of all arrays of a pass stay in the first-level cache."""


class Tiles(NamedTuple):
    """Some tiles of a row: four outputs each, ``dilation`` apart."""

    first: int
    last: int
    at: int
    """Where the first of them is among the tiles of several rows."""
    dilation: int


@compiled
def _four(out: Numbers, a: Numbers, b: Numbers, c: Numbers, d: Numbers, by: Numbers) -> None:
    """The sum of four, each times its factor."""
    p, q, r, s = by[0], by[1], by[2], by[3]
    for i in range(out.size):
        out[i] = (p * a[i] + q * b[i]) + (r * c[i] + s * d[i])


@compiled
def _five(out: Numbers, a: Numbers, b: Numbers, c: Numbers, d: Numbers, e: Numbers, by: Numbers) -> None:
    """The sum of five, each times its factor."""
    p, q, r, s, t = by[0], by[1], by[2], by[3], by[4]
    for i in range(out.size):
        out[i] = (p * a[i] + q * b[i]) + (r * c[i] + s * d[i]) + t * e[i]


@compiled
def _add(total: Numbers, value: Numbers) -> None:
    for i in range(total.size):
        total[i] += value[i]


@compiled
def _seen(row: Numbers, zeros: Numbers, place: int, run: int) -> Numbers:
    """The row's numbers at some places; zeros before its first and after its last."""
    inside = 0 <= place < row.shape[0]
    return row[place : place + run].reshape(-1) if inside else zeros[: run * row.shape[1]]


@compiled
def _run_length(place: int, looks: int, length: int, tiles: Tiles, tile: int, most: int) -> int:
    """How many tiles from here on lie side by side, with the same of their places inside the row."""
    run = min(tiles.last - tile, tiles.dilation - tile % tiles.dilation, most)
    for look in range(looks):
        seen = place + look * tiles.dilation
        if seen < 0:
            run = min(run, -seen)
        elif seen < length:
            run = min(run, length - seen)
    return run


@compiled
def spread(
    row: Numbers,
    zeros: Numbers,
    out: Numbers,
    factors: Numbers,
    tiles: Tiles,
    begin: int,
    part: int,
    points: int,
) -> None:
    """Combinations of the six places that every tile looks at, the first tile from place ``begin`` on.

    ``row`` is (places, channels), ``out`` (6, tiles, parts * channels). Of the sixth combination nothing is
    made where ``points`` is five.
    """
    length, channels = row.shape
    width, dilation = out.shape[2], tiles.dilation
    most = max(1, PIECE // channels) if width == channels else 1
    tile = tiles.first
    while tile < tiles.last:
        place = begin + 4 * dilation * (tile // dilation) + tile % dilation
        run = _run_length(place, 6, length, tiles, tile, most)
        start = (tiles.at + tile - tiles.first) * width + part * channels
        end = start + run * channels
        a = _seen(row, zeros, place, run)
        b = _seen(row, zeros, place + dilation, run)
        c = _seen(row, zeros, place + 2 * dilation, run)
        d = _seen(row, zeros, place + 3 * dilation, run)
        e = _seen(row, zeros, place + 4 * dilation, run)
        _five(out[0].reshape(-1)[start:end], a, b, c, d, e, factors[0])
        for point in range(1, 5):
            _four(out[point].reshape(-1)[start:end], b, c, d, e, factors[point, 1:])
        if points > 5:
            f = _seen(row, zeros, place + 5 * dilation, run)
            _five(out[5].reshape(-1)[start:end], b, c, d, e, f, factors[5, 1:])
        tile += run


@compiled
def gather(row: Numbers, made: Numbers, spare: Numbers, factors: Numbers, tiles: Tiles, onto: bool) -> None:
    """The four outputs of every tile from its six products, written or added to the row.

    ``row`` is (places, channels), ``made`` (6, tiles, channels or more); ``spare`` has room for a piece.
    """
    length, channels = row.shape
    width = made.shape[2]
    most = max(1, PIECE // channels) if width == channels else 1
    tile = tiles.first
    while tile < tiles.last:
        place = 4 * tiles.dilation * (tile // tiles.dilation) + tile % tiles.dilation
        run = _run_length(place, 4, length, tiles, tile, most)
        start = (tiles.at + tile - tiles.first) * width
        end = start + run * channels
        a, b, c = (
            made[0].reshape(-1)[start:end],
            made[1].reshape(-1)[start:end],
            made[2].reshape(-1)[start:end],
        )
        d, e, f = (
            made[3].reshape(-1)[start:end],
            made[4].reshape(-1)[start:end],
            made[5].reshape(-1)[start:end],
        )
        for output in range(4):
            if place >= length:
                break
            total = row[place : place + run].reshape(-1)
            result = spare[: total.size] if onto else total
            if output == 0:
                _five(result, a, b, c, d, e, factors[0])
            elif output == 3:
                _five(result, b, c, d, e, f, factors[3, 1:])
            else:
                _four(result, b, c, d, e, factors[output, 1:])
            if onto:
                _add(total, result)
            place += tiles.dilation
        tile += run
