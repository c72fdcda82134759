"""bigWig tracks for genome browsers, made from a finished scores file in one pass along the genome."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import UsageError
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig
from dlgenome.writers.bigwig_file import BigWigFile
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.genome_order import GenomeOrder, OnContig, Tracks
from dlgenome.writers.overlap import Overlap, Values, blended_runs, owned_intervals


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
    order = GenomeOrder(scores, crop, contigs)
    tracks = Tracks(scores, extra, order.rows)
    for here in order:
        for start, values in _contig_runs(here, order.window_starts, tracks, overlap):
            yield here.contig.name, start, values


def _contig_runs(
    here: OnContig, window_starts: NDArray[np.int64], tracks: Tracks, overlap: Overlap
) -> Iterator[tuple[int, Values]]:
    def read(index: int, start: int, end: int) -> Values:
        place = here.first + index
        offset = int(window_starts[place])
        return tracks[place][start - offset : end - offset].copy()  # a view would keep the whole batch

    starts, ends = here.starts.data, here.ends.data
    if overlap == "nearest":
        for index, start, end in owned_intervals(here.centers.data, starts, ends):
            yield start, read(index, start, end)
    else:
        yield from blended_runs(here.rows.data, starts, ends, read, overlap)
