"""What towers of residual layers are made of, whatever multiplies for them, compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.kernels import as_array
from dlgenome.attribution.vectors.numbers import LANES, Numbers, all_of, at_least, fetch, load, store, times
from dlgenome.attribution.vectors.secants import AHEAD, relu_slopes
from dlgenome.compiled import compiled

Integers = NDArray[np.int64]
_ZERO, _INFINITE = np.float32(0), np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Layer:
    """``h[start:] + max(c, 0)`` for c the convolution of h, of stride 1; both have ``width`` positions."""

    width: int
    start: int
    padding: int
    dilation: int
    taps: int


class Layers(NamedTuple):
    """A number for each layer; positions are of h, of which a layer may have fewer than the one before."""

    width: Integers
    """Positions that it makes."""
    start: Integers
    """The first of them among those of the layer before."""
    padding: Integers
    dilation: Integers
    taps: Integers
    record: Integers
    """Where its c begins in a record."""


class Way(NamedTuple):
    """How the layers are passed through there, or back."""

    run: Callable[..., None]
    """The compiled pass."""
    laid_out: Callable[[Sequence[Tensor]], Any]
    """Weights (channels, channels, taps) of all layers, as the pass wants them."""


class TowerPasses:
    """Passes over rows of values (rows, positions * channels) and their records.

    Weights, of every layer, are (channels, channels, taps).
    """

    def __init__(
        self, layers: Sequence[Layer], weights: Sequence[Tensor], bias: Tensor, there: Way, back: Way
    ) -> None:
        self._channels, self._bias, self._run, self._run_back = (
            len(weights[0]),
            as_array(bias),
            there.run,
            back.run,
        )
        self._layers = Layers(
            width=np.array([layer.width for layer in layers]),
            start=np.array([layer.start for layer in layers]),
            padding=np.array([layer.padding for layer in layers]),
            dilation=np.array([layer.dilation for layer in layers]),
            taps=np.array([layer.taps for layer in layers]),
            record=begins([layer.width * self._channels for layer in layers]),
        )
        self._weights = there.laid_out(weights)
        self._turned = back.laid_out([weight.flip(2).transpose(0, 1) for weight in weights])

    def forward(self, values: Any, of_relu: bool, records: Any, out: Any) -> None:
        """The last h of each row, and its record."""
        self._run(values, of_relu, self._layers, self._channels, self._weights, self._bias, records, out)

    def backward(
        self, own: Any, records: Any, multipliers: Any, at: int, first_own: Any, first_others: Any, out: Any
    ) -> None:
        """Multipliers of the first h of the pairs of one sequence."""
        self._run_back(
            own, records, multipliers, at, self._layers, self._channels, self._turned, first_own,
            first_others, out,
        )  # fmt: skip


def begins(sizes: Sequence[int]) -> Integers:
    """Where each of several begins that follow one another."""
    return np.array([0, *accumulate(sizes[:-1])])


class LayerBack(NamedTuple):
    """A layer on the way back, in positions."""

    width: int
    """Of c."""
    seen: int
    """Of the h that it is a layer on."""
    base: int
    """The first of these among those of the first h."""
    padding: int
    """Of the convolution that goes back."""


@compiled
def layer_back(layers: Layers, number: int, length: int, first: int) -> LayerBack:
    """A layer whose c begins at ``first`` among the ``length`` positions of the first h."""
    seen = layers.width[number - 1] if number > 0 else length
    padding = layers.dilation[number] * (layers.taps[number] - 1) - layers.padding[number]
    return LayerBack(layers.width[number], seen, first - layers.start[number], padding)


@compiled
def part_of(record: Numbers, layers: Layers, number: int, channels: int) -> Numbers:
    """What a record has of one layer."""
    begin = layers.record[number]
    return record[begin : begin + layers.width[number] * channels]


@compiled
def put_among_zeros(values: Numbers, at: int, out: Numbers) -> None:
    """Values from a place on, and zeros before and after them."""
    out[:] = _ZERO
    out[at : at + values.size] = values


@compiled
def copied(values: Numbers, of_relu: bool, out: Numbers) -> None:
    """Copy the values, or their ReLU."""
    least = all_of(_ZERO if of_relu else -_INFINITE)
    for at in range(0, values.size, LANES):
        fetch(values, at + AHEAD)
        store(out, at, at_least(load(values, at), least))


@compiled
def slope_times(own: Numbers, record: Numbers, at: int, m: Numbers, first: int) -> Any:
    """Sixteen multipliers of c: those of h, which begin at ``first``, times secants of ReLU."""
    fetch(own, at + AHEAD)
    fetch(record, at + AHEAD)
    return times(load(m, first + at), relu_slopes(load(own, at), load(record, at)))
