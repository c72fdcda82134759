"""Simulated data as the files that real data come in: FASTA, narrowPeak and BED."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dlgenome.encoding import decode
from dlgenome.types import Codes, Region
from dlgenome_sim.motifs import PlantedMotif


def write_fasta(path: Path, contigs: Mapping[str, Codes], line_length: int = 60) -> None:
    """Write every contig in order, wrapped; a last line that is full is not followed by an empty one."""
    with path.open("w", encoding="ascii") as stream:
        for name, codes in contigs.items():
            letters = decode(codes)
            stream.write(f">{name}\n")
            for start in range(0, len(letters), line_length):
                stream.write(letters[start : start + line_length] + "\n")


def write_narrow_peak(path: Path, peaks: Iterable[Region]) -> None:
    """Write ten columns for each peak; the last is the summit relative to the start, -1 where it has none."""
    with path.open("w", encoding="ascii") as stream:
        for peak in peaks:
            offset = peak.summit - peak.start if peak.summit >= 0 else -1
            columns = (
                peak.chrom,
                peak.start,
                peak.end,
                peak.name,
                peak.score,
                peak.strand,
                f"{peak.signal:g}",
                f"{peak.p_value:g}",
                f"{peak.q_value:g}",
                offset,
            )
            stream.write("\t".join(map(str, columns)) + "\n")


def write_truth(path: Path, planted: Iterable[PlantedMotif]) -> None:
    """Write the planted motifs as BED6."""
    with path.open("w", encoding="ascii") as stream:
        for site in planted:
            stream.write(f"{site.chrom}\t{site.start}\t{site.end}\t{site.name}\t0\t{site.strand}\n")
