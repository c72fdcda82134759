"""References that are shuffles of the sequence itself."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import UsageError
from dlgenome.references.long_walks import shuffle_long_dinucleotides
from dlgenome.references.side_by_side import shuffle_dinucleotides
from dlgenome.references.stretches import shuffle_all_bases
from dlgenome.references.trees import LONGEST
from dlgenome.references.walks import LONGEST_PACKED
from dlgenome.types import Codes

FEW = 6
"""Walks that are faster in turns than side by side, most lanes then being without a walk."""


def sequence_digest(codes: Codes) -> int:
    """64 bits that stand for one sequence: its BLAKE2b hash."""
    return int.from_bytes(hashlib.blake2b(codes.tobytes(), digest_size=8).digest(), "little")


def sequence_digests(codes: Codes) -> NDArray[np.uint64]:
    """The digest of each of (sequences, length) codes."""
    return np.array([sequence_digest(sequence) for sequence in codes], dtype=np.uint64)


def check_shuffle_length(length: int) -> None:
    """Raise UsageError where a sequence is too long for exact shuffles."""
    if length > LONGEST:
        raise UsageError(f"a sequence of {length} bases is too long to shuffle: the limit is {LONGEST} bases")


def shuffle_sequences(
    codes: Codes, n_references: int, seed: int, *, dinucleotides: bool, first: int = 0, threads: int = 1
) -> Codes:
    """Shuffles of (sequences, length) codes, shape (sequences, references, length).

    Each depends on its sequence, the seed and its index (from ``first`` on) alone. Raises UsageError where
    the sequences are too long.
    """
    check_shuffle_length(codes.shape[1])
    codes = np.ascontiguousarray(codes, dtype=np.uint8)
    shuffled = np.empty((codes.shape[0], n_references, codes.shape[1]), dtype=np.uint8)

    def fill(part: slice, digests: NDArray[np.uint64]) -> None:
        shuffle = shuffle_all_bases
        if dinucleotides:
            in_turns = codes.shape[1] > LONGEST_PACKED or len(digests) * n_references <= FEW
            shuffle = shuffle_long_dinucleotides if in_turns else shuffle_dinucleotides
        shuffle(codes[part], digests, np.uint64(seed), shuffled[part], np.uint64(first))

    bounds = [len(codes) * number // threads for number in range(threads + 1)]
    own, *others = [slice(*pair) for pair in pairwise(bounds)]
    # This thread takes a share, too. Where it only waited, others that are woken for a millisecond were often
    # all put on one and the same processor, its own being taken at that moment.
    waiting = [_pool(threads - 1).submit(fill, part, sequence_digests(codes[part])) for part in others]
    fill(own, sequence_digests(codes[own]))
    for part in waiting:
        part.result()
    return shuffled


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dlgenome-shuffle")


@dataclass(frozen=True, slots=True)
class ShuffledReferences:
    """Shuffles that keep the counts of the bases or, with ``dinucleotides``, of pairs of neighbours."""

    name: str
    n_references: int
    seed: int
    dinucleotides: bool

    @property
    def is_coded(self) -> bool:
        """Shuffles are sequences, so they are codes."""
        return True

    @property
    def path(self) -> Path | None:
        """Shuffles come from no file."""
        return None

    def draw(self, codes: Codes, input_row: int) -> Codes:
        """Shuffles of one sequence of codes, (references, length)."""
        shuffled: Codes = self.draw_batch(codes[np.newaxis], np.array([input_row]))[0]
        return shuffled

    def draw_batch(self, codes: Codes, input_rows: NDArray[np.int64], first: int = 0) -> Codes:
        """Shuffles ``first`` and on of (sequences, length) codes, (sequences, references, length)."""
        return shuffle_sequences(
            codes, self.n_references, self.seed, dinucleotides=self.dinucleotides, first=first
        )

    def close(self) -> None:
        """Nothing is open."""
