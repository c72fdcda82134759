"""The kinds of references by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import UsageError
from dlgenome.references.file import open_references
from dlgenome.references.frequency import FrequencyReferences, parse_frequencies
from dlgenome.references.shuffled import ShuffledReferences, check_shuffle_length
from dlgenome.types import Codes

DEFAULT_N_REFERENCES = 20


class ReferenceSource(Protocol):
    """Where the references of a sequence come from.

    Every reference is N (code 4, or a column of zeros) where its sequence is N.
    """

    @property
    def name(self) -> str:
        """The kind in the one spelling that is written to files."""

    @property
    def n_references(self) -> int:
        """References of each sequence; 1 where all would be equal."""

    @property
    def is_coded(self) -> bool:
        """True where references are codes, uint8 (..., length); else they are float32 (..., 4, length)."""

    @property
    def path(self) -> Path | None:
        """The file that the references are read from, for the record; None where there is none."""

    def draw(self, codes: Codes, input_row: int) -> NDArray[Any]:
        """The references of one sequence of codes: (references, length) or (references, 4, length)."""

    def draw_batch(self, codes: Codes, input_rows: NDArray[np.int64], first: int = 0) -> NDArray[Any]:
        """The references of (sequences, length) codes, each equal to what ``draw`` gives.

        ``first`` counts from a later index on; only shuffles have more than ``n_references``.
        """

    def close(self) -> None:
        """Let go of the file, if there is one."""


@dataclass(frozen=True, slots=True)
class _Request:
    argument: str
    n_references: int | None
    seed: int
    window: int
    n_input_rows: int


def parse_references(
    spec: str, *, n_references: int | None, seed: int, window: int, n_input_rows: int
) -> ReferenceSource:
    """The source that ``--references`` names, such as ``dinucleotide-shuffle`` or ``file:PATH``.

    ``n_references`` is None where the user gave no number: 20, or as many as the file holds. Raises
    UsageError where the request makes no sense and InputError where the file does not fit.
    """
    kind, colon, argument = spec.partition(":")
    if n_references is not None and n_references < 1:
        raise UsageError(f"--n-references {n_references}: at least one reference is needed")
    if not 0 <= seed < 2**64:
        raise UsageError(f"--seed {seed}: the seed must be from 0 to 2**64 - 1")
    if kind not in _KINDS:
        raise UsageError(_unknown_kind(spec, kind))
    usage, build = _KINDS[kind]
    if bool(argument) != (":" in usage) or (colon and not argument):
        raise UsageError(f"--references {spec} is not understood: write {usage}")
    return build(_Request(argument, n_references, seed, window, n_input_rows))


def _dinucleotide_shuffle(request: _Request) -> ReferenceSource:
    return _shuffled("dinucleotide-shuffle", request, dinucleotides=True)


def _shuffle(request: _Request) -> ReferenceSource:
    return _shuffled("shuffle", request, dinucleotides=False)


def _shuffled(name: str, request: _Request, *, dinucleotides: bool) -> ReferenceSource:
    check_shuffle_length(request.window)
    n_references = DEFAULT_N_REFERENCES if request.n_references is None else request.n_references
    return ShuffledReferences(name, n_references, request.seed, dinucleotides)


def _zeros(request: _Request) -> ReferenceSource:
    return FrequencyReferences("zeros", (0.0, 0.0, 0.0, 0.0))


def _uniform(request: _Request) -> ReferenceSource:
    return FrequencyReferences("uniform", (0.25, 0.25, 0.25, 0.25))


def _frequency(request: _Request) -> ReferenceSource:
    frequencies = parse_frequencies(request.argument)
    name = "frequency:" + ",".join(f"{frequency:.6g}" for frequency in frequencies)
    return FrequencyReferences(name, frequencies)


def _file(request: _Request) -> ReferenceSource:
    return open_references(
        Path(request.argument).expanduser(),
        n_references=request.n_references,
        window=request.window,
        n_input_rows=request.n_input_rows,
    )


_KINDS: dict[str, tuple[str, Callable[[_Request], ReferenceSource]]] = {
    "dinucleotide-shuffle": ("dinucleotide-shuffle", _dinucleotide_shuffle),
    "shuffle": ("shuffle", _shuffle),
    "zeros": ("zeros", _zeros),
    "uniform": ("uniform", _uniform),
    "frequency": ("frequency:A,C,G,T", _frequency),
    "file": ("file:PATH", _file),
}


def _unknown_kind(spec: str, kind: str) -> str:
    nearest = [name for name in _KINDS if kind and name.startswith(kind)]
    nearest += difflib.get_close_matches(kind, _KINDS, n=1, cutoff=0.5)
    hint = f". Did you mean {_KINDS[nearest[0]][0]}?" if nearest else ""
    known = ", ".join(usage for usage, _ in _KINDS.values())
    return f"--references {spec} is not a kind of reference; there are {known}{hint}"
