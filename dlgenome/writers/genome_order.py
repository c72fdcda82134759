"""The windows of a scores file along the genome: where they lie, and one value a base for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import InputError
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig
from dlgenome.writers.blocks import chunk_rows
from dlgenome.writers.overlap import Values

PIECE_ROWS = 2**16
"""Rows of a column that are read at once."""
PIECE_BYTES = 2**20
"""Float32 scores of neighbouring rows that are read at once."""
BATCH_BYTES = 2**22
"""Float32 values, one a base, of the windows that are read together."""


@dataclass(frozen=True, eq=False)
class OnContig:
    """The windows of one contig, in the order of their shown starts."""

    contig: Contig
    first: int
    """Place of the first of them among the windows of all contigs."""
    rows: NDArray[np.int64]
    centers: NDArray[np.int64]
    starts: NDArray[np.int64]
    """Where the part of each window that is shown begins, and where it ends."""
    ends: NDArray[np.int64]


class GenomeOrder:
    """Where the windows of a scores file lie, by contig, start, centre and row; some fifty bytes a region.

    With ``crop`` only that many central bases of a window are shown; what lies beyond its contig never is.
    Raises InputError for a region on none of the contigs.
    """

    def __init__(self, scores: ScoresFile, crop: int | None, contigs: tuple[Contig, ...]) -> None:
        self._contigs, self._crop = contigs, crop
        self._length = scores.length
        ranks = _ranks(scores, contigs)
        centers, starts = scores.stored("regions/summit"), scores.stored("regions/start")
        self.rows: NDArray[np.int64] = np.lexsort((centers, self._shown_starts(centers, starts), ranks))
        """The rows in this order."""
        self._bounds = np.append(0, np.cumsum(np.bincount(ranks, minlength=len(contigs)))).tolist()
        del ranks
        self._centers = centers[self.rows]
        del centers
        self.window_starts: NDArray[np.int64] = starts[self.rows]
        """First base of each window, shown or not."""

    def __iter__(self) -> Iterator[OnContig]:
        """The contigs that have windows, in their order."""
        for contig, (first, last) in zip(self._contigs, pairwise(self._bounds), strict=True):
            if first == last:
                continue
            here = slice(first, last)
            centers, starts = self._centers[here], self.window_starts[here]
            ends = starts + self._length
            if self._crop is not None:
                ends = np.minimum(ends, centers - self._crop // 2 + self._crop)
            np.minimum(ends, contig.length, out=ends)
            yield OnContig(contig, first, self.rows[here], centers, self._shown_starts(centers, starts), ends)

    def _shown_starts(self, centers: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._crop is not None:
            starts = np.maximum(starts, centers - self._crop // 2)
        return np.maximum(starts, 0)


def _ranks(scores: ScoresFile, contigs: tuple[Contig, ...]) -> NDArray[np.int32]:
    """Place of each row's contig among the contigs."""
    rank = {contig.name.encode(): position for position, contig in enumerate(contigs)}
    ranks = np.empty(scores.n_regions, np.int32)
    for first in range(0, len(ranks), PIECE_ROWS):
        here = slice(first, first + PIECE_ROWS)
        names, which = np.unique(scores.stored("regions/chrom", here), return_inverse=True)
        for name in names.tolist():
            if name not in rank:
                raise InputError(
                    f"{scores.path} has regions on {name.decode(errors='replace')}, which is not a sequence "
                    "of the genome."
                )
        ranks[here] = np.array([rank[name] for name in names.tolist()], np.int32)[which]
    return ranks


class Tracks:
    """The sum over the bases at each position of a window, for windows asked for in the order of the genome.

    One chunk of the file holds many short windows, so windows are read by the batch and each chunk once.
    """

    def __init__(self, scores: ScoresFile, extra: str | None, rows: NDArray[np.int64]) -> None:
        self._scores, self._extra, self._rows = scores, extra, rows
        self._batch_rows = max(1, BATCH_BYTES // (4 * scores.length))
        self._chunk_rows = chunk_rows(scores.length, np.dtype(scores.score_dtype).itemsize)
        self._first, self._batch = 0, np.zeros((0, scores.length), np.float32)

    def __getitem__(self, place: int) -> Values:
        """(length,) of the window at this place of the order; InputError where it is not finite."""
        if not self._first <= place < self._first + len(self._batch):
            self._first = place - place % self._batch_rows
            del self._batch  # before there is another
            self._batch = self._load(self._first)
        values: Values = self._batch[place - self._first]
        return values

    def _load(self, first: int) -> Values:
        rows = self._rows[first : first + self._batch_rows]
        by_row = np.argsort(rows)
        tracks = np.empty((len(rows), self._scores.length), np.float32)
        for places in self._neighbours(rows[by_row]):
            wanted = rows[by_row[places]]
            start, stop = wanted[0] // self._chunk_rows, wanted[-1] // self._chunk_rows + 1
            piece = slice(start * self._chunk_rows, stop * self._chunk_rows)
            sums = self._stored(piece).sum(axis=1, dtype=np.float32)
            tracks[by_row[places]] = sums[wanted - piece.start]
        self._check(rows, tracks)
        return tracks

    def _neighbours(self, rows: NDArray[np.int64]) -> Iterator[slice]:
        """Stretches of the ascending rows that lie in neighbouring chunks, and in one piece of the file."""
        chunks = rows // self._chunk_rows
        pieces = chunks // max(1, PIECE_BYTES // (16 * self._scores.length * self._chunk_rows))
        cuts = np.flatnonzero((np.diff(chunks) > 1) | (np.diff(pieces) > 0)) + 1
        bounds = [0, *cuts.tolist(), len(rows)]
        return (slice(*two) for two in pairwise(bounds))

    def _stored(self, rows: slice) -> NDArray[np.float32]:
        return self._scores.projected(rows) if self._extra is None else self._scores.extra(self._extra, rows)

    def _check(self, rows: NDArray[np.int64], tracks: Values) -> None:
        finite = np.isfinite(tracks).all(axis=1)
        if not finite.all():
            row = int(rows[np.argmin(finite)])
            [window] = self._scores.windows_of(slice(row, row + 1))
            raise InputError(
                f"{self._scores.path} holds scores that are not finite numbers for {window.chrom}:"
                f"{window.start}-{window.end} (row {row}); a bigWig cannot be made from it."
            )
