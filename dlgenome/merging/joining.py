"""What the files of several runs amount to, and the checks that folds and shards have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlgenome.errors import InputError
from dlgenome.scores import AttributeValue, ScoresFile
from dlgenome.types import Contig, ScoredWindow, SkippedRegion

CHECKPOINT = "checkpoint_sha256"

_WRITTEN_AGAIN = ("format_version", "target_name")


@dataclass(frozen=True)
class Header:
    """What a scores file says of itself, without its rows."""

    path: Path
    target: str
    n_regions: int
    length: int
    score_dtype: str
    extras: tuple[str, ...]
    has_hypothetical: bool
    attributes: Mapping[str, AttributeValue]
    identity: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Joining:
    """Runs that belong together, checked; their rows are still in their files."""

    headers: tuple[Header, ...]
    """Of every file, target by target."""
    first: Mapping[str, Header]
    """The first file of each target."""
    contigs: tuple[Contig, ...]
    n_regions: int
    whole_sequences: bool
    """Whether every window is a whole sequence, as where FASTA records themselves are scored."""
    identities: Mapping[str, Mapping[str, AttributeValue]]
    """Of the joined run, for each target."""
    skipped: tuple[SkippedRegion, ...] | None
    """None where that is not known."""
    rows: Callable[[], Iterator[list[ScoredWindow]]]
    """The rows of the joined run, some at a time."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What run.json says of the files that were joined."""

    @property
    def any_header(self) -> Header:
        """The first file of the first target."""
        return self.headers[0]

    def split_identity(self) -> tuple[dict[str, AttributeValue], dict[str, dict[str, AttributeValue]]]:
        """The identity that all targets share, and what each has beside it."""
        first, *others = self.identities.values()
        shared = {
            name: value
            for name, value in first.items()
            if name not in ("target", *_WRITTEN_AGAIN) and all(one.get(name) == value for one in others)
        }
        own = {
            target: {
                name: value
                for name, value in identity.items()
                if name not in shared and name not in _WRITTEN_AGAIN
            }
            for target, identity in self.identities.items()
        }
        return shared, own


def header_of(scores: ScoresFile) -> Header:
    """What an open file says of itself."""
    return Header(
        path=scores.path,
        target=scores.target,
        n_regions=scores.n_regions,
        length=scores.length,
        score_dtype=scores.score_dtype,
        extras=scores.extras,
        has_hypothetical=scores.has_hypothetical,
        attributes=scores.attributes,
        identity=scores.identity,
    )


def by_target(headers: Sequence[Header]) -> dict[str, tuple[Header, ...]]:
    """The headers of each target, in the order given."""
    found: dict[str, tuple[Header, ...]] = {}
    for header in headers:
        found[header.target] = (*found.get(header.target, ()), header)
    return found


def refuse_other_identity(first: Header, other: Header, parts: str, ignored: frozenset[str]) -> None:
    """Raise InputError, naming what differs, unless both files were run alike."""
    ours, theirs = first.identity, other.identity
    for name in sorted((ours.keys() | theirs.keys()) - ignored):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{name} is {ours.get(name, 'not given')} in {first.path} and "
                f"{theirs.get(name, 'not given')} in {other.path}; {parts} must be run with the same inputs "
                "and settings, so run one of them again."
            )


def refuse_other_kind(facts: Mapping[str, tuple[Any, Any]], first: Path, other: Path, parts: str) -> None:
    """Raise InputError, naming the first fact in which the two files differ."""
    for what, (ours, theirs) in facts.items():
        if ours != theirs:
            raise InputError(
                f"{first} and {other} differ in the {what}, so they cannot be joined; "
                f"{parts} must be run with the same inputs and settings."
            )


def has_whole_sequences(scores: ScoresFile) -> bool:
    """Whether every window is a sequence from end to end."""
    lengths = {contig.name: contig.length for contig in scores.contigs}
    starts, ends = scores.regions["start"], scores.regions["end"]
    whole = [lengths.get(str(chrom), -1) for chrom in scores.regions["chrom"]]
    return not starts.any() and bool(np.array_equal(ends, whole))
