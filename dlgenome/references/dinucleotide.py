"""Shuffles with exactly the dinucleotides of a sequence."""

from __future__ import annotations

import numpy as np

from dlgenome.references.shuffled import shuffle_sequences
from dlgenome.types import Codes


def dinucleotide_shuffle(codes: Codes, n_references: int, seed: int) -> Codes:
    """Shuffles of one sequence with exactly its dinucleotide counts, uint8 (references, length).

    Every sequence that has the same dinucleotides, and therefore the same first and last base, is equally
    likely: Eulerian paths are sampled uniformly (Kandel, Matias, Unger, Winkler 1996, with the tree of last
    edges drawn exactly instead of by a random walk). Runs of N stay where they are, and the stretches
    between them are shuffled each on its own. Reference k depends on the sequence, the seed (0 to 2**64 - 1)
    and k alone. Raises UsageError where the sequence is too long.
    """
    shuffled: Codes = shuffle_sequences(codes[np.newaxis], n_references, seed, dinucleotides=True)[0]
    return shuffled
