"""Random sequences and a small random genome, with motifs planted where its peaks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlgenome.encoding import N_CODE
from dlgenome.types import Codes, Region
from dlgenome_sim.motifs import MOTIFS, Motif, PlantedMotif, plant

COMPOSITION = (0.29, 0.21, 0.21, 0.29)
"""Frequencies of A, C, G, T; about those of the human genome."""

SPACING = 2_000
"""Bases from one simulated summit to the next."""
HALF_PEAK = 80
"""Motifs are planted up to this far from a summit."""


@dataclass(frozen=True)
class SimulatedGenome:
    """A genome, its peaks and the truth about them."""

    contigs: Mapping[str, Codes]
    peaks: tuple[Region, ...]
    planted: tuple[PlantedMotif, ...]


def random_codes(
    length: int, generator: np.random.Generator, composition: tuple[float, ...] = COMPOSITION
) -> Codes:
    """(length,) independent bases with these frequencies of A, C, G, T."""
    return generator.choice(4, size=length, p=composition).astype(np.uint8)


def random_motifs(generator: np.random.Generator, motifs: tuple[Motif, ...] = MOTIFS) -> list[Motif]:
    """One to four motifs in random order, the same one possibly twice."""
    number = int(generator.integers(1, 5))
    return [motifs[index] for index in generator.integers(0, len(motifs), size=number)]


def activity(motifs: list[Motif]) -> float:
    """The simulated activity of a sequence that holds these motifs: the sum of their effects."""
    return sum(motif.effect for motif in motifs)


def simulate_examples(
    number: int, length: int, seed: int = 0, motifs: tuple[Motif, ...] = MOTIFS
) -> tuple[Codes, NDArray[np.float32]]:
    """((number, length) codes, (number,) activities) to train on; a quarter hold no motif."""
    generator = np.random.default_rng([seed, 1])
    codes = random_codes(number * length, generator).reshape(number, length)
    activities = np.zeros(number, dtype=np.float32)
    for row in range(number):
        if row % 4:
            chosen = random_motifs(generator, motifs)
            plant(codes[row], chosen, 0, length, generator)
            activities[row] = activity(chosen)
    return codes, activities


def simulate_genome(
    contigs: Mapping[str, int] | None = None, seed: int = 0, motifs: tuple[Motif, ...] = MOTIFS
) -> SimulatedGenome:
    """A random genome with a peak every 2,000 bases, each with one to four motifs around its summit.

    `contigs` maps names to lengths (default: two of 50,000 bases). The first 500 bases of each contig are
    unknown, as the ends of real chromosomes are.
    """
    generator = np.random.default_rng([seed, 2])
    sequences: dict[str, Codes] = {}
    peaks: list[Region] = []
    planted: list[PlantedMotif] = []
    for chrom, length in (contigs or {"chrA": 50_000, "chrB": 50_000}).items():
        codes = random_codes(length, generator)
        codes[:500] = N_CODE
        for summit in range(SPACING, length - SPACING, SPACING):
            chosen = random_motifs(generator, motifs)
            sites = plant(codes, chosen, summit - HALF_PEAK, summit + HALF_PEAK, generator, chrom)
            planted.extend(sites)
            peaks.append(_peak(chrom, summit, len(peaks), activity(chosen), generator))
        sequences[chrom] = codes
    return SimulatedGenome(sequences, tuple(peaks), tuple(planted))


def _peak(chrom: str, summit: int, row: int, true_activity: float, generator: np.random.Generator) -> Region:
    """A narrowPeak row around the summit, of uneven width as peak callers give them."""
    left, right = (int(value) for value in generator.integers(100, 250, size=2))
    signal = round(float(np.exp(true_activity + generator.normal(0.0, 0.1))), 4)
    return Region(
        chrom,
        summit - left,
        summit + right,
        name=f"peak{row + 1}",
        score=min(1000, int(100 * signal)),
        signal=signal,
        summit=summit,
        input_row=row,
        line=row + 1,
    )
