"""From regions to the windows that the model sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dlgenome.config import Center, Edge
from dlgenome.errors import InputError
from dlgenome.regions.fasta import Genome
from dlgenome.regions.selection import check_contigs
from dlgenome.regions.table import RegionTable
from dlgenome.types import Region, SkippedRegion, Window


def make_window(region: Region, *, center: Center, length: int) -> Window:
    """The window of ``length`` bases around a region's summit or midpoint c: [c - length//2, + length).

    A region without a summit is centred on its midpoint, start + (end - start)//2.
    """
    position = region.start + (region.end - region.start) // 2
    if center == "summit" and region.summit >= 0:
        position = region.summit
    start = position - length // 2
    return Window(region=region, chrom=region.chrom, start=start, end=start + length, center=position)


class SkippedRows(Sequence[SkippedRegion]):
    """Rows of a table that get no window; each is made, with its reason, when it is asked for."""

    def __init__(self, table: RegionTable, rows: NDArray[np.int64], reason: Callable[[Region], str]) -> None:
        self._table, self._rows, self._reason = table, rows, reason

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> SkippedRegion: ...
    @overload
    def __getitem__(self, position: slice) -> SkippedRows: ...
    def __getitem__(self, position: int | slice) -> SkippedRegion | SkippedRows:
        if isinstance(position, slice):
            return SkippedRows(self._table, self._rows[position], self._reason)
        region = self._table[int(self._rows[position])]
        return SkippedRegion(region, self._reason(region))


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Which regions get a window and which do not; the windows themselves are made when asked for."""

    table: RegionTable
    center: Center
    length: int
    rows: NDArray[np.int32]
    """Rows of ``table`` that are scored, in the table's order."""
    skipped: Sequence[SkippedRegion]
    """The other rows, in the order of the input file."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Window]:
        return (self.window(position) for position in range(len(self)))

    def window(self, position: int) -> Window:
        """The window at this position among the scored rows."""
        return make_window(self.table[int(self.rows[position])], center=self.center, length=self.length)


def plan_windows(
    table: RegionTable,
    genome: Genome,
    *,
    center: Center = "summit",
    length: int,
    edge: Edge = "drop",
    skip_missing: bool = False,
) -> WindowPlan:
    """The windows of a table on a genome; those over a chromosome end are dropped or kept for padding.

    Raises InputError when a region itself runs past its contig, which means another assembly, and for contigs
    that are not in the FASTA unless ``skip_missing``.
    """
    if length < 1:
        raise ValueError(f"a window has at least one base, not {length}")
    present = check_contigs(table, genome, skip_missing=skip_missing)
    contig_lengths = _contig_lengths(table, genome)
    _refuse_regions_past_the_end(table, genome, present, contig_lengths)
    kept = present
    if edge == "drop":
        starts = _centers(table, center) - length // 2
        kept = present & (starts >= 0) & (starts + length <= contig_lengths)
    left_out = np.flatnonzero(~kept)
    in_file_order = left_out[np.argsort(table.input_rows[left_out], kind="stable")]
    reason = _reasons(genome, center, length)
    return WindowPlan(
        table,
        center,
        length,
        np.flatnonzero(kept).astype(np.int32),
        SkippedRows(table, in_file_order, reason),
    )


def _centers(table: RegionTable, center: Center) -> NDArray[np.int64]:
    midpoints = table.starts + (table.ends - table.starts) // 2
    return np.where(table.summits >= 0, table.summits, midpoints) if center == "summit" else midpoints


def _contig_lengths(table: RegionTable, genome: Genome) -> NDArray[np.int64]:
    """Length of each region's contig, 0 where the FASTA has none, shape (len(table),)."""
    lengths = [genome.length(name) if name in genome else 0 for name in table.chrom_names]
    return np.array(lengths, dtype=np.int64)[table.chrom_codes]


def _refuse_regions_past_the_end(
    table: RegionTable, genome: Genome, present: NDArray[np.bool_], contig_lengths: NDArray[np.int64]
) -> None:
    past = present & (table.ends > contig_lengths)
    if past.any():
        row = int(np.argmax(past))
        region = table[row]
        raise InputError(
            f"{table.where(row)}: the region ends at {region.end}, but {region.chrom} has only "
            f"{contig_lengths[row]} bases in {genome.path}, and {int(past.sum())} of {len(table)} "
            "regions run past an end: are they from another genome build?"
        )


def _reasons(genome: Genome, center: Center, length: int) -> Callable[[Region], str]:
    """A function that says why a region has no window."""

    def reason(region: Region) -> str:
        if region.chrom not in genome:
            return "contig not in FASTA"
        if make_window(region, center=center, length=length).start < 0:
            return f"window runs past the start of {region.chrom}"
        return f"window runs past the end of {region.chrom} (length {genome.length(region.chrom)})"

    return reason
