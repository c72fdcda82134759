"""Fused passes over large values on the CPU: one trip through memory where torch would make five.

Every kernel has its plain torch twin in the rule that uses it; they are chosen only where the values of
sequences, references and pairs lie in memory in one order, batch first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.narrow_kernels import (
    add_narrow,
    add_narrow_relu,
    narrow_relu_rows,
    narrow_relu_rows_over,
)
from dlgenome.attribution.slopes import Floats, Scalar, relu_slope
from dlgenome.compiled import compiled

MIN_ELEMENTS = 1 << 15
"""Below this many numbers the plain path is as fast."""


@compiled
def _relu_rows(
    x: Floats, r: Floats, m: Floats, out: Floats, least: Scalar, one: Scalar, zero: Scalar
) -> None:
    for pair in range(r.shape[0]):
        r_row, m_row, out_row = r[pair], m[pair], out[pair]
        for i in range(x.size):
            out_row[i] = m_row[i] * relu_slope(x[i], r_row[i], least, one, zero)


@compiled
def _relu_rows_over(x: Floats, r: Floats, m: Floats, least: Scalar, one: Scalar, zero: Scalar) -> None:
    """As above, over the values of the references: a loop that knows this can still be vectorised."""
    for pair in range(r.shape[0]):
        r_row, m_row = r[pair], m[pair]
        for i in range(x.size):
            r_row[i] = m_row[i] * relu_slope(x[i], r_row[i], least, one, zero)


@compiled
def _add_relu(total: Floats, value: Floats, zero: Scalar) -> None:
    for i in range(total.size):
        total[i] += zero if value[i] <= zero else value[i]


def relu_multiplier(
    sequences: Tensor,
    references: Tensor,
    multiplier: Tensor,
    step: StepShape,
    batch: BatchAxis,
    spare: bool = False,
) -> Tensor | None:
    """Multiplier of the input of a ReLU from its kept inputs and the multiplier of its output.

    Written over the values of the references where these are ``spare``, and in their precision. None where
    the values do not suit the kernel; the caller then takes the plain path.
    """
    if batch != BatchAxis() or not is_worth_it(multiplier) or not _suits(references, multiplier):
        return None
    order = _memory_order(references)
    if not references.permute(order).is_contiguous():
        return None
    laid_out = multiplier.permute(order).contiguous()
    kept = references.permute(order)
    result = kept if spare else torch.empty_like(kept)
    x = _array(sequences.permute(order).reshape(step.sequences, -1))
    r, m, out = (_array(part.reshape(step.pairs, -1)) for part in (kept, laid_out, result))
    constants, is_narrow = scalars(multiplier.dtype), references.dtype is torch.bfloat16
    rows = narrow_relu_rows if is_narrow else _relu_rows
    rows_over = narrow_relu_rows_over if is_narrow else _relu_rows_over

    def work(first: int, last: int) -> None:
        for sequence, row in enumerate(x):
            part = slice(max(first, sequence * step.references), min(last, (sequence + 1) * step.references))
            if part.start < part.stop and spare:
                rows_over(row, r[part], m[part], *constants)
            elif part.start < part.stop:
                rows(row, r[part], m[part], out[part], *constants)

    in_threads(work, step.pairs)
    return result.permute([order.index(axis) for axis in range(references.dim())])


def add_relu(total: Tensor, value: Tensor) -> bool:
    """Add the ReLU of a value to ``total`` in its place; False, and nothing done, where they do not suit."""
    kernel, zero = _add_relu if value.dtype is total.dtype else add_narrow_relu, scalars(total.dtype)[2]
    return _in_place(lambda sums, terms: kernel(sums, terms, zero), total, value)


def add_rounded(total: Tensor, value: Tensor) -> bool:
    """Add a bfloat16 value to ``total`` in its place; False, and nothing done, where they do not suit."""
    return value.dtype is torch.bfloat16 and _in_place(add_narrow, total, value)


def _in_place(kernel: Callable[[Any, Any], None], total: Tensor, value: Tensor) -> bool:
    """Run a pass over both, row by row, where they lie in memory alike."""
    order = _memory_order(total)
    rows, added = total.permute(order), value.permute(order)
    alike = total.shape == value.shape and _suits(value, total)
    if not (alike and is_worth_it(total) and rows.is_contiguous() and added.is_contiguous()):
        return False
    sums, terms = (_array(part.reshape(len(rows), -1)) for part in (rows, added))
    in_threads(
        lambda first, last: kernel(sums[first:last].reshape(-1), terms[first:last].reshape(-1)), len(rows)
    )
    return True


def _suits(value: Tensor, wide: Tensor) -> bool:
    """Whether a value is as wide as another, or bfloat16 beside float32."""
    return value.dtype is wide.dtype or (value.dtype, wide.dtype) == (torch.bfloat16, torch.float32)


def _array(value: Tensor) -> Any:
    """The numbers in memory; those of bfloat16 as their bits."""
    return value.view(torch.uint16).numpy() if value.dtype is torch.bfloat16 else value.numpy()


def is_worth_it(value: Tensor) -> bool:
    """Whether the value is of a kind that the kernels know, and large."""
    known = value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64)
    return known and value.numel() >= MIN_ELEMENTS


def scalars(dtype: torch.dtype) -> tuple[Scalar, Scalar, Scalar]:
    """The smallest positive number, one and zero, as numpy scalars of the precision."""
    scalar = np.float32 if dtype is torch.float32 else np.float64
    return scalar(torch.finfo(dtype).tiny), scalar(1), scalar(0)


def _memory_order(value: Tensor) -> list[int]:
    """Axes from the slowest to the fastest in memory, the batch always first."""
    strides = value.stride()
    return [0, *sorted(range(1, value.dim()), key=lambda axis: (-strides[axis], axis))]


def in_threads(work: Callable[[int, int], None], count: int) -> None:
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
