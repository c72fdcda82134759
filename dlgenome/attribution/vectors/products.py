"""Products of matrices by the processor's vectors, compiled.

Weights lie in panels of up to four vectors of outputs, each (channels, outputs of the panel), so that they
pass by in the order of memory.
"""

from __future__ import annotations

from dlgenome.attribution.vectors.instructions import PANEL, PLACES, block_of_sums
from dlgenome.attribution.vectors.numbers import LANES, Numbers
from dlgenome.compiled import compiled

_panel_of_four, _panel_of_three = block_of_sums(PANEL), block_of_sums(3)
_panel_of_two, _panel_of_one = block_of_sums(2), block_of_sums(1)


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
        for number in range(0, n_places, PLACES):
            seen, made = value + number * apart, place + number * outputs + first
            if n_vectors == PANEL:
                _panel_of_four(values, seen, apart, channels, weights, at, sums, made, outputs, onto)
            elif n_vectors == 3:
                _panel_of_three(values, seen, apart, channels, weights, at, sums, made, outputs, onto)
            elif n_vectors == 2:
                _panel_of_two(values, seen, apart, channels, weights, at, sums, made, outputs, onto)
            else:
                _panel_of_one(values, seen, apart, channels, weights, at, sums, made, outputs, onto)


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
