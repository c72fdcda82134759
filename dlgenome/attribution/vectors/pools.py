"""Maxima over windows of positions by the processor's vectors, compiled.

Channels are last, sixteen of them at a time from the first position of a window to the last, with all that is
found in registers. Positions are counted in float32 numbers, which know each one below 2^24.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlgenome.attribution.vectors.choices import (
    chosen,
    either,
    first_of,
    is_equal,
    is_larger,
    is_larger_or_none,
    is_no_number,
    load_some,
    store_some,
)
from dlgenome.attribution.vectors.numbers import (
    LANES,
    Numbers,
    all_of,
    at_least,
    at_most,
    fetch,
    minus,
    over,
    plus,
    size_of,
    times,
)
from dlgenome.compiled import compiled, compiled_in_place

Places = NDArray[np.int32]
MOST_POSITIONS = 1 << 24
_ZERO, _ONE, _LEAST = np.float32(0), np.float32(1), np.finfo(np.float32).tiny
_LOWEST = np.float32(-np.inf)
_AHEAD = 6
"""Windows that are asked for early: sixteen channels of each of their positions are no stretch of memory."""


class Windows(NamedTuple):
    """Where the windows of a pool over positions lie, and whether a ReLU comes before it."""

    width: int
    stride: int
    padding: int
    dilation: int
    after_relu: bool = False

    @property
    def side_by_side(self) -> bool:
        """Whether no position is in two windows, and none is between two."""
        return self.stride == self.width and self.dilation == 1


@compiled
def maxima(rows: Numbers, channels: int, windows: Windows, top: Numbers, place: Places) -> None:
    """The maximum of each window of rows, (rows, positions * channels), and where it is."""
    positions = rows.shape[1] // channels
    for row in range(rows.shape[0]):
        values, best, at = rows[row], top[row], place[row]
        for window in range(top.shape[1] // channels):
            for channel in range(0, channels, LANES):
                which, to = first_of(min(LANES, channels - channel)), window * channels + channel
                high, there = _maximum(values, positions, channels, channel, which, window, windows)
                store_some(best, to, which, high)
                store_some(at, to, which, there)


@compiled
def back(
    x: Numbers,
    top_x: Numbers,
    at_x: Places,
    r: Numbers,
    m: Numbers,
    channels: int,
    windows: Windows,
    out: Numbers,
) -> None:
    """Every window's multiplier to the position that made its difference; pairs of one sequence.

    ``out`` may hold anything, and be ``r`` where windows are side by side.
    """
    positions, n_windows = r.shape[1] // channels, m.shape[1] // channels
    side_by_side = windows.stride == windows.width and windows.dilation == 1
    covered = min(positions, n_windows * windows.stride - windows.padding) if side_by_side else 0
    for pair in range(r.shape[0]):
        values, made, above = r[pair], out[pair], m[pair]
        made[covered * channels :] = _ZERO
        for window in range(n_windows):
            for channel in range(0, channels, LANES):
                which, at = first_of(min(LANES, channels - channel)), window * channels + channel
                top, there = _maximum(values, positions, channels, channel, which, window, windows)
                high, place = load_some(top_x, at, which), load_some(at_x, at, which)
                winner = chosen(is_larger_or_none(top, high), there, place)
                own = _at_winner(x, positions, channels, channel, which, window, windows, winner)
                other = _at_winner(values, positions, channels, channel, which, window, windows, winner)
                still = chosen(is_equal(place, there), all_of(_ONE), all_of(_ZERO))
                share = _share(minus(high, top), still, own, other, load_some(above, at, which), windows)
                _give(made, positions, channels, channel, which, window, windows, side_by_side, winner, share)


@compiled_in_place
def _seen(value: Any, windows: Windows) -> Any:
    """What the maximum is taken of; what is no number stays so."""
    zero = all_of(_ZERO)
    return chosen(is_larger_or_none(value, zero), value, zero) if windows.after_relu else value


@compiled_in_place
def _maximum(
    values: Numbers, positions: int, channels: int, channel: int, which: Any, window: int, windows: Windows
) -> Any:
    """The maximum of one window, sixteen channels, and where it is; the first of equal ones."""
    first = window * windows.stride - windows.padding
    inside = first
    while inside < 0:
        inside += windows.dilation
    best, at = all_of(_LOWEST), all_of(np.float32(inside))
    for step in range(windows.width):
        position = first + step * windows.dilation
        if 0 <= position < positions:
            fetch(values, (position + _AHEAD * windows.stride) * channels + channel)
            value = _seen(load_some(values, position * channels + channel, which), windows)
            # what is no number stays, as in torch
            larger = either(is_larger(value, best), is_no_number(value, value))
            best, at = chosen(larger, value, best), chosen(larger, all_of(np.float32(position)), at)
    return best, at


@compiled_in_place
def _at_winner(
    values: Numbers, positions: int, channels: int, channel: int, which: Any, window: int, windows: Windows,
    winner: Any,
) -> Any:  # fmt: skip
    """The values at the position that won."""
    found = all_of(_ZERO)
    for step in range(windows.width):
        position = window * windows.stride - windows.padding + step * windows.dilation
        if 0 <= position < positions:
            wins = is_equal(winner, all_of(np.float32(position)))
            found = chosen(wins, load_some(values, position * channels + channel, which), found)
    return found


@compiled_in_place
def _share(rise: Any, still: Any, own: Any, other: Any, above: Any, windows: Windows) -> Any:
    """What the winner of a window gets of the multiplier above."""
    part = over(rise, minus(_seen(own, windows), _seen(other, windows)))
    share = times(chosen(is_equal(rise, all_of(_ZERO)), still, part), above)
    return times(share, _relu_secant(own, other)) if windows.after_relu else share


@compiled_in_place
def _relu_secant(a: Any, b: Any) -> Any:
    """As :func:`dlgenome.attribution.slopes.relu_slope`."""
    width = at_least(all_of(_LEAST), size_of(minus(a, b)))
    slope = over(chosen(is_larger(a, b), a, b), width)
    return at_least(all_of(_ZERO), at_most(all_of(_ONE), slope))


@compiled_in_place
def _give(
    made: Numbers, positions: int, channels: int, channel: int, which: Any, window: int, windows: Windows,
    side_by_side: bool, winner: Any, share: Any,
) -> None:  # fmt: skip
    """Put its share where a window's winner is, and nothing elsewhere; or add it there."""
    for step in range(windows.width):
        position = window * windows.stride - windows.padding + step * windows.dilation
        if 0 <= position < positions:
            at = position * channels + channel
            fetch(made, at + _AHEAD * windows.stride * channels)
            part = chosen(is_equal(winner, all_of(np.float32(position))), share, all_of(_ZERO))
            store_some(made, at, which, part if side_by_side else plus(load_some(made, at, which), part))
