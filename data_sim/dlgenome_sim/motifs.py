"""Motifs as base probabilities, and how one instance of them is planted into a sequence.

The consensus sequences are textbook ones; the probabilities are simply the same for every position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlgenome.encoding import reverse_complement
from dlgenome.types import Codes, Strand

IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "W": "AT", "S": "CG", "N": "ACGT"}


@dataclass(frozen=True, slots=True)
class Motif:
    """What a transcription factor binds, and what its binding does to the simulated activity."""

    name: str
    consensus: str
    """A, C, G, T and the ambiguity letters R, Y, W, S, N."""
    effect: float
    """Change of the activity for each planted instance; negative for a repressor."""

    def __len__(self) -> int:
        return len(self.consensus)


MOTIFS = (
    Motif("GATA1", "AGATAAG", 1.0),
    Motif("TAL1", "ACAGCTGT", 1.0),
    Motif("CTCF", "CCASYAGRGGGC", 1.5),
    Motif("GFI1", "AAATCACTGC", -1.0),
)
"""Three activators and a repressor."""


@dataclass(frozen=True, slots=True)
class PlantedMotif:
    """The truth: where a motif was planted; coordinates 0-based half-open."""

    chrom: str
    start: int
    end: int
    name: str
    strand: Strand


def probabilities(motif: Motif, fidelity: float = 0.97) -> NDArray[np.float64]:
    """(length, 4) base probabilities: `fidelity` is shared by the bases of the consensus letter."""
    matrix = np.empty((len(motif), 4))
    for position, letter in enumerate(motif.consensus):
        allowed = np.array([base in IUPAC[letter] for base in "ACGT"])
        others = 4 - allowed.sum()
        matrix[position] = np.where(
            allowed, (fidelity if others else 1.0) / allowed.sum(), (1 - fidelity) / max(others, 1)
        )
    return matrix


def instance(motif: Motif, generator: np.random.Generator, *, reverse: bool = False) -> Codes:
    """(length,) base codes of one sampled binding site, reverse-complemented on request."""
    thresholds = probabilities(motif).cumsum(axis=1)
    drawn = generator.random(len(motif))
    codes = (drawn[:, None] > thresholds).sum(axis=1).clip(max=3).astype(np.uint8)
    return reverse_complement(codes) if reverse else codes


def free_starts(
    lengths: list[int], low: int, high: int, gap: int, generator: np.random.Generator
) -> list[int]:
    """Random starts within [low, high) for stretches of these lengths, at least `gap` apart, in this order.

    Spreads the bases that are left over evenly at random, so it never has to try again; raises ValueError
    where the stretches do not fit.
    """
    spare = high - low - sum(lengths) - gap * (len(lengths) - 1)
    if spare < 0:
        raise ValueError(f"{len(lengths)} motifs do not fit between {low} and {high}")
    offsets = np.sort(generator.integers(0, spare + 1, size=len(lengths)))
    before = np.concatenate([[0], np.cumsum(np.array(lengths[:-1], dtype=int) + gap)])[: len(lengths)]
    return [int(low + offset + taken) for offset, taken in zip(offsets, before, strict=True)]


def plant(
    codes: Codes, motifs: list[Motif], low: int, high: int, generator: np.random.Generator, chrom: str = ""
) -> list[PlantedMotif]:
    """Write one instance of each motif into `codes[low:high]`, either strand; return where they went."""
    starts = free_starts([len(motif) for motif in motifs], low, high, 4, generator)
    planted = []
    for motif, start in zip(motifs, starts, strict=True):
        reverse = bool(generator.integers(2))
        end = start + len(motif)
        codes[start:end] = instance(motif, generator, reverse=reverse)
        planted.append(PlantedMotif(chrom, start, end, motif.name, "-" if reverse else "+"))
    return planted
