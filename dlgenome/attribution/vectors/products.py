"""Products of matrices by the processor's vectors, compiled.

Weights lie in panels of up to four vectors of outputs, each (channels, outputs of the panel), so that they
pass by in the order of memory.
"""

from __future__ import annotations

from typing import Any

from dlgenome.attribution.vectors.instructions import PANEL, panel_of_sums
from dlgenome.attribution.vectors.numbers import LANES, Numbers
from dlgenome.compiled import compiled

_four, _three, _two, _one = (panel_of_sums(vectors) for vectors in (PANEL, 3, 2, 1))
_AT_ONCE = 64
"""Channels whose weights stay in the first-level cache while all places pass by, and that are summed up one
by one."""


@compiled
def multiply(
    values: Numbers, value: int, apart: int, n_places: int, channels: int, weights: Numbers, weight: int,
    outputs: int, sums: Numbers, place: int, onto: bool,
) -> None:  # fmt: skip
    """The products of places (places, ``apart`` numbers) with weights, put at ``place`` or added there.

    Sums are (places, outputs), outputs whole vectors. Places are taken six at a time: up to five more than
    asked for are read, and written, so there must be room for them.
    """
    for first in range(0, outputs, PANEL * LANES):
        n_vectors, at = min(PANEL, (outputs - first) // LANES), weight + first * channels
        for channel in range(0, channels, _AT_ONCE):
            some, used = min(_AT_ONCE, channels - channel), at + channel * n_vectors * LANES
            _add_panel(
                n_vectors, values, value + channel, apart, n_places, 1, 0, some, weights, used, sums,
                place + first, outputs, onto or channel > 0,
            )  # fmt: skip


@compiled
def convolve(
    values: Any, value: int, n_places: int, taps: int, tap_apart: int, channels: int, weights: Any,
    weight: int, outputs: int, sums: Numbers, place: int,
) -> None:  # fmt: skip
    """The sums of all taps at places of one line of values, whose first tap sees what ``value`` begins.

    Weights are (panels, taps, channels, outputs of a panel); else all is as in :func:`multiply`.
    """
    for first in range(0, outputs, PANEL * LANES):
        n_vectors = min(PANEL, (outputs - first) // LANES)
        _add_panel(
            n_vectors, values, value, channels, n_places, taps, tap_apart, channels, weights,
            weight + first * taps * channels, sums, place + first, outputs, False,
        )  # fmt: skip


@compiled
def _add_panel(
    n_vectors: int, values: Any, value: int, apart: int, n_places: int, taps: int, tap_apart: int,
    channels: int, weights: Any, weight: int, sums: Numbers, place: int, outputs: int, onto: bool,
) -> None:  # fmt: skip
    """Sums of one panel: the compiler has to know of how many vectors."""
    if n_vectors == PANEL:
        _four(
            values, value, apart, n_places, taps, tap_apart, channels, weights, weight, sums, place, outputs,
            onto,
        )  # fmt: skip
    elif n_vectors == 3:
        _three(
            values, value, apart, n_places, taps, tap_apart, channels, weights, weight, sums, place, outputs,
            onto,
        )  # fmt: skip
    elif n_vectors == 2:
        _two(
            values, value, apart, n_places, taps, tap_apart, channels, weights, weight, sums, place, outputs,
            onto,
        )  # fmt: skip
    else:
        _one(
            values, value, apart, n_places, taps, tap_apart, channels, weights, weight, sums, place, outputs,
            onto,
        )  # fmt: skip


@compiled
def multiply_all(
    values: Numbers, values_apart: int, n_places: int, channels: int, weights: Numbers, outputs: int,
    sums: Numbers, sums_apart: int, first: int, last: int, onto: bool,
) -> None:  # fmt: skip
    """Some of several products of matrices; values and sums of one begin so many numbers after the last."""
    for number in range(first, last):
        multiply(
            values, number * values_apart, channels, n_places, channels, weights,
            number * channels * outputs, outputs, sums, number * sums_apart, onto,
        )  # fmt: skip
