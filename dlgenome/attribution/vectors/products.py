"""Products of matrices by the processor's vectors, compiled.

Weights lie in panels of up to four vectors of outputs, each (channels, outputs of the panel), so that they
pass by in the order of memory.
"""

from __future__ import annotations

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
                n_vectors, values, value + channel, apart, n_places, some, weights, used, sums,
                place + first, outputs, onto or channel > 0,
            )  # fmt: skip


@compiled
def _add_panel(
    n_vectors: int, values: Numbers, value: int, apart: int, n_places: int, channels: int, weights: Numbers,
    weight: int, sums: Numbers, place: int, outputs: int, onto: bool,
) -> None:  # fmt: skip
    if n_vectors == PANEL:
        _four(values, value, apart, n_places, channels, weights, weight, sums, place, outputs, onto)
    elif n_vectors == 3:
        _three(values, value, apart, n_places, channels, weights, weight, sums, place, outputs, onto)
    elif n_vectors == 2:
        _two(values, value, apart, n_places, channels, weights, weight, sums, place, outputs, onto)
    else:
        _one(values, value, apart, n_places, channels, weights, weight, sums, place, outputs, onto)


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
