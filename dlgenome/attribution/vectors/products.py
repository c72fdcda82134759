"""Products of matrices by the processor's vectors, compiled.

Weights lie in panels of up to four vectors of outputs, each (channels, outputs of the panel), so that they
pass by in the order of memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dlgenome.attribution.vectors.instructions import PANEL, panel_of_sums
from dlgenome.attribution.vectors.numbers import LANES, Numbers
from dlgenome.compiled import compiled

_four, _three, _two, _one = (panel_of_sums(vectors) for vectors in (PANEL, 3, 2, 1))
BYTES_AT_ONCE = 256
"""Of a row: so many channels' weights stay in the first-level cache while all places pass by, and are summed
up one by one."""


class Factor(NamedTuple):
    """Weights: numbers of float32, or whole ones of sixteen bits (see `shorts.py`).

    Loops take its arrays out beforehand: numba counts who holds an array each time.
    """

    numbers: Any
    steps: Numbers
    """Of each output, if they are whole."""
    scales: Numbers
    """What values of each channel are multiplied with before, if they are whole."""


@compiled
def multiply(
    values: Any, value: int, apart: int, steps: Numbers, step: int, n_places: int, channels: int,
    weights: Any, weight: int, of_outputs: Numbers, of_output: int, outputs: int, sums: Numbers, place: int,
    onto: bool,
) -> None:  # fmt: skip
    """The products of places (places, ``apart`` numbers) with weights, put at ``place`` or added there.

    Values begin at ``value``, weights at ``weight``; if they are whole, the steps of places at ``step`` and
    those of outputs at ``of_output``. Sums are (places, outputs), outputs whole vectors. Places are taken six
    at a time: up to five more than asked for are read, and written, so there must be room for them.
    """
    at_once = BYTES_AT_ONCE // values.itemsize
    for first in range(0, outputs, PANEL * LANES):
        n_vectors, at = min(PANEL, (outputs - first) // LANES), weight + first * channels
        for channel in range(0, channels, at_once):
            some, used = min(at_once, channels - channel), at + channel * n_vectors * LANES
            _add_panel(
                n_vectors, values, value + channel, apart, steps, step, n_places, some, weights, used,
                of_outputs, of_output + first, sums, place + first, outputs, onto or channel > 0,
            )  # fmt: skip


@compiled
def _add_panel(
    n_vectors: int, values: Any, value: int, apart: int, steps: Numbers, step: int, n_places: int,
    channels: int, weights: Any, weight: int, of_outputs: Numbers, of_output: int, sums: Numbers, place: int,
    outputs: int, onto: bool,
) -> None:  # fmt: skip
    """Sums of one panel: the compiler has to know of how many vectors."""
    if n_vectors == PANEL:
        _four(
            values, value, apart, steps, step, n_places, channels, weights, weight, of_outputs, of_output,
            sums, place, outputs, onto,
        )  # fmt: skip
    elif n_vectors == 3:
        _three(
            values, value, apart, steps, step, n_places, channels, weights, weight, of_outputs, of_output,
            sums, place, outputs, onto,
        )  # fmt: skip
    elif n_vectors == 2:
        _two(
            values, value, apart, steps, step, n_places, channels, weights, weight, of_outputs, of_output,
            sums, place, outputs, onto,
        )  # fmt: skip
    else:
        _one(
            values, value, apart, steps, step, n_places, channels, weights, weight, of_outputs, of_output,
            sums, place, outputs, onto,
        )  # fmt: skip


@compiled
def multiply_all(
    values: Numbers, values_apart: int, n_places: int, channels: int, weights: Factor, outputs: int,
    sums: Numbers, sums_apart: int, first: int, last: int, onto: bool,
) -> None:  # fmt: skip
    """Some of several products of matrices; values and sums of one begin so many numbers after the last."""
    numbers, steps = weights.numbers, weights.steps
    for number in range(first, last):
        multiply(
            values, number * values_apart, channels, steps, 0, n_places, channels, numbers,
            number * channels * outputs, steps, 0, outputs, sums, number * sums_apart, onto,
        )  # fmt: skip
