"""Maxima over windows of positions on the CPU, channels last in memory as convolutions leave them.

The plain path (`rules/pooling.py`) lays values out anew, gathers and scatters: ten passes for one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlgenome.attribution.kernels import in_threads, is_worth_it, scalars
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.slopes import Floats, Scalar, relu_slope
from dlgenome.attribution.vectors.pools import MOST_POSITIONS, Places, Windows, back, maxima
from dlgenome.attribution.vectors.processor import has_vectors
from dlgenome.compiled import compiled


@compiled
def _first_inside(window: int, stride: int, padding: int, dilation: int) -> int:
    """The first position of a window that is not padding."""
    position = window * stride - padding
    while position < 0:
        position += dilation
    return position


@compiled
def _maximum(
    values: Floats,
    best: Floats,
    at: Places,
    window: int,
    width: int,
    stride: int,
    padding: int,
    dilation: int,
    after_relu: bool,
) -> None:
    """The maximum of one window of (positions, channels), and where it is; the first of equal ones."""
    zero = values.dtype.type(0)
    best[:] = -np.inf
    at[:] = _first_inside(window, stride, padding, dilation)
    for step in range(width):
        position = window * stride - padding + step * dilation
        if 0 <= position < values.shape[0]:
            here = values[position]
            for channel in range(values.shape[1]):
                value = here[channel]
                value = zero if after_relu and value <= zero else value
                # not a number stays, as in torch
                larger = value > best[channel] or value != value
                best[channel] = value if larger else best[channel]
                at[channel] = position if larger else at[channel]


@compiled
def _maxima(
    rows: Floats,
    top: Floats,
    place: Places,
    width: int,
    stride: int,
    padding: int,
    dilation: int,
    after_relu: bool,
) -> None:
    """The maximum of each window of (rows, positions, channels), and where it is."""
    for row in range(rows.shape[0]):
        for window in range(top.shape[1]):
            best, at = top[row, window], place[row, window]
            _maximum(rows[row], best, at, window, width, stride, padding, dilation, after_relu)


@compiled
def _back(
    x: Floats,
    top_x: Floats,
    at_x: Places,
    r: Floats,
    m: Floats,
    out: Floats,
    width: int,
    stride: int,
    padding: int,
    dilation: int,
    after_relu: bool,
    least: Scalar,
    one: Scalar,
    zero: Scalar,
) -> None:
    """Every window's multiplier to the position that made its difference; pairs of one sequence.

    Loops over channels look at every position of a window instead of going to one of them: such loops become
    vector instructions. ``out`` may hold anything, and be ``r`` where windows are side by side.
    """
    positions, channels = r.shape[1], r.shape[2]
    side_by_side = stride == width and dilation == 1
    covered = min(positions, m.shape[1] * stride - padding) if side_by_side else 0
    top, share = np.empty(channels, r.dtype), np.empty(channels, r.dtype)
    own, other = np.zeros(channels, r.dtype), np.zeros(channels, r.dtype)
    at, winner = np.empty(channels, np.int32), np.empty(channels, np.int32)
    for pair in range(r.shape[0]):
        out[pair, covered:] = zero
        for window in range(m.shape[1]):
            _maximum(r[pair], top, at, window, width, stride, padding, dilation, after_relu)
            high, place, above = top_x[window], at_x[window], m[pair, window]
            for channel in range(channels):
                winner[channel] = place[channel] if high[channel] >= top[channel] else at[channel]
            for step in range(width):
                position = window * stride - padding + step * dilation
                if 0 <= position < positions:
                    one_x, one_r = x[position], r[pair, position]
                    for channel in range(channels):
                        wins = winner[channel] == position
                        own[channel] = one_x[channel] if wins else own[channel]
                        other[channel] = one_r[channel] if wins else other[channel]
            for channel in range(channels):
                rise = high[channel] - top[channel]
                still = one if place[channel] == at[channel] else zero
                high_own, high_other, slope = own[channel], other[channel], one
                if after_relu:
                    slope = relu_slope(high_own, high_other, least, one, zero)
                    high_own = zero if high_own <= zero else high_own
                    high_other = zero if high_other <= zero else high_other
                part = rise / (high_own - high_other)
                share[channel] = (still if rise == zero else part) * above[channel] * slope
            for step in range(width):
                position = window * stride - padding + step * dilation
                if 0 <= position < positions:
                    below = out[pair, position]
                    for channel in range(channels):
                        before = zero if side_by_side else below[channel]
                        below[channel] = before + (share[channel] if winner[channel] == position else zero)


def pooled(value: Tensor, windows: Windows, count: int) -> Tensor | None:
    """Maxima of (rows, channels, positions) in ``count`` windows, channels last in memory.

    None where the value does not suit; the caller then takes the plain path.
    """
    rows = _channels_last(value) if is_worth_it(value) else None
    if rows is None:
        return None
    return torch.from_numpy(_find(rows, windows, count)[0]).transpose(1, 2)


def pool_multiplier(
    sequences: Tensor,
    references: Tensor,
    multiplier: Tensor,
    step: StepShape,
    windows: Windows,
    spare: bool = False,
) -> Tensor | None:
    """Multiplier of the input of a maximum over windows, from its kept inputs and that of its output.

    May be written over the values of the references where these are ``spare``. None where the values do not
    suit, or the multiplier is to be differentiated; the caller then takes the plain path.
    """
    x, r = _channels_last(sequences), _channels_last(references)
    suits = is_worth_it(references) and multiplier.dtype is references.dtype and not multiplier.requires_grad
    if x is None or r is None or not suits:
        return None
    m = multiplier.transpose(1, 2).contiguous().numpy()
    out, count = r if spare and windows.side_by_side else np.empty_like(r), m.shape[1]
    top_x, at_x = _find(x, windows, count)
    way_back = _way_back(r, windows)

    def work(first: int, last: int) -> None:
        for sequence in range(first // step.references, -(-last // step.references)):
            low = max(first, sequence * step.references)
            part = slice(low, min(last, (sequence + 1) * step.references))
            way_back(x[sequence], top_x[sequence], at_x[sequence], r[part], m[part], out[part])

    in_threads(work, step.pairs)
    return torch.from_numpy(out).transpose(1, 2)


def _channels_last(value: Tensor) -> Floats | None:
    """(rows, positions, channels) of a value that lies so in memory."""
    if value.dim() != 3 or not value.transpose(1, 2).is_contiguous():
        return None
    rows: Floats = value.transpose(1, 2).numpy()
    return rows


def _find(rows: Floats, windows: Windows, count: int) -> tuple[Floats, Places]:
    top, place = _empty(rows, count)
    if _suits_vectors(rows):
        flat, best, at = (_flat(part) for part in (rows, top, place))
        channels = rows.shape[2]
        in_threads(lambda a, b: maxima(flat[a:b], channels, windows, best[a:b], at[a:b]), len(rows))
    else:
        in_threads(lambda a, b: _maxima(rows[a:b], top[a:b], place[a:b], *windows), len(rows))
    return top, place


def _way_back(rows: Floats, windows: Windows) -> Callable[..., None]:
    """From values and maxima of a sequence, and values and multipliers of its pairs, to multipliers below."""
    if not _suits_vectors(rows):
        settings: list[Any] = [*windows, *scalars(torch.from_numpy(rows).dtype)]
        return lambda *parts: _back(*parts, *settings)
    channels = rows.shape[2]

    def run(x: Any, top: Any, at: Any, r: Any, m: Any, out: Any) -> None:
        x, top, at = x.reshape(-1), top.reshape(-1), at.reshape(-1)
        back(x, top, at, _flat(r), _flat(m), channels, windows, _flat(out))

    return run


def _suits_vectors(rows: Floats) -> bool:
    return rows.dtype == np.float32 and rows.shape[1] < MOST_POSITIONS and has_vectors()


def _flat(rows: Any) -> Any:
    """(rows, positions * channels) of (rows, positions, channels)."""
    return rows.reshape(len(rows), -1)


def _empty(rows: Floats, count: int) -> tuple[Any, Any]:
    shape = (len(rows), count, rows.shape[2])
    return np.empty(shape, rows.dtype), np.empty(shape, np.int32)
