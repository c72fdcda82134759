"""Towers of residual layers on the way there and back, row by row, by the processor's vectors, compiled.

A layer is ``c = convolution(h)``, then ``h + max(c, 0)``. All layers of one row follow one another, so that
h, and its multiplier on the way back, stay in the cache; only c of every layer is written to memory and read
again. It lies in a record, one layer after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlgenome.attribution.vectors.layers import (
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
from dlgenome.attribution.vectors.products import Factor
from dlgenome.attribution.vectors.secants import times_slopes
from dlgenome.attribution.vectors.short_tiles import four_outputs
from dlgenome.attribution.vectors.shorts import holds_shorts
from dlgenome.attribution.vectors.tower_tiles import (
    TILES,
    Tiles,
    multiply_tiles,
    n_outputs,
    n_tiles,
    place_of,
    room_for_tiles,
    two_outputs,
)
from dlgenome.compiled import compiled

_ZERO = np.float32(0)
_GROUP = 2 * LANES


@compiled
def forward_rows(
    values: Numbers, of_relu: bool, layers: Layers, channels: int, weights: Factor, bias: Numbers,
    record: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """The last h of rows of the first, (rows, positions * channels), and the record of each row.

    The first is the ReLU of the values, or these themselves.
    """
    size, n_layers = values.shape[1], layers.width.size
    h, made = zeros(size + channels), zeros(size + channels)
    tiles = room_for_tiles(channels, weights)
    at_once = n_outputs(tiles.combined)
    for row in range(len(values)):
        copied(values[row], of_relu, h)
        seen = size // channels
        for number in range(n_layers):
            dilation, width = layers.dilation[number], layers.width[number]
            c, start = record[row, layers.record[number] :], layers.start[number]
            layer_bias = bias[number * channels : (number + 1) * channels]
            all_tiles = n_tiles(width, dilation, at_once)
            for tile in range(0, all_tiles, TILES):
                count = min(TILES, all_tiles - tile)
                multiply_tiles(
                    h, seen, size, tile, count, layers.padding[number], dilation, channels, weights, number,
                    tiles,
                )  # fmt: skip
                _add_relu(tiles, count, width, dilation, layer_bias, h, start, c, made)
            h, made = made, h
            seen = width
        out[row] = h[: seen * channels]


@compiled
def backward_rows(
    own: Numbers, records: Numbers, multipliers: Numbers, at: int, layers: Layers, channels: int,
    weights: Factor, first_own: Numbers, first_others: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """Multipliers of the first h, (pairs, positions * channels), from those of the last, which begin ``at``.

    ``own`` is the record of the sequence of these pairs, ``records`` are those of their references. Where the
    first h is a ReLU, multipliers are of what it reads: ``first_own`` and ``first_others`` for these.
    """
    size, n_layers = out.shape[1], layers.width.size
    of_c = zeros(size + channels)
    tiles = room_for_tiles(channels, weights)
    at_once = n_outputs(tiles.combined)
    for pair in range(len(records)):
        m = out[pair]
        put_among_zeros(multipliers[pair], at * channels, m)
        first = layers.start.sum()
        for number in range(n_layers - 1, -1, -1):
            width, seen, base, padding = layer_back(layers, number, size // channels, first)
            x = part_of(own, layers, number, channels)
            r = part_of(records[pair], layers, number, channels)
            ready, dilation = 0, layers.dilation[number]
            all_tiles = n_tiles(seen, dilation, at_once)
            for tile in range(0, all_tiles, TILES):
                count = min(TILES, all_tiles - tile)
                # the multipliers that are still to be read are not added to yet
                last = place_of(tile + count - 1, dilation, at_once)
                wanted = last + (at_once + 1) * dilation - padding + 1
                wanted = max(ready, min(width, wanted))
                _slopes(x, r, m, first, ready, wanted, channels, of_c)
                ready = wanted
                multiply_tiles(
                    of_c, width, size, tile, count, padding, dilation, channels, weights, number, tiles
                )
                _add(tiles, count, seen, dilation, m, base, channels)
            first = base
        if first_own.size > 0:
            times_slopes(first_own, first_others[pair], m)


@compiled
def _add_relu(
    tiles: Tiles, count: int, width: int, dilation: int, bias: Numbers, h: Numbers, start: int,
    record: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """The outputs of some tiles: c into the record, and h of the next layer."""
    channels, apart, step = bias.size, TILES * bias.size, dilation * bias.size
    outputs, products, combined = tiles.outputs, tiles.products, tiles.combined
    for number in range(count):
        place = outputs[number]
        n_inside = _n_inside(place, width, dilation)
        for channel in range(0, channels, _GROUP):
            at, to = number * channels + channel, place * channels + channel
            seen = to + start * channels
            if holds_shorts(combined):
                low, high = four_outputs(products, at, apart), four_outputs(products, at + LANES, apart)
                _layer(low[0], high[0], bias, channel, h, seen, record, to, out)
                if n_inside > 1:
                    _layer(low[1], high[1], bias, channel, h, seen + step, record, to + step, out)
                if n_inside > 2:
                    _layer(low[2], high[2], bias, channel, h, seen + 2 * step, record, to + 2 * step, out)
                if n_inside > 3:
                    _layer(low[3], high[3], bias, channel, h, seen + 3 * step, record, to + 3 * step, out)
            else:
                below, above = two_outputs(products, at, apart), two_outputs(products, at + LANES, apart)
                _layer(below[0], above[0], bias, channel, h, seen, record, to, out)
                if n_inside > 1:
                    _layer(below[1], above[1], bias, channel, h, seen + step, record, to + step, out)


@compiled
def _n_inside(place: int, width: int, dilation: int) -> int:
    """Outputs of a tile that are not beyond the last place, from its first on."""
    return (width - place + dilation - 1) // dilation


@compiled
def _layer(
    low: Any, high: Any, bias: Numbers, channel: int, h: Numbers, at: int, record: Numbers, to: int,
    out: Numbers,
) -> None:  # fmt: skip
    zero = all_of(_ZERO)
    low, high = plus(low, load(bias, channel)), plus(high, load(bias, channel + LANES))
    put_by(record, to, low, high)
    store(out, to, plus(load(h, at), at_least(low, zero)))
    store(out, to + LANES, plus(load(h, at + LANES), at_least(high, zero)))


@compiled
def _add(tiles: Tiles, count: int, width: int, dilation: int, m: Numbers, base: int, channels: int) -> None:
    """Add the outputs of some tiles to multipliers."""
    apart, step = TILES * channels, dilation * channels
    outputs, products, combined = tiles.outputs, tiles.products, tiles.combined
    for number in range(count):
        place = outputs[number]
        n_inside = _n_inside(place, width, dilation)
        for channel in range(0, channels, LANES):
            at, to = number * channels + channel, (base + place) * channels + channel
            if holds_shorts(combined):
                four = four_outputs(products, at, apart)
                _add_to(m, to, four[0])
                if n_inside > 1:
                    _add_to(m, to + step, four[1])
                if n_inside > 2:
                    _add_to(m, to + 2 * step, four[2])
                if n_inside > 3:
                    _add_to(m, to + 3 * step, four[3])
            else:
                both = two_outputs(products, at, apart)
                _add_to(m, to, both[0])
                if n_inside > 1:
                    _add_to(m, to + step, both[1])


@compiled
def _add_to(m: Numbers, at: int, vector: Any) -> None:
    store(m, at, plus(load(m, at), vector))


@compiled
def _slopes(
    own: Numbers, record: Numbers, m: Numbers, first: int, begin: int, end: int, channels: int, out: Numbers
) -> None:
    """Multipliers of c at some positions: those of h, from ``first`` on, times secants of ReLU."""
    for at in range(begin * channels, end * channels, LANES):
        store(out, at, slope_times(own, record, at, m, first * channels))
