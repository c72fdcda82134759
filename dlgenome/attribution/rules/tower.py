"""A tower of residual layers as one operation, explained row by row while its values are in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlgenome.attribution.kernels import as_array, in_threads
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Ref, Rule
from dlgenome.attribution.rules.convolution import pieces_of
from dlgenome.attribution.tiles.convolution import packed_weights
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.tower_kernels import Layers, backward_rows, forward_rows


@dataclass(frozen=True, slots=True)
class Layer:
    """``h[start:] + max(c, 0)`` for c the convolution of h, of stride 1; both have ``width`` positions."""

    width: int
    start: int
    padding: int
    dilation: int
    taps: int


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
        there, back = pieces_of(weights[0], narrow=rule.narrow)
        added = [torch.zeros(self._channels) if bias is None else bias for bias in biases]
        self._bias = torch.cat(added).numpy()
        self._layers_there, self._weights_there = self._laid_out(weights, there)
        turned = [weight.flip(2).transpose(0, 1) for weight in weights]
        self._layers_back, self._weights_back = self._laid_out(turned, back)

    def _laid_out(self, weights: Sequence[Tensor], n_pieces: int) -> tuple[Layers, Any]:
        """The layers on one way, and all their weights."""
        packed = [packed_weights(weight, n_pieces, -(-self._channels // SIDE)) for weight in weights]
        layers = Layers(
            n_pieces=n_pieces,
            width=np.array([layer.width for layer in self.layers]),
            start=np.array([layer.start for layer in self.layers]),
            padding=np.array([layer.padding for layer in self.layers]),
            dilation=np.array([layer.dilation for layer in self.layers]),
            taps=np.array([layer.taps for layer in self.layers]),
            weight=_begins([len(part) for part in packed]),
            record=_begins([layer.width * self._channels for layer in self.layers]),
        )
        return layers, as_array(torch.cat(packed))

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The last value (rows, channels, positions), channels-last in memory, and the record of each row."""
        rows = _rows(args[0])
        record = rows.new_empty(len(rows), self.record_size(self._channels))
        assert record.data_ptr() % 64 == 0, "torch aligns memory to lines of the cache"
        made = rows.new_empty(len(rows), self.layers[-1].width, self._channels)
        values, records, out = as_array(rows), as_array(record), as_array(made.flatten(1))

        def work(first: int, last: int) -> None:
            forward_rows(
                values[first:last], self.of_relu, self._layers_there, self._channels, self._weights_there,
                self._bias, records[first:last], out[first:last],
            )  # fmt: skip

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
                backward_rows(
                    own[sequence], others[pairs], multipliers[pairs], at, self._layers_back, self._channels,
                    self._weights_back, x[sequence], r[pairs], out[pairs],
                )  # fmt: skip

        in_threads(work, len(rows))
        return [made.transpose(1, 2)]

    def _first_values(self, kept: Sequence[Any]) -> Any:
        """Rows of what the ReLU before the first layer reads; without one they are empty."""
        if not self.of_relu:
            return np.empty((len(kept[0][1]), 0), np.float32)
        return as_array(_rows(kept[1]))


def _rows(value: Tensor) -> Tensor:
    """(rows, positions * channels) of (rows, channels, positions), copied unless it is channels-last."""
    return value.transpose(1, 2).contiguous().flatten(1)


def _begins(sizes: Sequence[int]) -> Any:
    return np.array([0, *accumulate(sizes[:-1])])
