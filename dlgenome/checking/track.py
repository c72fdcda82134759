"""Whether a bigWig holds what the scores beside it give, base by base."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
from numpy.typing import NDArray

from dlgenome.checking.findings import Problem
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig
from dlgenome.writers.bigwig import track_runs
from dlgenome.writers.overlap import Overlap, Values

STRETCH_BASES = 2**14
"""Bases that are read together where windows lie close; a block of the file holds some thousands."""
GAP_BASES = 2**16
"""Bases between windows that are looked at together; each could have a value that must not be there."""

_AS_ARRAY = {"numpy": True} if pyBigWig.numpy else {}
"""Some builds of the library know lists only."""

_KINDS = {
    "differing": "has other values than the scores give at",
    "absent": "has no value, though a window lies there, at",
    "superfluous": "has a value, though no window lies there, at",
}


@dataclass(frozen=True)
class Track:
    """A bigWig, and how it is to be made from the scores."""

    bigwig: Path
    scores: Path
    overlap: Overlap = "nearest"
    crop: int | None = None
    extra: str | None = None
    """The array that it shows instead of the projected scores."""


@dataclass(frozen=True)
class TrackVerdict:
    """How many bases were compared, and what was wrong."""

    bases: int
    problems: tuple[Problem, ...]


def check_track(track: Track) -> TrackVerdict:
    """The comparison, in a process of its own: on some damaged files the bigWig library crashes."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=_be_silent) as process:
            return process.submit(compare_track, track).result()
    except BrokenProcessPool:
        return _unreadable(track, "the library that reads it crashed")


