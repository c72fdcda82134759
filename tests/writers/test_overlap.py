"""Geometry against twins that look at one base at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlgenome.writers.overlap import Overlap, Values, blended_runs, owned_intervals

Windows = list[tuple[int, int, int]]
"""(centre, start, end)"""

any_windows = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 12)).map(
        lambda drawn: (drawn[0], drawn[0] - drawn[1], drawn[0] + drawn[2])
    ),
    max_size=8,
)
equal_windows = st.tuples(st.integers(1, 15), st.lists(st.integers(0, 40), max_size=8)).map(
    lambda drawn: [(center, center - drawn[0] // 2, center - drawn[0] // 2 + drawn[0]) for center in drawn[1]]
)


def owned(windows: Windows) -> list[tuple[int, int, int]]:
    centers, starts, ends = zip(*windows, strict=True) if windows else ((), (), ())
    return list(owned_intervals(centers, starts, ends))


def owner_of_base(base: int, windows: Windows) -> int | None:
    """The window whose centre is nearest to the middle of the base; right before left, first before later."""
    covering = [index for index, (_, start, end) in enumerate(windows) if start <= base < end]
    if not covering:
        return None
    return min(covering, key=lambda index: (abs(windows[index][0] - (base + 0.5)), -windows[index][0], index))


@given(st.one_of(any_windows, equal_windows))
def test_each_base_goes_to_the_nearest_centre(windows: Windows) -> None:
    expected = {base: owner_of_base(base, windows) for base in range(-20, 70)}
    intervals = owned(windows)
    found: dict[int, int | None] = dict.fromkeys(range(-20, 70))
    for index, start, end in intervals:
        for base in range(start, end):
            assert found[base] is None
            found[base] = index
    assert found == expected


@given(st.one_of(any_windows, equal_windows))
def test_intervals_are_in_order_not_empty_and_as_long_as_can_be(windows: Windows) -> None:
    intervals = owned(windows)
    assert all(start < end for _, start, end in intervals)
    for (index, _, end), (next_index, next_start, _) in pairwise(intervals):
        assert end <= next_start
        assert (index, end) != (next_index, next_start)


def test_border_is_that_of_chrombpnet() -> None:
    assert owned([(100, 50, 150), (121, 71, 171)]) == [(0, 50, 110), (1, 110, 171)]


def test_three_equal_windows_and_one_beside_them_leave_no_empty_interval() -> None:
    assert owned([(10, 5, 15), (10, 5, 15), (10, 5, 15), (11, 6, 16)]) == [(0, 5, 10), (3, 10, 16)]


def test_window_around_another_owns_both_sides() -> None:
    assert owned([(50, 0, 100), (70, 65, 75)]) == [(0, 0, 65), (1, 65, 75), (0, 75, 100)]


def values_of(row: int, start: int, end: int) -> Values:
    """Scores with ties in size and in sign, so that the rules about ties are seen."""
    return np.array([((row * 7 + base * 3) % 5 - 2) for base in range(start, end)], np.float32)


def blended_twin(windows: Windows, overlap: Overlap) -> dict[int, float]:
    twin = {}
    for base in range(-20, 70):
        covering = [row for row, (_, start, end) in enumerate(windows) if start <= base < end]
        values = [float(values_of(row, base, base + 1)[0]) for row in covering]
        if not covering:
            continue
        if overlap == "mean":
            twin[base] = float(np.float32(sum(values) / len(values)))
        elif overlap == "max":
            twin[base] = max(values, key=abs)
        else:
            twin[base] = values[0]
    return twin


@pytest.mark.parametrize("overlap", ["mean", "max", "first"])
@given(windows=any_windows)
def test_blended_values_follow_their_rule(overlap: Overlap, windows: Windows) -> None:
    assert overlap != "nearest"
    rows: Sequence[int] = sorted(range(len(windows)), key=lambda row: (windows[row][1], row))
    starts, ends = [windows[row][1] for row in rows], [windows[row][2] for row in rows]
    found: dict[int, float] = {}
    last_end = -100

    def read(index: int, start: int, end: int) -> Values:
        return values_of(rows[index], start, end)

    for start, values in blended_runs(rows, starts, ends, read, overlap):
        assert len(values)
        assert start >= last_end
        last_end = start + len(values)
        found.update(enumerate(values.tolist(), start))
    assert found == blended_twin(windows, overlap)
