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
from dlgenome.attribution.tiles.convolution import packed_weights
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.kernels import N_PIECES
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
    the last value, and a record of what every convolution made, which the way back needs. The multiplier
    of the last value may have all positions of the first.
    """

    title = "linear, rescale (piecewise linear)"
    owns_output = True
    steady = True
    fresh = True

    def __init__(self, layers: Sequence[Layer], *, narrow: bool) -> None:
        self.layers, self.narrow = tuple(layers), narrow

    def kept(self, call: Call) -> tuple[Ref, ...]:
        """What it makes, for the record."""
        return (Ref(call.name),)

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for both ways."""
        return BoundTower(self.layers, self.narrow, args[1::2], args[2::2])


class BoundTower(Tower):
    """A tower of known weights."""

    def __init__(
        self,
        layers: Sequence[Layer],
        narrow: bool,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
    ) -> None:
        super().__init__(layers, narrow=narrow)
        self._channels = len(weights[0])
        self._n_pieces = 1 if narrow else N_PIECES
        groups = -(-self._channels // SIDE)
        onward = [packed_weights(weight, self._n_pieces, groups) for weight in weights]
        back = [packed_weights(weight.flip(2).transpose(0, 1), self._n_pieces, groups) for weight in weights]
        self._onward, self._back = as_array(torch.cat(onward)), as_array(torch.cat(back))
        zeros = torch.zeros(self._channels)
        self._bias = torch.cat([zeros if bias is None else bias for bias in biases]).numpy()
        sizes = [layer.width * self._channels for layer in layers]
        self._record_size = sum(sizes)
        self._layers = Layers(
            width=np.array([layer.width for layer in layers]),
            start=np.array([layer.start for layer in layers]),
            padding=np.array([layer.padding for layer in layers]),
            dilation=np.array([layer.dilation for layer in layers]),
            taps=np.array([layer.taps for layer in layers]),
            weight=_begins([len(part) for part in onward]),
            record=_begins(sizes),
        )

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The last value (rows, channels, positions), channels-last in memory, and the record of each row."""
        rows = _rows(args[0])
        record = rows.new_empty(
            len(rows), self._record_size, dtype=torch.bfloat16 if self.narrow else torch.float32
        )
        assert record.data_ptr() % 64 == 0, "torch aligns memory to lines of the cache"
        made = rows.new_empty(len(rows), self.layers[-1].width, self._channels)
        values, records, out = as_array(rows), as_array(record), as_array(made.flatten(1))

        def work(first: int, last: int) -> None:
            forward_rows(
                values[first:last], self._layers, self._channels, self._n_pieces, self._onward, self._bias,
                records[first:last], out[first:last],
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

        def work(first: int, last: int) -> None:
            for sequence, pairs in saved.step.pairs_of_sequences(first, last):
                backward_rows(
                    own[sequence], others[pairs], multipliers[pairs], at, self._layers, self._channels,
                    self._n_pieces, self._back, out[pairs],
                )  # fmt: skip

        in_threads(work, len(rows))
        return [made.transpose(1, 2)]


def _rows(value: Tensor) -> Tensor:
    """(rows, positions * channels) of (rows, channels, positions), copied unless it is channels-last."""
    return value.transpose(1, 2).contiguous().flatten(1)


def _begins(sizes: Sequence[int]) -> Any:
    return np.array([0, *accumulate(sizes[:-1])])