def _be_silent() -> None:
    """The library writes about damage to stderr; the verdict says it once."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def compare_track(track: Track) -> TrackVerdict:
    """Read the bigWig along the genome and work out every value anew; memory holds a few windows.

    Raises InputError when the scores cannot be read, or cannot be made into a track at all.
    """
    if not _is_whole(track.bigwig):
        return _unreadable(track, "it is not a bigWig, or cut off")
    # pyBigWig takes names that look like an address to the network; an absolute path never does.
    try:
        bigwig = pyBigWig.open(str(track.bigwig.absolute()))
    except RuntimeError:
        return _unreadable(track, "its header or its index is damaged")
    try:
        with bigwig, ScoresFile(track.scores) as scores:
            if not bigwig.isBigWig():
                return _unreadable(track, "it is a bigBed")
            return _Comparison(track, bigwig, scores).verdict()
    except RuntimeError as error:
        return _unreadable(track, str(error).rstrip("!. "))


def _is_whole(bigwig: Path) -> bool:
    """Whether the file ends with the four bytes that it begins with, as the format has it."""
    try:
        with bigwig.open("rb") as file:
            first = file.read(4)
            file.seek(-4, os.SEEK_END)
            return file.read(4) == first
    except OSError:
        return False


def _unreadable(track: Track, why: str) -> TrackVerdict:
    message = f"{track.bigwig} cannot be read ({why}); make it again, or copy it again."
    return TrackVerdict(0, (Problem("bigWig", message),))


class _Comparison:
    """What differs, counted along the genome."""

    def __init__(self, track: Track, bigwig: Any, scores: ScoresFile) -> None:
        self.track, self.bigwig, self.scores = track, bigwig, scores
        self.bases = 0
        self.counts = dict.fromkeys(_KINDS, 0)
        self.first: dict[str, str] = {}

    def verdict(self) -> TrackVerdict:
        contigs = tuple(_contig_problems(self.track, self.bigwig.chroms(), self.scores.contigs))
        if not contigs:
            self._compare_all()
        found = [
            Problem("bigWig", f"{self.track.bigwig} {what} {count:,} bases; the first is {self.first[kind]}.")
            for (kind, what), count in zip(_KINDS.items(), self.counts.values(), strict=True)
            if count
        ]
        return TrackVerdict(self.bases, (*contigs, *found))

    def _compare_all(self) -> None:
        track, contigs = self.track, self.scores.contigs
        runs = track_runs(self.scores, track.overlap, track.crop, contigs, track.extra)
        place = position = 0
        for chrom, start, expected in stretches(runs):
            while contigs[place].name != chrom:
                self._check_gap(contigs[place].name, position, contigs[place].length)
                place, position = place + 1, 0
            self._check_gap(chrom, position, start)
            self._compare_stretch(chrom, start, expected)
            position = start + len(expected)
        for contig in contigs[place:]:
            self._check_gap(contig.name, position, contig.length)
            position = 0

    def _compare_stretch(self, chrom: str, start: int, expected: Values) -> None:
        stop = start + len(expected)
        found = np.asarray(self.bigwig.values(chrom, start, stop, **_AS_ARRAY), dtype=np.float32)
        covered, there = ~np.isnan(expected), ~np.isnan(found)
        self.bases += int(np.count_nonzero(covered))
        differing = covered & there & (found != expected)
        self._count(
            "differing", differing, lambda i: f"{found[i]:.6g} instead of {expected[i]:.6g}", chrom, start
        )
        self._count("absent", covered & ~there, lambda i: f"{expected[i]:.6g} is due", chrom, start)
        self._count("superfluous", there & ~covered, lambda i: f"{found[i]:.6g}", chrom, start)

    def _count(
        self, kind: str, bad: NDArray[np.bool_], words: Callable[[int], str], chrom: str, start: int
    ) -> None:
        count = int(np.count_nonzero(bad))
        if count:
            index = int(np.argmax(bad))
            self.counts[kind] += count
            self.first.setdefault(kind, f"{chrom}:{start + index:,} ({words(index)})")

    def _check_gap(self, chrom: str, start: int, stop: int) -> None:
        for left in range(start, stop, GAP_BASES):
            right = min(left + GAP_BASES, stop)
            for first, last, value in self.bigwig.intervals(chrom, left, right) or ():
                inside = max(first, left), min(last, right)
                self.counts["superfluous"] += inside[1] - inside[0]
                self.first.setdefault("superfluous", f"{chrom}:{inside[0]:,} ({value:.6g})")


def stretches(runs: Iterable[tuple[str, int, Values]]) -> Iterator[tuple[str, int, Values]]:
    """(chrom, start, values) with neighbouring runs put together, NaN between them."""
    held: list[tuple[str, int, Values]] = []
    for run in runs:
        chrom, start, values = run
        if held and (chrom != held[0][0] or start + len(values) - held[0][1] > STRETCH_BASES):
            yield _joined(held)
            held = []
        held.append(run)
    if held:
        yield _joined(held)


def _joined(runs: Sequence[tuple[str, int, Values]]) -> tuple[str, int, Values]:
    chrom, first, _ = runs[0]
    joined = np.full(runs[-1][1] + len(runs[-1][2]) - first, np.nan, dtype=np.float32)
    for _, start, values in runs:
        joined[start - first : start - first + len(values)] = values
    return chrom, first, joined


def _contig_problems(track: Track, found: dict[str, int], contigs: tuple[Contig, ...]) -> Iterator[Problem]:
    expected = {contig.name: contig.length for contig in contigs}
    lacking = [name for name in expected if name not in found]
    foreign = [name for name in found if name not in expected]
    resized = [name for name in expected if name in found and expected[name] != found[name]]
    where = f"{track.bigwig} is of another genome:"
    if lacking:
        yield Problem("bigWig", f"{where} it lacks {len(lacking):,} contigs, the first is {lacking[0]}.")
    if foreign:
        yield Problem("bigWig", f"{where} it has {len(foreign):,} more contigs, the first is {foreign[0]}.")
    if resized:
        name = resized[0]
        yield Problem(
            "bigWig",
            f"{where} {len(resized):,} contigs have another length, the first is {name} with {found[name]:,} "
            f"bases instead of {expected[name]:,}.",
        )
