"""Which window's score stands at a base that several windows cover."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Overlap = Literal["nearest", "mean", "max", "first"]
Values = NDArray[np.float32]

_NO_ROW = np.iinfo(np.int64).max


def owned_intervals(
    centers: Sequence[int], starts: Sequence[int], ends: Sequence[int]
) -> Iterator[tuple[int, int, int]]:
    """(window, start, end) along one chromosome: each base has the nearest centre that covers it.

    A centre lies between two bases, so between neighbours the border is (c1 + c2) // 2, as in chrombpnet's
    bigWigs; a base equally far from both goes to the right. Of equal centres the first given wins. Windows
    may come in any order, have any lengths, lie inside one another (the outer one then owns two intervals),
    and own nothing at all. Bases that no window covers are in no interval.
    """
    waiting = _in_order_of_start(starts, ends)
    opening = next(waiting, None)
    closing: list[tuple[int, int]] = []
    active: list[tuple[int, int]] = []
    last = (-1, 0, 0)
    left = 0
    while opening is not None or closing:
        borders = [] if opening is None else [starts[opening]]
        right = min(borders + [end for end, _ in closing[:1]])
        for index, start, end in _cells(active, left, right):
            if (index, start) == (last[0], last[2]):
                last = (index, last[1], end)
                continue
            if last[0] >= 0:
                yield last
            last = (index, start, end)
        left = right
        while closing and closing[0][0] == left:
            _, index = heappop(closing)
            del active[bisect_left(active, (centers[index], index))]
        while opening is not None and starts[opening] == left:
            insort(active, (centers[opening], opening))
            heappush(closing, (ends[opening], opening))
            opening = next(waiting, None)
    if last[0] >= 0:
        yield last


def _in_order_of_start(starts: Sequence[int], ends: Sequence[int]) -> Iterator[int]:
    """The windows that are not empty; where they are in order already, nothing is held."""
    first = np.asarray(starts, dtype=np.int64)
    order: Sequence[int] = range(len(first))
    if (first[1:] < first[:-1]).any():
        order = np.argsort(first, kind="stable").astype(np.int64, copy=False).data
    return (index for index in order if starts[index] < ends[index])


def _cells(active: list[tuple[int, int]], left: int, right: int) -> Iterator[tuple[int, int, int]]:
    """Cut [left, right) between the active (centre, index) pairs, which are sorted and all cover it."""
    while active and left < right:
        after = bisect_right(active, (left, _NO_ROW))
        center = active[max(after - 1, 0)][0]
        # 2 * left + 1 is twice the middle of the base: distances stay whole numbers.
        if after < len(active) and (
            after == 0 or 2 * active[after][0] - (2 * left + 1) <= 2 * left + 1 - 2 * center
        ):
            center = active[after][0]
        first_equal = bisect_left(active, (center, -1))
        following = bisect_right(active, (center, _NO_ROW))
        end = right if following == len(active) else min(right, (center + active[following][0]) // 2)
        yield active[first_equal][1], left, end
        left = end


def blended_runs(
    rows: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    read: Callable[[int, int, int], Values],
    overlap: Literal["mean", "max", "first"],
) -> Iterator[tuple[int, Values]]:
    """(start, values) without gaps inside, in order along one chromosome; windows must be sorted by start.

    ``read`` takes the place of a window among these, not its row, and the first and last base.
    ``mean``: of all windows on a base. ``max``: the value largest in absolute size, of equal sizes that of
    the lowest row. ``first``: that of the lowest row. Only bases not yet passed by every window are held.
    """
    held = _Held(starts[0] if len(starts) else 0)
    for index, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        if start < end:
            yield from held.release(start)
            held.add(row, start, read(index, start, end), overlap)
    yield from held.release(held.end)


class _Held:
    """Bases that later windows may still change: their value, how many windows, which row."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.total = np.zeros(0, np.float64)
        self.count = np.zeros(0, np.int64)
        self.row = np.zeros(0, np.int64)

    @property
    def end(self) -> int:
        return self.start + len(self.total)

    def add(self, row: int, start: int, values: Values, overlap: Literal["mean", "max", "first"]) -> None:
        missing = max(0, start + len(values) - self.end)
        self.total = np.append(self.total, np.zeros(missing))
        self.count = np.append(self.count, np.zeros(missing, np.int64))
        self.row = np.append(self.row, np.full(missing, _NO_ROW))
        here = slice(start - self.start, start - self.start + len(values))
        total, count, best_row = self.total[here], self.count[here], self.row[here]
        if overlap == "mean":
            total += values
            count += 1
            return
        better = row < best_row
        if overlap == "max":
            size, held_size = np.abs(values), np.abs(total)
            better = (count == 0) | (size > held_size) | ((size == held_size) & better)
        total[better] = values[better]
        best_row[better] = row
        count[:] = 1

    def release(self, position: int) -> Iterator[tuple[int, Values]]:
        """Give up everything before ``position``, in runs of covered bases."""
        ready = min(max(0, position - self.start), len(self.total))
        covered = self.count[:ready] > 0
        values = (self.total[:ready][covered] / self.count[:ready][covered]).astype(np.float32)
        places = np.flatnonzero(covered)
        for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > 1) + 1):
            if len(run):
                yield self.start + int(places[run[0]]), values[run]
        self.total, self.count, self.row = self.total[ready:], self.count[ready:], self.row[ready:]
        self.start = position
