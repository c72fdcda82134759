"""Which regions of a file are scored, and in which order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import InputError, UsageError
from dlgenome.regions.bed import read_regions
from dlgenome.regions.fasta import Genome
from dlgenome.regions.table import NARROW_PEAK_COLUMNS, RegionTable
from dlgenome.types import Contig

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_SEED_DIGITS = 20


@dataclass(frozen=True)
class Selection:
    """The chosen regions in the order they are scored, and how many each selector left out."""

    table: RegionTable
    left_out: dict[str, int]
    """Rows left out by ``chroms``, ``exclude`` and ``limit``; always all three."""


def select(
    table: RegionTable,
    *,
    chroms: Sequence[str] = (),
    exclude: Path | None = None,
    order: str = "input",
    limit: int | None = None,
    contigs: Sequence[Contig] = (),
) -> Selection:
    """The regions that remain after ``chroms``, ``exclude``, ``order`` and ``limit``, applied in this order.

    ``contigs`` gives the order of ``genome``. Raises UsageError for an order or limit that cannot be, and
    InputError when no region is left.
    """
    rows = np.arange(len(table), dtype=np.int64)
    on_chroms = rows[_is_on(table, chroms)] if chroms else rows
    outside = on_chroms[~_overlaps(table, exclude)[on_chroms]] if exclude is not None else on_chroms
    ordered = outside if order == "input" else outside[_order(table.take(outside), order, contigs)]
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} leaves nothing to score; give a number of at least 1.")
    chosen = ordered[:limit]
    left_out = {
        "chroms": len(rows) - len(on_chroms),
        "exclude": len(on_chroms) - len(outside),
        "limit": len(ordered) - len(chosen),
    }
    if not len(chosen):
        raise InputError(
            f"{table.source}: none of {len(table)} regions is left ({left_out['chroms']} not on "
            f"--chroms{' ' if chroms else ''}{','.join(chroms)}, {left_out['exclude']} in --exclude); "
            f"the file has {_listed(table.chrom_names)}."
        )
    _warn_of_unused(table, chroms)
    return Selection(table.take(chosen), left_out)


def _warn_of_unused(table: RegionTable, chroms: Sequence[str]) -> None:
    unused = [name for name in chroms if name not in table.chrom_names]
    if unused:
        logger.warning("%s: no region is on %s.", table.source, _listed(unused))


def _is_on(table: RegionTable, chroms: Sequence[str]) -> NDArray[np.bool_]:
    chosen = set(chroms)
    wanted = [name in chosen for name in table.chrom_names]
    return np.array(wanted, dtype=bool)[table.chrom_codes]


def _overlaps(table: RegionTable, exclude: Path) -> NDArray[np.bool_]:
    """Per region, whether it shares a base with any interval of the BED file ``exclude``."""
    intervals = read_regions(exclude, allow_empty=True)
    overlapping = np.zeros(len(table), dtype=bool)
    for code, name in enumerate(table.chrom_names):
        if name not in intervals.chrom_names:
            continue
        there = intervals.chrom_codes == intervals.chrom_names.index(name)
        by_start = np.argsort(intervals.starts[there], kind="stable")
        starts = intervals.starts[there][by_start]
        furthest_end = np.maximum.accumulate(intervals.ends[there][by_start])
        here = np.flatnonzero(table.chrom_codes == code)
        # Of the intervals that begin before a region ends, does the one that reaches furthest enter it?
        before = np.searchsorted(starts, table.ends[here], side="left")
        reach = np.concatenate([[np.iinfo(np.int64).min], furthest_end])[before]
        overlapping[here] = reach > table.starts[here]
    if len(intervals) and not set(intervals.chrom_names) & set(table.chrom_names):
        logger.warning(
            "%s: has no chromosome in common with %s (%s; %s).",
            exclude,
            table.source,
            _listed(intervals.chrom_names),
            _listed(table.chrom_names),
        )
    return overlapping


def _order(table: RegionTable, order: str, contigs: Sequence[Contig]) -> NDArray[np.int64]:
    """The rows of the table in the wanted order."""
    kind, _, seed = order.partition(":")
    if order == "genome":
        return _genome_order(table, contigs)
    if order == "signal":
        if table.columns != NARROW_PEAK_COLUMNS:
            raise UsageError(
                f"--order signal sorts by column 7 of narrowPeak, but {table.source} has {table.columns} "
                "columns; use --order input or genome."
            )
        return np.argsort(-table.signals, kind="stable")
    if kind == "shuffle" and seed.isascii() and seed.isdigit() and len(seed) <= _SEED_DIGITS:
        # The raw stream of a bit generator is the same in every version of numpy; permutation() is not.
        return np.argsort(np.random.PCG64(int(seed)).random_raw(len(table)), kind="stable")
    raise UsageError(
        f"--order {order!r} is not known; use input, genome, signal or shuffle:SEED, as in shuffle:0."
    )


def _genome_order(table: RegionTable, contigs: Sequence[Contig]) -> NDArray[np.int64]:
    rank = {contig.name: position for position, contig in enumerate(contigs)}
    ranks = np.array(
        [rank.get(name, len(rank) + code) for code, name in enumerate(table.chrom_names)], dtype=np.int64
    )
    return np.lexsort((table.input_rows, table.ends, table.starts, ranks[table.chrom_codes]))


def check_contigs(table: RegionTable, genome: Genome, *, skip_missing: bool = False) -> NDArray[np.bool_]:
    """Per region, whether its contig is in the FASTA, shape (len(table),).

    Raises InputError with names, counts and the likely reason when some are not and ``skip_missing`` is off,
    or when all are not.
    """
    present = np.array([name in genome for name in table.chrom_names], dtype=bool)[table.chrom_codes]
    absent = int(np.count_nonzero(~present))
    if not absent or (skip_missing and absent < len(table)):
        return present
    per_code = np.bincount(table.chrom_codes[~present], minlength=len(table.chrom_names))
    names = [table.chrom_names[code] for code in np.argsort(-per_code, kind="stable") if per_code[code]]
    first = table.where(int(np.argmin(present)))
    remedy = _naming_hint(names, [contig.name for contig in genome.contigs])
    if not remedy:
        remedy = (
            f"the FASTA has {_listed([contig.name for contig in genome.contigs])}; "
            "give the genome the regions belong to"
            + ("" if absent == len(table) else " or --skip-missing-contigs")
        )
    raise InputError(
        f"{first}: {absent} of {len(table)} regions lie on contigs that are not in {genome.path}: "
        f"{_listed(names)}; {remedy}."
    )


def _naming_hint(absent: Sequence[str], contigs: Sequence[str]) -> str:
    """What to do when the two files only spell the chromosomes differently; empty when they do not."""
    known = set(contigs)
    for name in absent:
        other = name.removeprefix("chr") if name.startswith("chr") else f"chr{name}"
        for spelling in (other, "MT" if name == "chrM" else "", "chrM" if name == "MT" else ""):
            if spelling in known:
                return (
                    f"your regions say {name}, the FASTA says {spelling}: "
                    "rename the chromosomes in one of the two files"
                )
    return ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more if names else "no chromosome"
