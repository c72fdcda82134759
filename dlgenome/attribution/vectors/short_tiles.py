"""Tiles of four outputs of six products, in whole numbers of sixteen bits, compiled.

The scheme is that for four outputs of three weights of :mod:`dlgenome.attribution.minimal_filtering`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dlgenome.attribution.minimal_filtering import FOUR_OF_THREE
from dlgenome.attribution.vectors.layers import Integers
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    all_of,
    at_least,
    load,
    minus,
    plus,
    root,
    store,
    times,
    times_plus,
)
from dlgenome.attribution.vectors.shorts import (
    GROUP,
    LEAST,
    LONGEST,
    largest_of,
    sum_of,
    unit_for,
    whole,
)
from dlgenome.compiled import compiled

LOOKS = 6
"""Places that a tile looks at, and products of it."""
_ZERO, _ONE, _FEW, _MANY = np.float32(0), np.float32(1), np.float32(1e-20), np.float32(1e30)
_HARDLY, _LEAST_STEP = np.float32(1e-12), LEAST / LONGEST
_NEAR, _FAR = (np.float32(FOUR_OF_THREE.of_products[1, point]) for point in (1, 3))
_NEAR_2, _FAR_2, _NEAR_3, _FAR_3 = _NEAR**2, _FAR**2, _NEAR**3, _FAR**3
_BOTH_2 = np.float32(-FOUR_OF_THREE.of_inputs[0, 2])


@compiled
def combine(
    row: Numbers, looks: Integers, count: int, at_once: int, channels: int, scales: Numbers, scale: int,
    out: Any, steps: Numbers, units: Numbers,
) -> None:  # fmt: skip
    """Combinations of what tiles look at, (products, tiles, channels), and their steps, (products, tiles).

    There is room for ``at_once`` tiles.
    """
    # all steps first: a processor waits for a root that it needs at once
    for number in range(count):
        units[number] = _put_squares(
            row, _seen(looks, number), channels, scales, scale, steps, number, at_once
        )
    _make_steps(count, at_once, steps, units)
    apart = at_once * channels
    for number in range(count):
        seen, step = _seen(looks, number), number
        first, second = all_of(_ONE / steps[step]), all_of(_ONE / steps[step + at_once])
        third, fourth = all_of(_ONE / steps[step + 2 * at_once]), all_of(_ONE / steps[step + 3 * at_once])
        fifth, sixth = all_of(_ONE / steps[step + 4 * at_once]), all_of(_ONE / steps[step + 5 * at_once])
        for channel in range(0, channels, GROUP):
            at, of_scale = number * channels + channel, scale + channel
            low = _combined(row, seen, channel, load(scales, of_scale))
            high = _combined(row, seen, channel + LANES, load(scales, of_scale + LANES))
            store(out, at, whole(times(low[0], first), times(high[0], first)))
            store(out, at + apart, whole(times(low[1], second), times(high[1], second)))
            store(out, at + 2 * apart, whole(times(low[2], third), times(high[2], third)))
            store(out, at + 3 * apart, whole(times(low[3], fourth), times(high[3], fourth)))
            store(out, at + 4 * apart, whole(times(low[4], fifth), times(high[4], fifth)))
            store(out, at + 5 * apart, whole(times(low[5], sixth), times(high[5], sixth)))


@compiled
def _make_steps(count: int, at_once: int, steps: Numbers, units: Numbers) -> None:
    """Steps in place of sums of squares, in squares of the tiles' units.

    A combination that is a million times shorter than others of its tile gets a step for one of that length:
    its squares may have vanished.
    """
    for number in range(0, count, LANES):
        most = load(steps, number)
        for point in range(1, LOOKS):
            most = at_least(most, load(steps, number + point * at_once))
        least, unit = times(most, all_of(_HARDLY)), times(load(units, number), all_of(_ONE / LONGEST))
        for point in range(LOOKS):
            at = number + point * at_once
            store(steps, at, at_least(times(root(plus(load(steps, at), least)), unit), all_of(_LEAST_STEP)))


@compiled
def _seen(looks: Integers, tile: int) -> Any:
    """Where in the row the six places begin that a tile looks at."""
    look = LOOKS * tile
    first, second, third = looks[look], looks[look + 1], looks[look + 2]
    return first, second, third, looks[look + 3], looks[look + 4], looks[look + 5]


@compiled
def _combined(row: Numbers, seen: Any, channel: int, by: Any) -> Any:
    """Sixteen channels of the six combinations, of numbers times ``by``."""
    first, second = times(load(row, seen[0] + channel), by), times(load(row, seen[1] + channel), by)
    third, fourth = times(load(row, seen[2] + channel), by), times(load(row, seen[3] + channel), by)
    fifth, sixth = times(load(row, seen[4] + channel), by), times(load(row, seen[5] + channel), by)
    far, near, both = all_of(-_FAR_2), all_of(-_NEAR_2), all_of(-_BOTH_2)
    even, odd = times_plus(third, far, fifth), times_plus(second, far, fourth)
    other_even, other_odd = times_plus(third, near, fifth), times_plus(second, near, fourth)
    return (
        plus(times_plus(third, both, fifth), first),
        times_plus(odd, all_of(_NEAR), even),
        times_plus(odd, all_of(-_NEAR), even),
        times_plus(other_odd, all_of(_FAR), other_even),
        times_plus(other_odd, all_of(-_FAR), other_even),
        plus(times_plus(fourth, both, sixth), second),
    )


@compiled
def four_outputs(products: Numbers, at: int, apart: int) -> Any:
    """The outputs of a tile, sixteen channels of each."""
    second, third = load(products, at + apart), load(products, at + 2 * apart)
    fourth, fifth = load(products, at + 3 * apart), load(products, at + 4 * apart)
    near, far = plus(second, third), plus(fourth, fifth)
    near_odd, far_odd = minus(second, third), minus(fourth, fifth)
    return (
        plus(load(products, at), plus(near, far)),
        times_plus(far_odd, all_of(_FAR), times(near_odd, all_of(_NEAR))),
        times_plus(far, all_of(_FAR_2), times(near, all_of(_NEAR_2))),
        times_plus(
            far_odd,
            all_of(_FAR_3),
            times_plus(near_odd, all_of(_NEAR_3), load(products, at + 5 * apart)),
        ),
    )


@compiled
def _put_squares(
    row: Numbers, seen: Any, channels: int, scales: Numbers, scale: int, sums: Numbers, at: int, apart: int
) -> Any:
    """The sums of squares of the six combinations, and the unit in whose squares they are."""
    total = _put_squares_in(_ONE, row, seen, channels, scales, scale, sums, at, apart)
    if _FEW < total < _MANY or np.isnan(total):
        return _ONE
    largest = LEAST
    for place in seen:
        largest = max(largest, largest_of(row, place, channels, scales, scale))
    unit = unit_for(largest)
    _put_squares_in(unit, row, seen, channels, scales, scale, sums, at, apart)
    return unit


@compiled
def _put_squares_in(
    unit: Any, row: Numbers, seen: Any, channels: int, scales: Numbers, scale: int, sums: Numbers, at: int,
    apart: int,
) -> Any:  # fmt: skip
    """Put the sums of squares, in squares of a unit; all together."""
    first = second = third = fourth = fifth = sixth = all_of(_ZERO)
    finer = all_of(_ONE / unit)
    for channel in range(0, channels, LANES):
        made = _combined(row, seen, channel, times(load(scales, scale + channel), finer))
        first, second = times_plus(made[0], made[0], first), times_plus(made[1], made[1], second)
        third, fourth = times_plus(made[2], made[2], third), times_plus(made[3], made[3], fourth)
        fifth, sixth = times_plus(made[4], made[4], fifth), times_plus(made[5], made[5], sixth)
    one, two, three = sum_of(first), sum_of(second), sum_of(third)
    four, five, six = sum_of(fourth), sum_of(fifth), sum_of(sixth)
    sums[at], sums[at + apart], sums[at + 2 * apart] = one, two, three
    sums[at + 3 * apart], sums[at + 4 * apart], sums[at + 5 * apart] = four, five, six
    return one + two + three + four + five + six
