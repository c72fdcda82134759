"""The files of the shards of one run: found to be all of them, and read one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlgenome.config import parse_shard
from dlgenome.errors import InputError, UsageError
from dlgenome.merging.beside import find_bed, find_skipped, restore_columns
from dlgenome.merging.joining import (
    Header,
    Joining,
    by_target,
    has_whole_sequences,
    header_of,
    refuse_other_identity,
    refuse_other_kind,
)
from dlgenome.scores import AttributeValue, ScoresFile
from dlgenome.types import Contig, RegionScores, ScoredWindow, SkippedRegion
from dlgenome.writers.paths import paths_beside

logger = logging.getLogger(__name__)

BATCH_SIZE = "batch_size"

_PARTS = "shards"
_NAMES_SHOWN = 10


def open_shards(paths: Sequence[Path]) -> Joining:
    """The files, checked to be every shard of one run; no more than one shard is open at a time.

    Raises InputError, naming them, for shards that are missing, given twice, not finished or of another run.
    """
    headers, contigs, whole = _read_headers(paths)
    groups = by_target(headers)
    for group in groups.values():
        _check_alike(group)
    in_order = {target: _in_order(target, group) for target, group in groups.items()}
    first, *others = in_order.values()
    for group in others:
        _check_targets(first, group)
    shards = list(zip(*in_order.values(), strict=True))
    return Joining(
        headers=tuple(header for group in in_order.values() for header in group),
        first={target: group[0] for target, group in in_order.items()},
        contigs=contigs,
        n_regions=sum(header.n_regions for header in first),
        whole_sequences=whole,
        identities={target: _identity(group) for target, group in in_order.items()},
        skipped=tuple(region for shard in shards for region in _skipped(shard)),
        rows=lambda: _rows(shards),
        facts={"shards": [[header.path for header in shard] for shard in shards]},
    )


def _read_headers(paths: Sequence[Path]) -> tuple[list[Header], tuple[Contig, ...], bool]:
    headers: list[Header] = []
    contigs: tuple[Contig, ...] = ()
    whole = True
    for path in paths:
        with ScoresFile(path) as scores:
            contigs = contigs or scores.contigs
            whole = whole and has_whole_sequences(scores)
            headers.append(header_of(scores))
        _shard(headers[-1])
        _check_finished(headers[-1])
    return headers, contigs, whole


def _check_finished(header: Header) -> None:
    beside = paths_beside(header.path, header.target)
    if beside is not None and not beside.run_json.is_file():
        raise InputError(
            f"{header.path} is of a shard that is not finished, for {beside.run_json} is not there; run that "
            "shard again with --resume, or copy the file too."
        )


def _check_alike(group: Sequence[Header]) -> None:
    for other in group[1:]:
        refuse_other_identity(group[0], other, _PARTS, frozenset({BATCH_SIZE}))
        facts = {
            "window length": (group[0].length, other.length),
            "number type of the scores": (group[0].score_dtype, other.score_dtype),
            "list of further arrays": (group[0].extras, other.extras),
            "answer to whether there are hypothetical contributions": (
                group[0].has_hypothetical,
                other.has_hypothetical,
            ),
        }
        refuse_other_kind(facts, group[0].path, other.path, _PARTS)
    sizes = {str(header.identity.get(BATCH_SIZE)) for header in group}
    if len(sizes) > 1:
        logger.warning(
            "The shards took %s pairs a step, so the scores are those of one run to about a millionth of "
            "the largest, not to the bit.",
            " and ".join(sorted(sizes)),
        )


def _in_order(target: str, group: Sequence[Header]) -> tuple[Header, ...]:
    """The shards from the first to the last; raises InputError unless each is there once."""
    found: dict[int, Header] = {}
    n_parts = 0
    for header in group:
        part, parts = _shard(header)
        n_parts = n_parts or parts
        if parts != n_parts:
            raise InputError(
                f"{group[0].path} is one of {n_parts} shards and {header.path} one of {parts}; give the "
                "shards of one run."
            )
        if part in found:
            raise InputError(
                f"{found[part].path} and {header.path} are both shard {part} of {parts}; give each once."
            )
        found[part] = header
    missing = [part for part in range(1, n_parts + 1) if part not in found]
    if missing:
        raise InputError(_what_is_missing(target, missing, n_parts, group[0]))
    return tuple(found[part] for part in range(1, n_parts + 1))


def _shard(header: Header) -> tuple[int, int]:
    recorded = header.attributes.get("shards")
    try:
        return parse_shard(str(recorded))
    except UsageError as error:
        raise InputError(
            f"{header.path} is not a shard: it was not made with --shard. Folds of one model are joined with "
            "--mean."
        ) from error


def _what_is_missing(target: str, missing: Sequence[int], n_parts: int, example: Header) -> str:
    """Which shards, and which of them were begun."""
    beside = paths_beside(example.path, example.target)
    part, _ = _shard(example)
    ending = f".shard-{part}-of-{n_parts}"
    begun = []
    if beside is not None and beside.prefix.name.endswith(ending):
        stem = beside.prefix.name.removesuffix(ending)
        names = (f"{stem}.shard-{number}-of-{n_parts}.partial" for number in missing)
        begun = [name for name in names if (beside.prefix.parent / name).exists()]
    listed = ", ".join(map(str, missing[:_NAMES_SHOWN])) + (" ..." if len(missing) > _NAMES_SHOWN else "")
    noun = "shard" if len(missing) == 1 else "shards"
    started = f" ({', '.join(begun[:_NAMES_SHOWN])}: begun but not finished, use --resume)" if begun else ""
    return (
        f"{len(missing)} of {n_parts} shards of the target {target} are missing: {noun} {listed}{started}; "
        "run them, or add their files."
    )


def _check_targets(first: Sequence[Header], group: Sequence[Header]) -> None:
    if len(first) != len(group) or any(
        ours.n_regions != theirs.n_regions for ours, theirs in zip(first, group, strict=True)
    ):
        raise InputError(
            f"The shards of {first[0].target} and of {group[0].target} are not of the same run; give all the "
            "files of one run."
        )


def _identity(group: Sequence[Header]) -> dict[str, AttributeValue]:
    sizes = [int(header.identity[BATCH_SIZE]) for header in group if BATCH_SIZE in header.identity]
    return {**group[0].identity, **({BATCH_SIZE: min(sizes)} if sizes else {})}


def _skipped(shard: Sequence[Header]) -> Iterator[SkippedRegion]:
    found = find_skipped(shard)
    if found is None:
        raise InputError(
            f"No skipped_regions.tsv lies beside {shard[0].path}, so what this shard skipped is not known; "
            "copy that file too."
        )
    yield from found


def _rows(shards: Sequence[Sequence[Header]]) -> Iterator[list[ScoredWindow]]:
    """The rows of one shard after the other, numbered through."""
    done = 0
    for shard in shards:
        for piece in restore_columns(_shard_rows(shard), find_bed(shard)):
            yield [replace(row, row=done + index) for index, row in enumerate(piece)]
            done += len(piece)


def _shard_rows(shard: Sequence[Header]) -> Iterator[list[ScoredWindow]]:
    with ExitStack() as stack:
        files = [stack.enter_context(ScoresFile(header.path)) for header in shard]
        for rows in files[0].pieces():
            found = [file.scored(rows) for file in files]
            for file, piece in zip(files[1:], found[1:], strict=True):
                _check_rows(files[0], found[0], file, piece)
            yield [
                replace(row, scores=_all_targets([piece[index] for piece in found]))
                for index, row in enumerate(found[0])
            ]


def _all_targets(rows: Sequence[ScoredWindow]) -> dict[str, RegionScores]:
    scores: Mapping[str, RegionScores] = {}
    for row in rows:
        scores = {**scores, **row.scores}
    return dict(scores)


def _check_rows(
    first: ScoresFile, expected: Sequence[ScoredWindow], other: ScoresFile, found: Sequence[ScoredWindow]
) -> None:
    for ours, theirs in zip(expected, found, strict=True):
        if ours.window != theirs.window or not np.array_equal(ours.codes, theirs.codes):
            raise InputError(
                f"Row {ours.row} is not the same region in {first.path} and {other.path}; give the files of "
                "one run."
            )
