"""bigWig tracks for genome browsers, made from a finished scores file in one pass along the genome."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import InputError, UsageError
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig
from dlgenome.writers.bigwig_file import BigWigFile
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.overlap import Overlap, Values, blended_runs, owned_intervals

CACHED_WINDOWS = 16
"""A window around a smaller one is needed twice, a moment apart."""


def write_bigwig(
    path: Path,
    scores: ScoresFile,
    *,
    overlap: Overlap = "nearest",
    crop: int | None = None,
    contigs: tuple[Contig, ...],
    extra: str | None = None,
) -> None:
    """Write one value a base: the sum over the four bases of the projected scores, as float32.

    With ``extra`` it is the sum over that array instead. Bases in no window are absent. ``crop`` takes only
    the central bases of every window. Raises InputError for a region outside the contigs and for scores that
    are not finite, which crash readers, and Interrupted where the disk fails.
    """
    if crop is not None and not 0 < crop <= scores.length:
        raise UsageError(f"--crop {crop} must be from 1 to the length of a window, {scores.length}.")
    with clear_write_errors(path), BigWigFile(path, contigs) as bigwig:
        for chrom, start, values in track_runs(scores, overlap, crop, contigs, extra):
            bigwig.add(chrom, start, values)


def track_runs(
    scores: ScoresFile, overlap: Overlap, crop: int | None, contigs: tuple[Contig, ...], extra: str | None
) -> Iterator[tuple[str, int, Values]]:
    """(chrom, start, values) in the order of the contigs and along each of them, as `write_bigwig` has them.

    Raises InputError as that does.
    """
    centers = scores.regions["summit"]
    starts, ends = scores.regions["start"], scores.regions["end"]
    if crop is not None:
        starts = np.maximum(starts, centers - crop // 2)
        ends = np.minimum(ends, centers - crop // 2 + crop)
    for contig, rows in _rows_by_contig(scores, contigs):
        on_contig = np.maximum(starts[rows], 0), np.minimum(ends[rows], contig.length)
        for start, values in _contig_runs(scores, overlap, extra, rows, centers[rows], *on_contig):
            yield contig.name, start, values


def _rows_by_contig(
    scores: ScoresFile, contigs: tuple[Contig, ...]
) -> Iterator[tuple[Contig, NDArray[np.intp]]]:
    """The rows of each contig that has any, in the order of the contigs; rows ascend."""
    rank = {contig.name: position for position, contig in enumerate(contigs)}
    names, which = np.unique(scores.regions["chrom"], return_inverse=True)
    unknown = [str(name) for name in names if str(name) not in rank]
    if unknown:
        raise InputError(f"{scores.path} has regions on {unknown[0]}, which is not a sequence of the genome.")
    ranks = np.array([rank[str(name)] for name in names], dtype=np.int64)[which]
    order = np.argsort(ranks, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(ranks[order])) + 1):
        if len(rows):
            yield contigs[int(ranks[rows[0]])], rows


def _contig_runs(
    scores: ScoresFile,
    overlap: Overlap,
    extra: str | None,
    rows: NDArray[np.intp],
    centers: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Iterator[tuple[int, Values]]:
    window_starts = scores.regions["start"]

    @lru_cache(CACHED_WINDOWS)
    def track(row: int) -> Values:
        stored = scores.projected(row) if extra is None else scores.extra(extra, row)
        values: Values = stored.sum(axis=0, dtype=np.float32)
        if not np.isfinite(values).all():
            window = scores.window(row)
            raise InputError(
                f"{scores.path} holds scores that are not finite numbers for {window.chrom}:{window.start}-"
                f"{window.end} (row {row}); a bigWig cannot be made from it."
            )
        return values

    def read(row: int, start: int, end: int) -> Values:
        offset = int(window_starts[row])
        return track(row)[start - offset : end - offset]

    if overlap == "nearest":
        for index, start, end in owned_intervals(centers.data, starts.data, ends.data):
            yield start, read(int(rows[index]), start, end)
        return
    order = np.lexsort((rows, starts))
    ordered, first, last = (values[order].data for values in (rows, starts, ends))
    yield from blended_runs(ordered, first, last, read, overlap)
