"""Fused passes over large values on the CPU: one trip through memory where torch would make five.

Every kernel has its plain torch twin in the rule that uses it; they are chosen only where the values of
sequences, references and pairs lie in memory in one order, batch first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.compiled import compiled

Floats = NDArray[np.floating]
MIN_ELEMENTS = 1 << 15
"""Below this many numbers the plain path is as fast."""


@compiled
def _relu_rows(x: Floats, r: Floats, m: Floats, out: Floats, references: int, tiny: float) -> None:
    one, zero = x.dtype.type(1), x.dtype.type(0)
    least = x.dtype.type(tiny)
    for pair in range(r.shape[0]):
        x_row, r_row, m_row, out_row = x[pair // references], r[pair], m[pair], out[pair]
        for i in range(r_row.size):
            a, b = x_row[i], r_row[i]
            high = a if a > b else b
            width = abs(a - b)
            width = width if width > least else least
            slope = high / width
            slope = slope if slope < one else one
            slope = slope if slope > zero else zero
            out_row[i] = m_row[i] * slope


def relu_multiplier(value: Tensor, multiplier: Tensor, step: StepShape, batch: BatchAxis) -> Tensor | None:
    """Multiplier of the input of a ReLU from its kept input and the multiplier of its output.

    None where the values do not suit the kernel; the caller then takes the plain path.
    """
    if value.device.type != "cpu" or batch != BatchAxis() or multiplier.numel() < MIN_ELEMENTS:
        return None
    order = _memory_order(value)
    rows, pairs = value.permute(order), multiplier.permute(order).contiguous()
    if value.dtype not in (torch.float32, torch.float64) or not rows.is_contiguous():
        return None
    flat = rows.reshape(step.rows, -1).numpy()
    result = torch.empty_like(pairs)
    tiny = torch.finfo(value.dtype).tiny
    x, r = flat[: step.sequences], flat[step.sequences :]
    m, out = pairs.reshape(step.pairs, -1).numpy(), result.view(step.pairs, -1).numpy()

    def work(first: int, last: int) -> None:
        for sequence in range(step.sequences):
            low = max(first, sequence * step.references)
            high = min(last, (sequence + 1) * step.references)
            if low < high:
                part = slice(low, high)
                _relu_rows(x[sequence : sequence + 1], r[part], m[part], out[part], step.references, tiny)

    _in_threads(work, step.pairs)
    return result.permute([order.index(axis) for axis in range(value.dim())])


def _memory_order(value: Tensor) -> list[int]:
    """Axes from the slowest to the fastest in memory, the batch always first."""
    strides = value.stride()
    return [0, *sorted(range(1, value.dim()), key=lambda axis: (-strides[axis], axis))]


def _in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(first, last)`` on equal shares of ``count`` rows, one share a thread."""
    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        return work(0, count)
    bounds = [count * share // threads for share in range(threads + 1)]
    list(_pool(threads).map(work, bounds[:-1], bounds[1:]))
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dlgenome-kernel")
