"""Fused passes over large values on the CPU: one trip through memory where torch would make five.

Every kernel has its plain torch twin in the rule that uses it; they are chosen only where the values of
sequences, references and pairs lie in memory in one order, batch first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.relu_kernels import add_relu_of, cropped_sums, relu_rows
from dlgenome.attribution.slopes import Scalar

MIN_ELEMENTS = 1 << 15
"""Below this many numbers the plain path is as fast."""


@dataclass(frozen=True)
class PairRows:
    """What a function of one value kept, and the multiplier of its output: numbers of a pair lie in a row."""

    x: Any
    """(sequences, numbers)."""
    r: Any
    """(pairs, numbers)."""
    m: Any
    """(pairs, numbers or more)."""
    start: int
    """Where in the rows of m the first number of a pair is."""
    out: Any
    """(pairs, numbers), perhaps in the memory of r."""
    result: Tensor
    """What is written to ``out``, with the axes of the input."""
    step: StepShape

    def blocks(self, first: int, last: int) -> Iterator[tuple[Any, slice]]:
        """Each sequence's row and its pairs, of the pairs from ``first`` on and before ``last``."""
        for sequence, part in self.step.pairs_of_sequences(first, last):
            yield self.x[sequence], part


def pair_rows(
    sequences: Tensor,
    references: Tensor,
    multiplier: Tensor,
    step: StepShape,
    batch: BatchAxis,
    spare: bool = False,
    start: int = 0,
) -> PairRows | None:
    """The rows for a pass from the kept inputs of a function and the multiplier of its output.

    The pass writes over the values of the references where these are ``spare``. The multiplier may have more
    positions than these, which then begin at ``start`` of it. None where the values do not suit; the caller
    then takes the plain path.
    """
    known = batch == BatchAxis() and references.dim() > 1 and references.dtype is multiplier.dtype
    if not known or not is_worth_it(multiplier):
        return None
    order = _memory_order(references)
    aligned = multiplier.shape == references.shape or _has_positions_outermost(order)
    if not references.permute(order).is_contiguous() or not aligned:
        return None
    laid_out = multiplier.permute(order).contiguous()
    kept = references.permute(order)
    result = kept if spare else torch.empty_like(kept)
    x = as_array(sequences.permute(order).reshape(step.sequences, -1))
    r, m, out = (as_array(part.reshape(step.pairs, -1)) for part in (kept, laid_out, result))
    back = [order.index(axis) for axis in range(references.dim())]
    return PairRows(x, r, m, start * kept[0, 0].numel(), out, result.permute(back), step)


def relu_multiplier(rows: PairRows | None) -> Tensor | None:
    """Multiplier of the input of a ReLU; None where there are no rows."""
    if rows is None:
        return None
    constants = scalars(rows.result.dtype)

    def work(first: int, last: int) -> None:
        for x, pairs in rows.blocks(first, last):
            relu_rows(x, rows.r[pairs], rows.m[pairs], rows.start, rows.out[pairs], *constants)

    in_threads(work, rows.step.pairs)
    return rows.result


def cropped_sum(first: Tensor, start: int, value: Tensor, over: bool = False) -> Tensor | None:
    """The ReLU of a value added to the positions of ``first`` from ``start`` on.

    Where the memory of ``first`` may be written ``over``, the sum lies at the beginning of it: memory that
    was not used lately costs as much to write to as two values to read. None where they do not suit.
    """
    order = _memory_order(value)
    rows, added = first.permute(order), value.permute(order)
    in_order = _has_positions_outermost(order) and rows.is_contiguous() and added.is_contiguous()
    if not (in_order and value.dtype is first.dtype and is_worth_it(first)):
        return None
    # what one thread writes over, another would still have to read
    over = over and torch.get_num_threads() == 1
    made = rows.view(-1)[: added.numel()].view(added.shape) if over else rows.new_empty(added.shape)
    a, b, out = (as_array(part.reshape(len(part), -1)) for part in (rows, added, made))
    first_number, zero = start * rows[0, 0].numel(), scalars(first.dtype)[2]
    in_threads(
        lambda low, high: cropped_sums(a[low:high], first_number, b[low:high], out[low:high], zero), len(a)
    )
    return made.permute([order.index(axis) for axis in range(value.dim())])


def add_relu(total: Tensor, value: Tensor) -> bool:
    """Add the ReLU of a value to ``total`` in its place, row by row; False, and nothing done, if not so.

    Both must lie in memory alike; rows of the total may lie apart.
    """
    order = _memory_order(total)
    rows, added = total.permute(order), value.permute(order)
    alike = total.shape == value.shape and value.dtype is total.dtype
    if not (alike and is_worth_it(total) and rows[0].is_contiguous() and added.is_contiguous()):
        return False
    sums, terms = (as_array(part.reshape(len(rows), -1)) for part in (rows, added))
    zero = scalars(total.dtype)[2]

    def work(first: int, last: int) -> None:
        if rows.is_contiguous():
            add_relu_of(sums[first:last].reshape(-1), terms[first:last].reshape(-1), zero)
        else:
            for row in range(first, last):
                add_relu_of(sums[row], terms[row], zero)

    in_threads(work, len(rows))
    return True


def as_array(value: Tensor) -> Any:
    """The numbers in memory; those of two bytes as their bits."""
    return value.view(torch.uint16).numpy() if value.itemsize == 2 else value.numpy()


def rows_of(value: Tensor) -> Tensor:
    """Values (batch, channels, height, width) as (batch * height, width * channels).

    Copied unless they are channels-last.
    """
    return value.permute(0, 2, 3, 1).flatten(0, 1).flatten(1).contiguous()


def rows_apart(made: Tensor) -> tuple[Any, int]:
    """The memory of values (batch, height, width, channels), and how far apart their rows lie in it.

    They may be parts of longer rows.
    """
    rows = made.view(-1, made.shape[2] * made.shape[3])
    apart = rows.stride(0)
    return as_array(rows.as_strided(((len(rows) - 1) * apart + rows.shape[1],), (1,))), apart


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


def _has_positions_outermost(order: list[int]) -> bool:
    """Whether all channels of a position lie side by side, so that a range of positions does, too."""
    return len(order) > 1 and order[1] == len(order) - 1


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
