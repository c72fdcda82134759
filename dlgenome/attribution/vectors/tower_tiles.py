"""Tiles of two outputs, ``dilation`` places apart, and what they look at, compiled.

Kernels of three weights make two outputs of four products (see `minimal_filtering.py`) of what four places
hold. Where weights are whole numbers of sixteen bits, so are these, in steps of each tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dlgenome.attribution.vectors.layers import Integers
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    all_of,
    load,
    minus,
    plus,
    store,
    times,
    times_plus,
    zeros,
)
from dlgenome.attribution.vectors.products import Factor, multiply
from dlgenome.attribution.vectors.shorts import (
    GROUP,
    LEAST,
    LONGEST,
    holds_shorts,
    is_ordinary,
    largest_of,
    sum_of,
    unit_for,
    whole,
    whole_minus,
    whole_plus,
)
from dlgenome.compiled import compiled, compiled_in_place

POINTS, LOOKS = 4, 4
"""Products of a tile, and places that it looks at."""
TILES = 48
"""That are worked on at once, in the nearest caches."""
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)


class Tiles(NamedTuple):
    """Some that follow one another."""

    outputs: Integers
    """The place of the first output of each."""
    looks: Integers
    """Where in the row the four places begin that each looks at."""
    combined: Any
    """These combined for the products, (products, tiles, channels)."""
    steps: Numbers
    """Of each, if they are whole numbers."""
    products: Numbers
    """(products, tiles, channels)."""


@compiled
def room_for_tiles(channels: int, weights: Factor) -> Tiles:
    """For as many as are worked on at once."""
    size = POINTS * TILES * channels
    outputs, looks = np.empty(TILES, np.int64), np.empty(TILES * LOOKS, np.int64)
    return Tiles(outputs, looks, zeros(size).view(weights.numbers.dtype), zeros(TILES), zeros(size))


@compiled
def n_tiles(width: int, dilation: int) -> int:
    """Tiles that hold so many places; the second output of some of the last is beyond them."""
    return dilation * (width // (2 * dilation)) + min(width % (2 * dilation), dilation)


@compiled
def place_of(tile: int, dilation: int) -> int:
    """The first output of a tile."""
    return 2 * dilation * (tile // dilation) + tile % dilation


@compiled
def multiply_tiles(
    row: Numbers, width: int, nothing: int, first: int, count: int, padding: int, dilation: int,
    channels: int, weights: Factor, layer: int, tiles: Tiles,
) -> None:  # fmt: skip
    """The products of some tiles from ``first`` on with the weights of a layer.

    The row has ``width`` positions; ``nothing`` is where there are zeros in it.
    """
    outputs, looks, combined, steps, products = tiles
    numbers, of_outputs, scales = weights
    _look(width, nothing, first, count, padding, dilation, channels, outputs, looks)
    if holds_shorts(combined):
        _combine_whole(row, looks, count, channels, scales, layer * channels, combined, steps)
    else:
        _combine(row, looks, count, channels, combined)
    for point in range(POINTS):
        at, number = point * TILES * channels, POINTS * layer + point
        multiply(
            combined, at, channels, steps, 0, count, channels, numbers, number * channels * channels,
            of_outputs, number * channels, channels, products, at, False,
        )  # fmt: skip


@compiled
def _look(
    width: int, nothing: int, first: int, count: int, padding: int, dilation: int, channels: int,
    outputs: Integers, looks: Integers,
) -> None:  # fmt: skip
    place, passed = place_of(first, dilation), first % dilation
    for number in range(count):
        outputs[number] = place
        for look in range(LOOKS):
            seen = place - padding + look * dilation
            looks[LOOKS * number + look] = seen * channels if 0 <= seen < width else nothing
        place, passed = place + 1, passed + 1
        if passed == dilation:
            place, passed = place + dilation, 0


@compiled
def _combine(row: Numbers, looks: Integers, count: int, channels: int, out: Numbers) -> None:
    apart = TILES * channels
    for number in range(count):
        look = LOOKS * number
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
def _combine_whole(
    row: Numbers, looks: Integers, count: int, channels: int, scales: Numbers, scale: int, out: Any,
    steps: Numbers,
) -> None:  # fmt: skip
    """The same in whole numbers, and their steps."""
    # all steps first: a processor waits for a root that it needs at once
    for number in range(count):
        look = LOOKS * number
        a, b, c, d = looks[look], looks[look + 1], looks[look + 2], looks[look + 3]
        steps[number] = _longest(row, a, b, c, d, channels, scales, scale) / LONGEST
    apart = TILES * channels
    for number in range(count):
        look = LOOKS * number
        a, b, c, d = looks[look], looks[look + 1], looks[look + 2], looks[look + 3]
        finer = all_of(_ONE / steps[number])
        for channel in range(0, channels, GROUP):
            at, first_scale = number * channels + channel, scale + channel
            low, high = (
                times(load(scales, first_scale), finer),
                times(load(scales, first_scale + LANES), finer),
            )
            first, second = _whole(row, a + channel, low, high), _whole(row, b + channel, low, high)
            third, fourth = _whole(row, c + channel, low, high), _whole(row, d + channel, low, high)
            store(out, at, whole_minus(first, third))
            store(out, at + apart, whole_plus(second, third))
            store(out, at + 2 * apart, whole_minus(third, second))
            store(out, at + 3 * apart, whole_minus(second, fourth))


@compiled_in_place
def _whole(row: Numbers, at: int, low: Any, high: Any) -> Any:
    return whole(times(load(row, at), low), times(load(row, at + LANES), high))


@compiled
def _longest(row: Numbers, a: int, b: int, c: int, d: int, channels: int, scales: Numbers, scale: int) -> Any:
    """A bound of the length of each combination of what begins at four places, as a vector."""
    squares = _squares(row, a, b, c, d, channels, scales, scale, _ONE)
    if is_ordinary(squares):
        return np.sqrt(_TWO * squares)
    largest = LEAST
    for at in (a, b, c, d):
        largest = max(largest, largest_of(row, at, channels, scales, scale))
    unit = unit_for(largest)
    return max(unit * np.sqrt(_TWO * _squares(row, a, b, c, d, channels, scales, scale, unit)), LEAST)


@compiled
def _squares(
    row: Numbers, a: int, b: int, c: int, d: int, channels: int, scales: Numbers, scale: int, unit: Any
) -> Any:
    """The sum of those of all four, in squares of a unit."""
    of_a = of_b = of_c = of_d = all_of(_ZERO)
    finer = all_of(_ONE / unit)
    for channel in range(0, channels, LANES):
        by = times(load(scales, scale + channel), finer)
        first, second = times(load(row, a + channel), by), times(load(row, b + channel), by)
        third, fourth = times(load(row, c + channel), by), times(load(row, d + channel), by)
        of_a, of_b = times_plus(first, first, of_a), times_plus(second, second, of_b)
        of_c, of_d = times_plus(third, third, of_c), times_plus(fourth, fourth, of_d)
    return sum_of(plus(plus(of_a, of_b), plus(of_c, of_d)))
