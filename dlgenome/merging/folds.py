"""The files of folds that were run apart: opened, found to belong together, and averaged row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from dlgenome.errors import InputError, UsageError
from dlgenome.folds import FOLD_SD, fold_mean
from dlgenome.scores import AttributeValue, ScoresFile
from dlgenome.types import ScoredWindow, Window

CHECKPOINT = "checkpoint_sha256"
"""The one identity attribute in which folds differ."""

PIECE_BYTES = 2**20

Folds = Mapping[str, tuple[ScoresFile, ...]]
"""Target name -> the files of its folds, in the order given."""


def open_folds(paths: Sequence[Path], stack: ExitStack) -> Folds:
    """The files by target, checked to be folds of one run; ``stack`` closes them.

    Raises UsageError for a target with fewer than two files, and InputError for files that cannot be read
    or that were not run alike.
    """
    folds: dict[str, tuple[ScoresFile, ...]] = {}
    for path in paths:
        scores = stack.enter_context(ScoresFile(path))
        folds[scores.target] = (*folds.get(scores.target, ()), scores)
    for target, files in folds.items():
        if len(files) < 2:
            raise UsageError(
                f"{files[0].path} is the only file of the target {target}; a mean needs the files of two "
                "folds or more."
            )
        _check_checkpoints(files)
        for other in files[1:]:
            _check_identity(files[0], other)
    first, *others = folds.values()
    for files in others:
        _check_same_folds(first, files)
    for other in (file for files in folds.values() for file in files):
        _check_kind(first[0], other)
    return folds


def joined_checkpoints(files: Sequence[ScoresFile]) -> str:
    """The checkpoint checksums with commas between them, as a run of several folds records them."""
    return ",".join(str(file.attributes[CHECKPOINT]) for file in files)


def joined_identity(files: Sequence[ScoresFile]) -> dict[str, AttributeValue]:
    """The identity of the run of all these folds of one target."""
    return {**files[0].identity, CHECKPOINT: joined_checkpoints(files)}


def joined_rows(folds: Folds, *, with_sd: bool) -> Iterator[list[ScoredWindow]]:
    """The mean rows, some at a time; no more than these are held of any file.

    Raises InputError where the files have other regions, or other bases in them.
    """
    first = next(iter(folds.values()))[0]
    for rows in _pieces(first):
        by_target = {target: [file.scored(rows) for file in files] for target, files in folds.items()}
        expected = next(iter(by_target.values()))[0]
        for target, pieces in by_target.items():
            for file, piece in zip(folds[target], pieces, strict=True):
                _check_rows(first, expected, file, piece)
        yield [
            ScoredWindow(
                row.row,
                row.window,
                row.codes,
                {
                    target: fold_mean([piece[index].scores[target] for piece in pieces], with_sd)
                    for target, pieces in by_target.items()
                },
            )
            for index, row in enumerate(expected)
        ]


def _pieces(scores: ScoresFile) -> Iterator[slice]:
    """Slices of about a megabyte of scores; a power of two of rows, as chunks are."""
    fitting = max(1, PIECE_BYTES // (16 * scores.length))
    step = 1 << (fitting.bit_length() - 1)
    return (slice(start, start + step) for start in range(0, scores.n_regions, step))


def _check_checkpoints(files: Sequence[ScoresFile]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        digest = str(file.attributes.get(CHECKPOINT, ""))
        if not digest:
            raise InputError(f"{file.path} does not say which checkpoint it was made with; make it again.")
        if "," in digest or FOLD_SD in file.extras:
            raise InputError(f"{file.path} is a mean over folds already; give the files of the single folds.")
        if digest in seen:
            raise InputError(
                f"{seen[digest]} and {file.path} were made with the same checkpoint; give each fold once."
            )
        seen[digest] = file.path


def _check_identity(first: ScoresFile, other: ScoresFile) -> None:
    ours, theirs = first.identity, other.identity
    for name in sorted((ours.keys() | theirs.keys()) - {CHECKPOINT}):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{name} is {ours.get(name, 'not given')} in {first.path} and "
                f"{theirs.get(name, 'not given')} in {other.path}; folds must be run with the same inputs "
                "and settings, so run one of them again."
            )


def _check_same_folds(first: Sequence[ScoresFile], files: Sequence[ScoresFile]) -> None:
    if joined_checkpoints(first) != joined_checkpoints(files):
        raise InputError(
            f"The files of {first[0].target} and of {files[0].target} are of other folds, or in another "
            "order; give the same folds for every target, in the same order."
        )


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
    for what, (ours, theirs) in facts.items():
        if ours != theirs:
            raise InputError(
                f"{first.path} and {other.path} differ in the {what}, so they cannot be joined; "
                "folds must be run with the same inputs and settings."
            )


def _check_rows(
    first: ScoresFile, expected: Sequence[ScoredWindow], other: ScoresFile, found: Sequence[ScoredWindow]
) -> None:
    for ours, theirs in zip(expected, found, strict=True):
        if ours.window != theirs.window:
            raise InputError(
                f"Row {ours.row} is {_place(ours.window)} in {first.path} and {_place(theirs.window)} in "
                f"{other.path}; folds must score the same regions in the same order."
            )
        if not np.array_equal(ours.codes, theirs.codes):
            raise InputError(
                f"The sequence of row {ours.row} ({_place(ours.window)}) is not the same in {first.path} and "
                f"{other.path}; folds must be run on the same genome."
            )


def _place(window: Window) -> str:
    return f"{window.chrom}:{window.start}-{window.end} ({window.region.name})"
