"""The files of folds that were run apart: opened, found to belong together, and averaged row by row."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from dlgenome.errors import InputError, UsageError
from dlgenome.folds import FOLD_SD, fold_mean
from dlgenome.merging.beside import find_bed, find_skipped, restore_columns
from dlgenome.merging.joining import (
    CHECKPOINT,
    Header,
    Joining,
    by_target,
    has_whole_sequences,
    header_of,
    refuse_other_identity,
    refuse_other_kind,
)
from dlgenome.scores import ScoresFile
from dlgenome.types import ScoredWindow

logger = logging.getLogger(__name__)

Folds = Mapping[str, tuple[ScoresFile, ...]]
"""Target name -> the files of its folds, in the order given."""

_PARTS = "folds"


def open_folds(paths: Sequence[Path], stack: ExitStack, *, with_sd: bool) -> Joining:
    """The files, checked to be folds of one run; ``stack`` closes them.

    Raises UsageError for a target with fewer than two files, and InputError for files that cannot be read
    or that were not run alike.
    """
    files: dict[str, tuple[ScoresFile, ...]] = {}
    for path in paths:
        scores = stack.enter_context(ScoresFile(path))
        files[scores.target] = (*files.get(scores.target, ()), scores)
    headers = by_target([header_of(file) for group in files.values() for file in group])
    _check(headers)
    everything = [file for group in files.values() for file in group]
    for other in everything[1:]:
        _check_kind(everything[0], other)
    skipped, bed = find_skipped(everything), find_bed(everything)
    _warn(skipped is None, bed is None, headers)
    return Joining(
        headers=tuple(header for group in headers.values() for header in group),
        first={target: group[0] for target, group in headers.items()},
        contigs=everything[0].contigs,
        n_regions=everything[0].n_regions,
        whole_sequences=has_whole_sequences(everything[0]),
        identities={
            target: {**group[0].identity, CHECKPOINT: _checkpoints(group)}
            for target, group in headers.items()
        },
        skipped=skipped,
        rows=lambda: restore_columns(_mean_rows(files, with_sd=with_sd), bed),
        facts={
            "folds": [
                {"scores": header.path, "target": header.target, CHECKPOINT: header.attributes[CHECKPOINT]}
                for group in headers.values()
                for header in group
            ]
        },
    )


def _checkpoints(group: Sequence[Header]) -> str:
    """The checkpoint checksums with commas between them, as a run of several folds records them."""
    return ",".join(str(header.attributes[CHECKPOINT]) for header in group)


def _check(headers: Mapping[str, tuple[Header, ...]]) -> None:
    for target, group in headers.items():
        if len(group) < 2:
            raise UsageError(
                f"{group[0].path} is the only file of the target {target}; a mean needs the files of two "
                "folds or more."
            )
        _check_checkpoints(group)
        for other in group[1:]:
            refuse_other_identity(group[0], other, _PARTS, frozenset({CHECKPOINT}))
    first, *others = headers.values()
    for group in others:
        if _checkpoints(first) != _checkpoints(group):
            raise InputError(
                f"The files of {first[0].target} and of {group[0].target} are of other folds, or in another "
                "order; give the same folds for every target, in the same order."
            )


def _check_checkpoints(group: Sequence[Header]) -> None:
    seen: dict[str, Path] = {}
    for header in group:
        digest = str(header.attributes.get(CHECKPOINT, ""))
        if not digest:
            raise InputError(f"{header.path} does not say which checkpoint it was made with; make it again.")
        if "," in digest or FOLD_SD in header.extras:
            raise InputError(
                f"{header.path} is a mean over folds already; give the files of the single folds."
            )
        if digest in seen:
            raise InputError(
                f"{seen[digest]} and {header.path} were made with the same checkpoint; give each fold once."
            )
        seen[digest] = header.path


def _check_kind(first: ScoresFile, other: ScoresFile) -> None:
    facts = {
        "number of regions": (first.n_regions, other.n_regions),
        "window length": (first.length, other.length),
        "number type of the scores": (first.score_dtype, other.score_dtype),
        "list of further arrays": (first.extras, other.extras),
        "genome": (first.contigs, other.contigs),
    }
    if first.target == other.target:
        facts["answer to whether there are hypothetical contributions"] = (
            first.has_hypothetical,
            other.has_hypothetical,
        )
    refuse_other_kind(facts, first.path, other.path, _PARTS)


def _warn(no_skipped: bool, no_bed: bool, headers: Mapping[str, tuple[Header, ...]]) -> None:
    if no_skipped:
        logger.warning(
            "No PREFIX.skipped_regions.tsv lies beside the folds' files, so the new one is empty; which "
            "regions were skipped is not known."
        )
    if no_bed:
        logger.warning(
            "No PREFIX.interpreted_regions.bed lies beside the folds' files, so columns 5 and 7 to 9 of the "
            "new one are empty."
        )
    if any("adaptive_references" in group[0].identity for group in headers.values()):
        logger.warning(
            "Each fold chose its own number of references for a region (--adaptive-references); one run of "
            "all folds draws for every fold as many as any of them needs, so its scores differ slightly."
        )


def _mean_rows(folds: Folds, *, with_sd: bool) -> Iterator[list[ScoredWindow]]:
    """The mean rows, some at a time; no more than these are held of any file.

    Raises InputError where the files have other regions, or other bases in them.
    """
    first = next(iter(folds.values()))[0]
    for rows in first.pieces():
        found = {target: [file.scored(rows) for file in files] for target, files in folds.items()}
        expected = next(iter(found.values()))[0]
        for target, of_files in found.items():
            for file, piece in zip(folds[target], of_files, strict=True):
                _check_rows(first, expected, file, piece)
        yield [
            ScoredWindow(
                row.row,
                row.window,
                row.codes,
                {
                    target: fold_mean([piece[index].scores[target] for piece in of_files], with_sd)
                    for target, of_files in found.items()
                },
            )
            for index, row in enumerate(expected)
        ]


def _check_rows(
    first: ScoresFile, expected: Sequence[ScoredWindow], other: ScoresFile, found: Sequence[ScoredWindow]
) -> None:
    for ours, theirs in zip(expected, found, strict=True):
        if ours.window != theirs.window:
            raise InputError(
                f"Row {ours.row} is {ours.window.place} in {first.path} and {theirs.window.place} in "
                f"{other.path}; folds must score the same regions in the same order."
            )
        if not np.array_equal(ours.codes, theirs.codes):
            raise InputError(
                f"The sequence of row {ours.row} ({ours.window.place}) is not the same in {first.path} and "
                f"{other.path}; folds must be run on the same genome."
            )
