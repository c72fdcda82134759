"""What checks find: problems in words, with the rows that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

NAMED_RANGES = 10
"""Stretches of rows that a problem names; of the others it says how many there are."""

LONGEST_SHOWN = 40


@dataclass(frozen=True)
class Problem:
    """Something in a file, or beside it, that is not as it should be."""

    check: str
    """Which check found it, in a word or two."""
    message: str
    """What is wrong, as a sentence."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of the rows concerned, the first few of them."""
    n_rows: int = 0
    """Number of the rows concerned."""


class RowFindings:
    """Rows by what is wrong with them; memory does not grow with their number."""

    def __init__(self, sentences: Mapping[str, str], place: Callable[[int], str]) -> None:
        self._sentences = sentences
        """Check -> what it means that a row is named."""
        self._place = place
        self._counts: dict[str, int] = {}
        self._ranges: dict[str, list[list[int]]] = {}

    def add(self, check: str, rows: Iterable[int]) -> None:
        """These rows, given in ascending order, failed the check."""
        for row in rows:
            ranges = self._ranges.setdefault(check, [])
            self._counts[check] = self._counts.get(check, 0) + 1
            if ranges and ranges[-1][1] == row:
                ranges[-1][1] = row + 1
            elif len(ranges) <= NAMED_RANGES:
                ranges.append([row, row + 1])

    def problems(self) -> list[Problem]:
        """One problem for each check that any row failed."""
        return [self._problem(check) for check in self._sentences if check in self._counts]

    def _problem(self, check: str) -> Problem:
        ranges = tuple((start, end) for start, end in self._ranges[check][:NAMED_RANGES])
        count = self._counts[check]
        named = named_rows(ranges, count)
        first = self._place(ranges[0][0])
        where = f"{named} ({first})" if count == 1 else f"{named} (first {first})"
        return Problem(check, f"{where}: {self._sentences[check]}", ranges, count)


def named_rows(ranges: Iterable[tuple[int, int]], count: int) -> str:
    """``row 3``, ``rows 3, 7-9 and 1,234 more``."""
    words, named = [], 0
    for start, end in ranges:
        words.append(str(start) if end == start + 1 else f"{start}-{end - 1}")
        named += end - start
    more = f" and {count - named:,} more" if count > named else ""
    return f"row{'' if count == 1 else 's'} {', '.join(words)}{more}"


def shown(value: object) -> str:
    """A value from a file in few words: checksums are cut short."""
    text = str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:12]}..."
