"""Maxima over windows of positions on the CPU, channels last in memory as convolutions leave them.

The plain path (`rules/pooling.py`) lays values out anew, gathers and scatters: ten passes for one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.kernels import Floats, Scalar, in_threads, is_worth_it
from dlgenome.attribution.layout import StepShape
from dlgenome.compiled import compiled

Places = NDArray[np.int32]


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pool over positions lie."""

    width: int
    stride: int
    padding: int
    dilation: int

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """All of it, in order."""
        return self.width, self.stride, self.padding, self.dilation


@compiled
def _maxima(
    rows: Floats, top: Floats, place: Places, width: int, stride: int, padding: int, dilation: int
) -> None:
    """The maximum of each window of (rows, positions, channels), and where it is; the first of equal ones."""
    positions, channels = rows.shape[1], rows.shape[2]
    for row in range(rows.shape[0]):
        for window in range(top.shape[1]):
            best, at = top[row, window], place[row, window]
            best[:] = -np.inf
            for step in range(width):
                position = window * stride - padding + step * dilation
                if 0 <= position < positions:
                    values = rows[row, position]
                    for channel in range(channels):
                        value = values[channel]
                        # not a number stays, as in torch
                        larger = value > best[channel] or value != value
                        best[channel] = value if larger else best[channel]
                        at[channel] = position if larger else at[channel]


@compiled
def _scatter(
    x: Floats,
    top_x: Floats,
    at_x: Places,
    r: Floats,
    top_r: Floats,
    at_r: Places,
    m: Floats,
    out: Floats,
    one: Scalar,
    zero: Scalar,
) -> None:
    """Every window's multiplier to the position that made its difference; pairs of one sequence."""
    channels = r.shape[2]
    for pair in range(r.shape[0]):
        for window in range(top_r.shape[1]):
            for channel in range(channels):
                high_x, high_r = top_x[window, channel], top_r[pair, window, channel]
                place_x, place_r = at_x[window, channel], at_r[pair, window, channel]
                rise = high_x - high_r
                winner = place_x if high_x >= high_r else place_r
                if rise == zero:
                    share = one if place_x == place_r else zero
                else:
                    share = rise / (x[winner, channel] - r[pair, winner, channel])
                out[pair, winner, channel] += share * m[pair, window, channel]


def pooled(value: Tensor, windows: Windows, count: int) -> Tensor | None:
    """Maxima of (rows, channels, positions) in ``count`` windows, channels last in memory.

    None where the value does not suit; the caller then takes the plain path.
    """
    rows = _channels_last(value)
    if rows is None:
        return None
    return torch.from_numpy(_find(rows, windows, count)[0]).transpose(1, 2)


def pool_multiplier(
    sequences: Tensor, references: Tensor, multiplier: Tensor, step: StepShape, windows: Windows
) -> Tensor | None:
    """Multiplier of the input of a maximum over windows, from its kept inputs and that of its output.

    None where the values do not suit, or the multiplier is to be differentiated; the caller then takes the
    plain path.
    """
    x, r = _channels_last(sequences), _channels_last(references)
    suits = multiplier.dtype is references.dtype and not multiplier.requires_grad
    if x is None or r is None or not suits:
        return None
    m = multiplier.transpose(1, 2).contiguous().numpy()
    out, count = np.zeros_like(r), m.shape[1]
    top_x, at_x = _find(x, windows, count)
    one, zero = r.dtype.type(1), r.dtype.type(0)

    def work(first: int, last: int) -> None:
        top_r, at_r = _empty(r[first:last], count)
        _maxima(r[first:last], top_r, at_r, *windows.numbers)
        for sequence in range(first // step.references, -(-last // step.references)):
            low = max(first, sequence * step.references)
            part = slice(low, min(last, (sequence + 1) * step.references))
            own = slice(part.start - first, part.stop - first)
            known = (x[sequence], top_x[sequence], at_x[sequence])
            _scatter(*known, r[part], top_r[own], at_r[own], m[part], out[part], one, zero)

    in_threads(work, step.pairs)
    return torch.from_numpy(out).transpose(1, 2)


def _channels_last(value: Tensor) -> Floats | None:
    """(rows, positions, channels) of a value that lies so in memory."""
    if value.dim() != 3 or not is_worth_it(value) or not value.transpose(1, 2).is_contiguous():
        return None
    rows: Floats = value.transpose(1, 2).numpy()
    return rows


def _find(rows: Floats, windows: Windows, count: int) -> tuple[Floats, Places]:
    top, place = _empty(rows, count)
    in_threads(lambda a, b: _maxima(rows[a:b], top[a:b], place[a:b], *windows.numbers), len(rows))
    return top, place


def _empty(rows: Floats, count: int) -> tuple[Any, Any]:
    shape = (len(rows), count, rows.shape[2])
    return np.empty(shape, rows.dtype), np.zeros(shape, np.int32)
