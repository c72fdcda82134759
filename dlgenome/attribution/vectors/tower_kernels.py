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
    minus,
    plus,
    put_by,
    store,
    zeros,
)
from dlgenome.attribution.vectors.products import Factor
from dlgenome.attribution.vectors.secants import times_slopes
from dlgenome.attribution.vectors.tower_tiles import (
    LOOKS,
    TILES,
    Tiles,
    multiply_tiles,
    n_tiles,
    place_of,
    room_for_tiles,
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
    for row in range(len(values)):
        copied(values[row], of_relu, h)
        seen = size // channels
        for number in range(n_layers):
            dilation, width = layers.dilation[number], layers.width[number]
            c, start = record[row, layers.record[number] :], layers.start[number]
            layer_bias = bias[number * channels : (number + 1) * channels]
            for tile in range(0, n_tiles(width, dilation), TILES):
                count = min(TILES, n_tiles(width, dilation) - tile)
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
    for pair in range(len(records)):
        m = out[pair]
        put_among_zeros(multipliers[pair], at * channels, m)
        first = layers.start.sum()
        for number in range(n_layers - 1, -1, -1):
            width, seen, base, padding = layer_back(layers, number, size // channels, first)
            x = part_of(own, layers, number, channels)
            r = part_of(records[pair], layers, number, channels)
            ready, dilation = 0, layers.dilation[number]
            for tile in range(0, n_tiles(seen, dilation), TILES):
                count = min(TILES, n_tiles(seen, dilation) - tile)
                # the multipliers that are still to be read are not added to yet
                wanted = place_of(tile + count - 1, dilation) + (LOOKS - 1) * dilation - padding + 1
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
def _outputs(products: Numbers, at: int, apart: int) -> Any:
    """Both outputs of a tile, sixteen channels of each."""
    second, third = load(products, at + apart), load(products, at + 2 * apart)
    both, other = plus(second, third), minus(second, third)
    return plus(load(products, at), both), minus(other, load(products, at + 3 * apart))


@compiled
def _add_relu(
    tiles: Tiles, count: int, width: int, dilation: int, bias: Numbers, h: Numbers, start: int,
    record: Numbers, out: Numbers,
) -> None:  # fmt: skip
    """The outputs of some tiles: c into the record, and h of the next layer."""
    channels, apart = bias.size, TILES * bias.size
    outputs, products = tiles.outputs, tiles.products
    for number in range(count):
        place = outputs[number]
        for channel in range(0, channels, _GROUP):
            at = number * channels + channel
            low, next_low = _outputs(products, at, apart)
            high, next_high = _outputs(products, at + LANES, apart)
            to = place * channels + channel
            _layer(low, high, bias, channel, h, to + start * channels, record, to, out)
            if place + dilation < width:
                to += dilation * channels
                _layer(next_low, next_high, bias, channel, h, to + start * channels, record, to, out)


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
    apart, outputs, products = TILES * channels, tiles.outputs, tiles.products
    for number in range(count):
        place = outputs[number]
        to, beyond = (base + place) * channels, place + dilation >= width
        for channel in range(0, channels, LANES):
            here, there = _outputs(products, number * channels + channel, apart)
            at = to + channel
            store(m, at, plus(load(m, at), here))
            if not beyond:
                at += dilation * channels
                store(m, at, plus(load(m, at), there))


@compiled
def _slopes(
    own: Numbers, record: Numbers, m: Numbers, first: int, begin: int, end: int, channels: int, out: Numbers
) -> None:
    """Multipliers of c at some positions: those of h, from ``first`` on, times secants of ReLU."""
    for at in range(begin * channels, end * channels, LANES):
        store(out, at, slope_times(own, record, at, m, first * channels))
