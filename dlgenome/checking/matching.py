"""Which rows of two scores files are the same region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlgenome.scores import ScoresFile

KEY = ("chrom", "start", "end", "name")
"""Columns that say which region a row is."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Matching:
    """Rows of the first file and rows of the second, pair by pair, in the order of the first."""

    first: Rows
    second: Rows
    only_first: Rows
    only_second: Rows

    @property
    def same_order(self) -> bool:
        """Whether row i is the same region in both files, for every row."""
        identical = len(self.only_first) == len(self.only_second) == 0
        return identical and bool(np.array_equal(self.first, self.second))

    def pieces(self, size: int) -> Iterator[tuple[Rows, Rows]]:
        """The pairs, so many at a time."""
        for start in range(0, len(self.first), size):
            yield self.first[start : start + size], self.second[start : start + size]


def match_rows(first: ScoresFile, second: ScoresFile) -> Matching:
    """Pair the rows that agree in contig, start, end and name; of equal regions the k-th goes with the k-th.

    Takes about 100 bytes a region for a moment. Raises InputError when the regions cannot be read.
    """
    ours, theirs = _region_codes(first, second)
    _, first_rows, second_rows = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    order = np.argsort(first_rows)
    return Matching(
        first_rows[order],
        second_rows[order],
        np.setdiff1d(np.arange(len(ours)), first_rows, assume_unique=True),
        np.setdiff1d(np.arange(len(theirs)), second_rows, assume_unique=True),
    )


def _region_codes(first: ScoresFile, second: ScoresFile) -> tuple[Rows, Rows]:
    """A number for each row, different within a file and equal for equal regions of the two."""
    codes = np.zeros(first.n_regions + second.n_regions, dtype=np.int64)
    for field in KEY:
        column = np.concatenate([file.stored(f"regions/{field}") for file in (first, second)])
        values, which = np.unique(column, return_inverse=True)
        _, codes = np.unique(codes * len(values) + which, return_inverse=True)
    ours, theirs = codes[: first.n_regions], codes[first.n_regions :]
    repeats = _repeats(ours), _repeats(theirs)
    most = 1 + max((int(one.max()) for one in repeats if len(one)), default=0)
    return ours * most + repeats[0], theirs * most + repeats[1]


def _repeats(codes: Rows) -> Rows:
    """How many rows before each one have the same code."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.arange(len(codes)) - np.repeat(begins, np.diff(begins, append=len(codes)))
    repeats: Rows = np.empty(len(codes), dtype=np.int64)
    repeats[order] = counts
    return repeats
