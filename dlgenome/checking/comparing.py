"""How two scores files differ: in what they say of themselves, in their regions, and in every number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.checking.content import Progress
from dlgenome.checking.matching import Rows, match_rows
from dlgenome.scores import AttributeValue, ScoresFile

ROUNDING = 1e-28
"""A variance below this share of the mean square is what rounding leaves of none."""

_TENSORS = ("raw/seq", "shap/seq", "projected_shap/seq")


@dataclass(frozen=True)
class RegionDifference:
    """A region in both files."""

    chrom: str
    start: int
    end: int
    name: str
    first_row: int
    second_row: int
    correlation: float
    """Pearson, over the bases of the window, of the contribution of the base that is there; NaN where it has
    no variance."""
    largest: float
    """Largest absolute difference of a projected score, relative to the largest score of all."""


@dataclass(frozen=True)
class Correlation:
    """Of the projected scores, region by region."""

    minimum: float
    median: float
    mean: float
    undefined: int
    """Regions without variance in one of the files, left out of the other numbers."""


@dataclass(frozen=True)
class Difference:
    """What `compare` found; provenance is not looked at."""

    first: Path
    second: Path
    identity: Mapping[str, tuple[AttributeValue | None, AttributeValue | None]]
    """Attribute -> its values, where they differ; None where a file lacks it."""
    layout: Mapping[str, tuple[Any, Any]]
    """What else is not alike: window length, kinds of numbers, arrays that only one file has, genome."""
    datasets: Mapping[str, int]
    """Dataset -> number of paired regions in which it differs, where there are any."""
    matched: int
    only_first: int
    only_second: int
    same_order: bool
    correlation: Correlation | None
    """None where no scores could be compared."""
    largest: float
    """Largest absolute difference of a projected score, relative to ``largest_score``; NaN where no scores
    could be compared."""
    largest_score: float
    """Largest absolute projected score of the paired regions, of both files."""
    worst: tuple[RegionDifference, ...]
    """The regions that differ most, the worst first."""

    @property
    def equal(self) -> bool:
        """Whether the files are equal in every dataset and identity attribute."""
        return self.same_order and not (self.identity or self.layout or self.datasets)

    def facts(self) -> dict[str, Any]:
        """Everything by name."""
        return {**asdict(self), "equal": self.equal}

    def within(self, tolerance: float) -> bool:
        """Whether both hold the same regions with scores that differ by no more than this."""
        complete = self.only_first == self.only_second == 0
        return complete and (self.largest <= tolerance or self.matched == 0)


def compare(first: Path, second: Path, *, worst: int = 5, progress: Progress | None = None) -> Difference:
    """How the second file differs from the first; rows pass through a few at a time, in pairs.

    Regions are paired by contig, start, end and name, whatever their order. Raises InputError for a file
    that cannot be read.
    """
    with ScoresFile(first) as ours, ScoresFile(second) as theirs:
        return _Comparison(ours, theirs).difference(worst, progress)


class _Comparison:
    """Counts while pairs of rows pass by."""

    def __init__(self, first: ScoresFile, second: ScoresFile) -> None:
        self.first, self.second = first, second
        self.matching = match_rows(first, second)
        self.largest_score = 0.0
        self.differing: dict[str, int] = {}
        self.correlations = np.full(len(self.matching.first), np.nan)
        self.differences = np.zeros(len(self.matching.first))

    def difference(self, worst: int, progress: Progress | None) -> Difference:
        """Everything at once."""
        matching, layout = self.matching, dict(_layout_differences(self.first, self.second))
        self._compare_columns()
        comparable = self.first.length == self.second.length and len(matching.first) > 0
        if comparable:
            self._compare_arrays(progress)
        return Difference(
            self.first.path,
            self.second.path,
            _identity_differences(self.first, self.second),
            layout,
            dict(sorted(self.differing.items())),
            len(matching.first),
            len(matching.only_first),
            len(matching.only_second),
            matching.same_order,
            self._correlation() if comparable else None,
            self._relative(self.differences.max(initial=0.0)) if comparable else np.nan,
            self.largest_score,
            tuple(self._worst(worst)) if comparable else (),
        )

    def _compare_columns(self) -> None:
        """The columns that both have; where regions are paired, they agree in what they are paired by."""
        for name in _common(self.first, self.second):
            if name.startswith(("regions/", "qc/")):
                ours = self.first.stored(name)[self.matching.first]
                theirs = self.second.stored(name)[self.matching.second]
                self._count(name, ~_same(ours, theirs))

    def _compare_arrays(self, progress: Progress | None) -> None:
        extras = tuple(f"{extra}/seq" for extra in self.first.extras)
        names = [name for name in (*_TENSORS, *extras) if name in _common(self.first, self.second)]
        size = next((piece.stop for piece in self.first.pieces()), 1)
        done, total = 0, len(self.matching.first)
        for ours, theirs in self.matching.pieces(size):
            for name in names:
                one, other = _rows(self.first, name, ours), _rows(self.second, name, theirs)
                self._count(name, np.asarray((~_same(one, other)).any(axis=(1, 2))))
                if name == "projected_shap/seq":
                    self._measure(slice(done, done + len(ours)), one, other)
            done += len(ours)
            if progress is not None:
                progress(done, total)

    def _count(self, name: str, differs: NDArray[np.bool_]) -> None:
        if differs.any():
            self.differing[name] = self.differing.get(name, 0) + int(np.count_nonzero(differs))

    def _measure(self, pairs: slice, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        one, other = ours.astype(np.float64), theirs.astype(np.float64)
        largest = max(np.abs(values[np.isfinite(values)]).max(initial=0.0) for values in (one, other))
        self.largest_score = max(self.largest_score, float(largest))
        with np.errstate(invalid="ignore"):  # what is not finite in one file only differs infinitely
            distance = np.where(_same(one, other), 0.0, np.abs(one - other))
            self.correlations[pairs] = pearson(one.sum(axis=1), other.sum(axis=1))
        distance[np.isnan(distance)] = np.inf
        self.differences[pairs] = distance.max(axis=(1, 2))

    def _relative(self, distance: float) -> float:
        return float(distance / self.largest_score) if distance and self.largest_score else float(distance)

    def _correlation(self) -> Correlation:
        known = self.correlations[~np.isnan(self.correlations)]
        undefined = len(self.correlations) - len(known)
        if not len(known):
            return Correlation(np.nan, np.nan, np.nan, undefined)
        return Correlation(float(known.min()), float(np.median(known)), float(known.mean()), undefined)

    def _worst(self, count: int) -> Iterator[RegionDifference]:
        order = np.argsort(-self.differences, kind="stable")[:count]
        for pair in order[self.differences[order] > 0].tolist():
            row = int(self.matching.first[pair])
            window = self.first.windows_of(slice(row, row + 1))[0]
            yield RegionDifference(
                window.chrom,
                window.start,
                window.end,
                window.region.name,
                row,
                int(self.matching.second[pair]),
                float(self.correlations[pair]),
                self._relative(self.differences[pair]),
            )


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) correlation of the rows of two (rows, values) arrays; NaN where a row has no variance."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        one, other = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
        squares = [(values**2).sum(axis=1) for values in (one, other)]
        found = (one * other).sum(axis=1) / np.sqrt(squares[0] * squares[1])
        for values, square in zip((first, second), squares, strict=True):
            found[square <= ROUNDING * (values**2).sum(axis=1)] = np.nan
    return np.asarray(np.clip(found, -1.0, 1.0))


def _identity_differences(
    first: ScoresFile, second: ScoresFile
) -> dict[str, tuple[AttributeValue | None, AttributeValue | None]]:
    ours, theirs = first.identity, second.identity
    return {
        name: (ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or ours[name] != theirs[name]
    }


def _layout_differences(first: ScoresFile, second: ScoresFile) -> Iterator[tuple[str, tuple[Any, Any]]]:
    names = [set(file.dataset_names) for file in (first, second)]
    facts = {
        "bases in a window": (first.length, second.length),
        "kind of numbers": (first.score_dtype, second.score_dtype),
        "datasets of its own": tuple(tuple(sorted(own - other)) for own, other in (names, names[::-1])),
    }
    for name, (ours, theirs) in facts.items():
        if ours != theirs:
            yield name, (ours, theirs)
    if first.contigs != second.contigs:
        yield "sequences of the genome", (len(first.contigs), len(second.contigs))


def _common(first: ScoresFile, second: ScoresFile) -> tuple[str, ...]:
    there = set(second.dataset_names)
    return tuple(name for name in first.dataset_names if name in there)


def _rows(scores: ScoresFile, name: str, rows: Rows) -> NDArray[Any]:
    """(rows, 4, length): at once where they follow each other, else one by one."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return scores.stored(name, slice(int(rows[0]), int(rows[-1]) + 1))
    return np.stack([scores.stored(name, int(row)) for row in rows])


def _same(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are equal; NaN equals NaN."""
    same = first == second
    if first.dtype.kind == "f" and second.dtype.kind == "f":
        same |= np.isnan(first) & np.isnan(second)
    return np.asarray(same)
