"""Tiles of a few outputs, ``dilation`` places apart, and what they look at, compiled.

Kernels of three weights make two outputs of four products (see `minimal_filtering.py`) of what four places
hold. Where weights are whole numbers of sixteen bits, so are these, and make four of six.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlgenome.attribution.vectors.layers import Integers
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    load,
    minus,
    plus,
    store,
    zeros,
)
from dlgenome.attribution.vectors.products import Factor, multiply
from dlgenome.attribution.vectors.short_tiles import combine
from dlgenome.attribution.vectors.shorts import holds_shorts
from dlgenome.compiled import compiled

TILES = 48
"""That are worked on at once, in the nearest caches."""
_MOST_LOOKS = 6


class Tiles(NamedTuple):
    """Some that follow one another."""

    outputs: Integers
    """The place of the first output of each."""
    looks: Integers
    """Where in the row the places begin that each looks at."""
    combined: Any
    """These combined for the products, (products, tiles, channels)."""
    steps: Numbers
    """Of each of these, if they are whole numbers, (products, tiles)."""
    units: Numbers
    """Of each tile, in whose squares lengths are added up."""
    products: Numbers
    """(products, tiles, channels)."""


@compiled
def room_for_tiles(channels: int, weights: Factor) -> Tiles:
    """For as many as are worked on at once."""
    size = _MOST_LOOKS * TILES * channels
    outputs, looks = np.empty(TILES, np.int64), np.empty(TILES * _MOST_LOOKS, np.int64)
    combined, steps = zeros(size).view(weights.numbers.dtype), zeros(_MOST_LOOKS * TILES)
    return Tiles(outputs, looks, combined, steps, zeros(TILES), zeros(size))


@compiled
def n_outputs(combined: Any) -> int:
    """Of a tile, by what its combinations are made of; of two more places, and as many products."""
    return 4 if holds_shorts(combined) else 2


@compiled
def n_tiles(width: int, dilation: int, outputs: int) -> int:
    """Tiles of so many outputs that hold so many places; the later ones of some of the last are beyond."""
    whole = outputs * dilation
    return dilation * (width // whole) + min(width % whole, dilation)


@compiled
def place_of(tile: int, dilation: int, outputs: int) -> int:
    """The first output of a tile."""
    return outputs * dilation * (tile // dilation) + tile % dilation


@compiled
def multiply_tiles(
    row: Numbers, width: int, nothing: int, first: int, count: int, padding: int, dilation: int,
    channels: int, weights: Factor, layer: int, tiles: Tiles,
) -> None:  # fmt: skip
    """The products of some tiles from ``first`` on with the weights of a layer.

    The row has ``width`` positions; ``nothing`` is where there are zeros in it.
    """
    outputs, looks, combined, steps, units, products = tiles
    numbers, of_outputs, scales = weights
    n_looks = n_outputs(combined) + 2
    _look(width, nothing, first, count, padding, dilation, channels, n_looks, outputs, looks)
    if holds_shorts(combined):
        combine(row, looks, count, TILES, channels, scales, layer * channels, combined, steps, units)
    else:
        _combine(row, looks, count, channels, combined)
    for point in range(n_looks):
        at, number = point * TILES * channels, n_looks * layer + point
        multiply(
            combined, at, channels, steps, point * TILES, count, channels, numbers,
            number * channels * channels, of_outputs, number * channels, channels, products, at, False,
        )  # fmt: skip


@compiled
def _look(
    width: int, nothing: int, first: int, count: int, padding: int, dilation: int, channels: int,
    n_looks: int, outputs: Integers, looks: Integers,
) -> None:  # fmt: skip
    n_made = n_looks - 2
    place, passed = place_of(first, dilation, n_made), first % dilation
    for number in range(count):
        outputs[number] = place
        for look in range(n_looks):
            seen = place - padding + look * dilation
            looks[n_looks * number + look] = seen * channels if 0 <= seen < width else nothing
        place, passed = place + 1, passed + 1
        if passed == dilation:
            place, passed = place + (n_made - 1) * dilation, 0


@compiled
def _combine(row: Numbers, looks: Integers, count: int, channels: int, out: Numbers) -> None:
    apart = TILES * channels
    for number in range(count):
        look = 4 * number
        a, b, c, d = looks[look], looks[look + 1], looks[look + 2], looks[look + 3]
        for channel in range(0, channels, LANES):
            at = number * channels + channel
            first, second = load(row, a + channel), load(row, b + channel)
            third, fourth = load(row, c + channel), load(row, d + channel)
            store(out, at, minus(first, third))
            store(out, at + apart, plus(second, third))
            store(out, at + 2 * apart, minus(third, second))
            store(out, at + 3 * apart, minus(second, fourth))


@compiled
def two_outputs(products: Numbers, at: int, apart: int) -> Any:
    """Both outputs of a tile, sixteen channels of each."""
    second, third = load(products, at + apart), load(products, at + 2 * apart)
    both, other = plus(second, third), minus(second, third)
    return plus(load(products, at), both), minus(other, load(products, at + 3 * apart))
