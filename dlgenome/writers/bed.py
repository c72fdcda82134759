"""``interpreted_regions.bed`` and ``skipped_regions.tsv``: which rows were scored, and why others not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dlgenome.types import Contig, SkippedRegion, Window
from dlgenome.writers.disk import clear_write_errors

SKIPPED_COLUMNS = ("input_row", "line", "chrom", "start", "end", "name", "reason")


def write_interpreted_regions(path: Path, windows: Iterable[Window], contigs: tuple[Contig, ...]) -> None:
    """Write ten columns a scored window, in row order.

    Start and end are the scored window, clipped at the chromosome, and start + column 10 is its centre, so
    that programs that centre on the summit and programs that centre on the midpoint land on the same base.
    """
    lengths = {contig.name: contig.length for contig in contigs}
    with clear_write_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        for window in windows:
            file.write(_narrow_peak(window, lengths[window.chrom]))


def write_skipped(path: Path, skipped: Iterable[SkippedRegion]) -> None:
    """Write one line a skipped region, below a header; coordinates are the input's own."""
    with clear_write_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(SKIPPED_COLUMNS) + "\n")
        for each in skipped:
            region = each.region
            file.write(
                f"{region.input_row}\t{region.line}\t{region.chrom}\t{region.start}\t{region.end}\t"
                f"{region.name}\t{each.reason}\n"
            )


def _narrow_peak(window: Window, chrom_length: int) -> str:
    region = window.region
    start, end = max(0, window.start), min(window.end, chrom_length)
    score = min(1000, max(0, region.score))
    values = "\t".join(_shortest(value) for value in (region.signal, region.p_value, region.q_value))
    return (
        f"{window.chrom}\t{start}\t{end}\t{region.name}\t{score}\t{region.strand}\t{values}\t"
        f"{window.center - start}\n"
    )


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number, without a needless ``.0``."""
    return repr(float(value)).removesuffix(".0")
