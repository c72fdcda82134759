"""What towers of residual layers are made of, whatever multiplies for them, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    n_pieces: int
    """Of all values and weights on this way."""
    width: Integers
    """Positions that it makes."""
    start: Integers
    """The first of them among those of the layer before."""
    padding: Integers
    dilation: Integers
    taps: Integers
    weight: Integers
    """Where its weights begin."""
    record: Integers
    """Where its c begins in a record."""


def laid_out(
    layers: Sequence[Layer], channels: int, n_pieces: int, packed: Sequence[Tensor]
) -> tuple[Layers, Tensor]:
    """The layers on one way, and their packed weights one after the other."""
    numbers = Layers(
        n_pieces=n_pieces,
        width=np.array([layer.width for layer in layers]),
        start=np.array([layer.start for layer in layers]),
        padding=np.array([layer.padding for layer in layers]),
        dilation=np.array([layer.dilation for layer in layers]),
        taps=np.array([layer.taps for layer in layers]),
        weight=_begins([len(part) for part in packed]),
        record=_begins([layer.width * channels for layer in layers]),
    )
    return numbers, torch.cat(list(packed))


def _begins(sizes: Sequence[int]) -> Integers:
    return np.array([0, *accumulate(sizes[:-1])])


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
