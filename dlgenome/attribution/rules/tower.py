"""A tower of residual layers as one operation, explained row by row while its values are in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlgenome.attribution.kernels import as_array, in_threads
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Ref, Rule
from dlgenome.attribution.rules.convolution import pieces_of
from dlgenome.attribution.tiles.kernels import ONE
from dlgenome.attribution.tiles.processor import has_tiles
from dlgenome.attribution.tiles.tower import tiled_tower
from dlgenome.attribution.vectors.layers import Layer, TowerPasses
from dlgenome.attribution.vectors.processor import has_narrow_vectors
from dlgenome.attribution.vectors.tower import vector_tower


class Tower(Rule):
    """Some layers, each of what the one before made; ReLU has its Rescale rule, all else is linear.

    Arguments are the first value, and weights (channels, channels, taps) and bias of every layer. It makes
    the last value, and a record of what every convolution made, which the way back needs. One ``of_relu``
    takes what is positive of the first value, which it needs on the way back, too. The multiplier of the
    last value may have all positions of the first.
    """

    title = "linear, rescale (piecewise linear)"
    owns_output = True
    steady = True
    fresh = True

    def __init__(self, layers: Sequence[Layer], *, narrow: bool, of_relu: bool = False) -> None:
        self.layers, self.narrow, self.of_relu = tuple(layers), narrow, of_relu

    def kept(self, call: Call) -> tuple[Ref, ...]:
        """What it makes, for the record, and what it was made of."""
        return (Ref(call.name), *(call.inputs if self.of_relu else ()))

    def record_size(self, channels: int) -> int:
        """Numbers of a row's record: what each convolution made."""
        return sum(layer.width for layer in self.layers) * channels

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for both ways."""
        return BoundTower(self, args[1::2], args[2::2])


class BoundTower(Tower):
    """A tower of known weights."""

    def __init__(self, rule: Tower, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        super().__init__(rule.layers, narrow=rule.narrow, of_relu=rule.of_relu)
        self._channels = len(weights[0])
        self._passes = _passes(rule, weights, biases)

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The last value (rows, channels, positions), channels-last in memory, and the record of each row."""
        rows = _rows(args[0])
        record = rows.new_empty(len(rows), self.record_size(self._channels))
        assert record.data_ptr() % 64 == 0, "torch aligns memory to lines of the cache"
        made = rows.new_empty(len(rows), self.layers[-1].width, self._channels)
        values, records, out = as_array(rows), as_array(record), as_array(made.flatten(1))

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            self._passes.forward(values[part], self.of_relu, records[part], out[part])

        in_threads(work, len(rows))
        return made.transpose(1, 2), record

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier of the first value, from that of the last; the record has none."""
        given = multiplier[0]
        if given is None:
            return [None]
        rows, length = _rows(given), call.input_infos[0].dims[-1]
        at = 0 if given.shape[-1] == length else sum(layer.start for layer in self.layers)
        made = rows.new_empty(len(rows), length, self._channels)
        own, others = as_array(saved.sequences[0][1]), as_array(saved.references[0][1])
        multipliers, out = as_array(rows), as_array(made.flatten(1))
        x, r = (self._first_values(kept) for kept in (saved.sequences, saved.references))

        def work(first: int, last: int) -> None:
            for sequence, pairs in saved.step.pairs_of_sequences(first, last):
                self._passes.backward(
                    own[sequence], others[pairs], multipliers[pairs], at, x[sequence], r[pairs], out[pairs]
                )

        in_threads(work, len(rows))
        return [made.transpose(1, 2)]

    def _first_values(self, kept: Sequence[Any]) -> Any:
        """Rows of what the ReLU before the first layer reads; without one they are empty."""
        if not self.of_relu:
            return np.empty((len(kept[0][1]), 0), np.float32)
        return as_array(_rows(kept[1]))


def _passes(rule: Tower, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> TowerPasses:
    """The passes over rows that the processor has registers for."""
    channels, (there, back) = len(weights[0]), pieces_of(weights[0], narrow=rule.narrow)
    bias = torch.cat([torch.zeros(channels) if bias is None else bias for bias in biases])
    if has_tiles():
        return tiled_tower(rule.layers, weights, bias, (there, back))
    return vector_tower(rule.layers, weights, bias, narrow=back == ONE and has_narrow_vectors())


def _rows(value: Tensor) -> Tensor:
    """(rows, positions * channels) of (rows, channels, positions), copied unless it is channels-last."""
    return value.transpose(1, 2).contiguous().flatten(1)
