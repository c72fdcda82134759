"""Rows that a problem names: the first stretches of them, and how many there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlgenome.checking.findings import NAMED_RANGES, RowFindings, named_rows

TEN = "0, 2, 4, 6, 8, 10, 12, 14, 16, 18"


def findings(rows: list[int], batch: int = 3) -> RowFindings:
    found = RowFindings({"a": "is wrong.", "b": "is wronger."}, lambda row: f"place {row}")
    for first in range(0, len(rows), batch):
        found.add("a", rows[first : first + batch])
    return found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "row 3 (place 3): is wrong."),
        ([3, 4, 5, 6], "rows 3-6 (first place 3): is wrong."),
        ([0, 2, 3, 9], "rows 0, 2-3, 9 (first place 0): is wrong."),
        (
            list(range(0, 50, 2)),
            "rows 0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and 15 more (first place 0): is wrong.",
        ),
        (
            list(range(0, 24, 2)),
            "rows 0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and 2 more (first place 0): is wrong.",
        ),
    ],
)
def test_stretches_of_rows_are_told_in_few_words(rows: list[int], message: str) -> None:
    (problem,) = findings(rows).problems()
    assert problem.message == message
    assert problem.n_rows == len(rows)


def test_nothing_found_is_no_problem() -> None:
    assert findings([]).problems() == []


def test_problems_come_in_the_order_of_the_checks() -> None:
    found = findings([1])
    found.add("b", [0])
    assert [problem.check for problem in found.problems()] == ["a", "b"]


def test_thousands_are_counted_with_commas() -> None:
    assert named_rows([(0, 1)], 5001) == "rows 0 and 5,000 more"


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 9))
def test_named_ranges_are_the_first_of_the_rows(rows: set[int], batch: int) -> None:
    (problem,) = findings(sorted(rows), batch).problems()
    named = [row for start, end in problem.ranges for row in range(start, end)]
    assert named == sorted(rows)[: len(named)]
    complete = len(problem.ranges) < NAMED_RANGES
    assert not complete or len(named) == len(rows)
    assert all(end not in rows for _, end in problem.ranges)
