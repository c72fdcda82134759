"""What lies beside a scores file and is not in it: skipped regions, and the columns of the input's BED."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from dlgenome.errors import InputError
from dlgenome.types import Region, ScoredWindow, SkippedRegion, Window
from dlgenome.writers.bed import SKIPPED_COLUMNS
from dlgenome.writers.paths import paths_beside

logger = logging.getLogger(__name__)


class ScoresOf(Protocol):
    """A scores file, open or only known by what it says of itself."""

    @property
    def path(self) -> Path:
        """Where the file is."""

    @property
    def target(self) -> str:
        """The target's name, as in the file name."""


def output_settings(file: ScoresOf) -> dict[str, Any]:
    """The settings of the run in the run.json beside the file; empty where there is none to read."""
    paths = paths_beside(file.path, file.target)
    try:
        found = json.loads(paths.run_json.read_text(encoding="utf-8"))["settings"] if paths else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def find_skipped(files: Iterable[ScoresOf]) -> tuple[SkippedRegion, ...] | None:
    """The skipped regions of the runs that wrote the files, or None where no list lies beside them.

    Raises InputError for a list that is damaged and for lists that differ.
    """
    lists = _beside(files, "skipped_tsv")
    if not lists:
        return None
    first, *others = lists
    for other in others:
        if other.read_bytes() != first.read_bytes():
            raise InputError(
                f"{first} and {other} list different regions; folds must be run with the same inputs and "
                "settings, so run one of them again."
            )
    return tuple(_skipped(first))


def find_bed(files: Iterable[ScoresOf]) -> Path | None:
    """The first ``interpreted_regions.bed`` that lies beside the files."""
    return next(iter(_beside(files, "regions_bed")), None)


def restore_columns(pieces: Iterable[list[ScoredWindow]], bed: Path | None) -> Iterator[list[ScoredWindow]]:
    """The rows with the columns of the BED that HDF5 files do not store: score, signal, p and q value.

    Raises InputError for a BED that is not of these rows. Without one the rows pass as they are.
    """
    if bed is None:
        yield from pieces
        return
    with bed.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for piece in pieces:
            yield [replace(row, window=_restored(row, next(lines, ""), bed)) for row in piece]
        if next(lines, None) is not None:
            raise InputError(f"{bed} has more lines than its run has regions; move it away and join again.")


def _beside(files: Iterable[ScoresOf], kind: str) -> list[Path]:
    """The files of this kind that are there, of each run once."""
    found: dict[Path, None] = {}
    for file in files:
        paths = paths_beside(file.path, file.target)
        if paths is not None and getattr(paths, kind).is_file():
            found[getattr(paths, kind)] = None
    return list(found)


def _skipped(path: Path) -> Iterator[SkippedRegion]:
    header, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if tuple(header.split("\t")) != SKIPPED_COLUMNS:
        raise InputError(f"{path} is not a list of skipped regions; move it away and join again.")
    for number, line in enumerate(filter(None, lines), start=2):
        try:
            input_row, input_line, chrom, start, end, name, reason = line.split("\t")
            region = Region(
                chrom, int(start), int(end), name=name, input_row=int(input_row), line=int(input_line)
            )
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}, is damaged; copy the file again, or move it away."
            ) from error
        yield SkippedRegion(region, reason)


def _restored(row: ScoredWindow, line: str, bed: Path) -> Window:
    window, region = row.window, row.window.region
    try:
        chrom, start, _, name, score, _, signal, p_value, q_value, offset = line.rstrip("\n").split("\t")
        if (chrom, name, int(start) + int(offset)) != (window.chrom, region.name, window.center):
            raise ValueError(line)
        columns = int(score), float(signal), float(p_value), float(q_value)
    except ValueError as error:
        raise InputError(
            f"{bed}, line {row.row + 1}, is not row {row.row} of the scores beside it, so it is of another "
            "run; move it away and join again."
        ) from error
    score_column, signal_column, p_column, q_column = columns
    return replace(
        window,
        region=replace(region, score=score_column, signal=signal_column, p_value=p_column, q_value=q_column),
    )
