"""Whether the files at hand are those that the scores were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dlgenome.checking.content import place
from dlgenome.checking.findings import Problem, RowFindings, shown
from dlgenome.errors import InputError
from dlgenome.provenance import file_sha256
from dlgenome.regions.fasta import Genome
from dlgenome.regions.files import refuse_unreadable
from dlgenome.scores import ScoresFile


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file that may be read; raises InputError for one that may not."""
    refuse_unreadable(path)
    return file_sha256(path)


def check_models(scores: ScoresFile, models: Sequence[Path]) -> Iterator[Problem]:
    """Whether these are the checkpoints, in the order of the folds."""
    recorded = str(scores.attributes.get("checkpoint_sha256", "")).split(",")
    found = [digest_of(model) for model in models]
    if len(found) != len(recorded):
        yield Problem(
            "checkpoint", f"the scores are of {len(recorded)} checkpoints, and {len(found)} were given."
        )
        return
    for model, digest, expected in zip(models, found, recorded, strict=True):
        if digest == expected:
            continue
        other = " (it is another of the folds)" if digest in recorded else ""
        yield Problem("checkpoint", _differs(model, "the checkpoint of the scores", digest, expected) + other)


def check_regions(scores: ScoresFile, regions: Path) -> Iterator[Problem]:
    """Whether this is the file of regions."""
    digest, expected = digest_of(regions), str(scores.attributes.get("regions_sha256", ""))
    if digest != expected:
        yield Problem("regions", _differs(regions, "the file of regions", digest, expected))


def check_genome(scores: ScoresFile, fasta: Path) -> list[Problem]:
    """Whether the FASTA has the same sequences, and in every window the bases that were scored.

    Raises InputError for a FASTA that cannot be read.
    """
    with Genome(fasta) as genome:
        if genome.digest != scores.attributes.get("genome_digest"):
            return [
                Problem("genome", f"{fasta} is another genome: its names and lengths of sequences differ.")
            ]
        return other_bases(scores, genome, scores.pieces())


def other_bases(scores: ScoresFile, genome: Genome, pieces: Iterator[slice]) -> list[Problem]:
    """One problem that names the rows, of these pieces, whose bases are not the genome's; or none."""
    sentence = f"/raw/seq does not hold the bases that {genome.path} has there."
    findings = RowFindings({"genome": sentence}, lambda row: place(scores.windows_of(slice(row, row + 1))[0]))
    for rows in pieces:
        for row, (window, codes) in enumerate(
            zip(scores.windows_of(rows), scores.sequence(rows), strict=True), start=rows.start
        ):
            try:
                same = np.array_equal(genome.fetch(window.chrom, window.start, window.end), codes)
            except (InputError, ValueError):  # a window that lies nowhere is named by another check
                same = False
            findings.add("genome", [] if same else [row])
    return findings.problems()


def _differs(path: Path, what: str, digest: str, expected: str) -> str:
    return f"{path} is not {what}: its SHA-256 is {shown(digest)}, and {shown(expected)} is recorded."
