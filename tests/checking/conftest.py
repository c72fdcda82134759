"""A small run of random scores whose numbers fit each other, and the inputs it claims to be made from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.checking import verifying
from dlgenome.checking.track import compare_track
from dlgenome.encoding import decode
from dlgenome.provenance import genome_digest
from dlgenome.types import Codes, Contig, Region, RegionScores, ScoredWindow, SkippedRegion, Strand, Window
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool

LENGTH = 40
CONTIGS = (Contig("chr1", 900), Contig("chrEmpty", 70), Contig("chr2", 500))
STRANDS: tuple[Strand, ...] = ("+", "-", ".")
SKIPPED = (SkippedRegion(Region("chr1", 1, 4, name="edge", input_row=1, line=3), "over the edge of chr1"),)


@cache
def genome_codes() -> dict[str, Codes]:
    """Bases of every contig, a few of them unknown."""
    generator = np.random.default_rng(5)
    return {contig.name: generator.integers(0, 5, contig.length).astype(np.uint8) for contig in CONTIGS}


def scored_row(
    row: int, center: int, *, seed: int, hypothetical: bool, extras: tuple[str, ...], length: int
) -> ScoredWindow:
    """A window on chr1 or chr2 with random scores that add up."""
    generator = np.random.default_rng([seed, row])
    chrom = ("chr1", "chr2")[row % 3 == 2]
    start = center - length // 2
    bases = np.full(length, 4, dtype=np.uint8)
    contig = genome_codes()[chrom]
    inside = slice(max(0, -start), max(0, min(length, len(contig) - start)))
    bases[inside] = contig[start + inside.start : start + inside.stop]
    contributions = generator.normal(size=(4, length)).astype(np.float32)
    there = bases == np.arange(4)[:, None]
    projected = np.where(there, contributions, np.float32(0))
    total = float(projected.sum(dtype=np.float64))
    reference = float(generator.normal())
    region = Region(
        chrom, max(0, start), start + 9, f"peak_{row}", 7 * row, STRANDS[row % 3], 1.5, input_row=2 * row
    )
    scores = RegionScores(
        hypothetical=contributions if hypothetical else None,
        projected=projected,
        prediction=reference + total + 1e-6 * (row + 1),
        reference_prediction=reference,
        contribution_sum=total,
        mean_abs_delta=1.0,
        n_references=20,
        extras={name: np.abs(projected) for name in extras},
    )
    return ScoredWindow(row, Window(region, chrom, start, start + length, center), bases, {"counts": scores})


@dataclass
class Run:
    """A finished run, its rows and the files it says it was made from."""

    paths: OutputPaths
    rows: list[ScoredWindow]
    checkpoint: Path
    regions: Path
    genome: Path
    scores: Path = field(init=False)

    def __post_init__(self) -> None:
        self.scores = self.paths.scores_h5("counts")

    def edit(self, change: Callable[[h5py.File], Any]) -> None:
        """Change the scores file by hand."""
        with h5py.File(self.scores, "r+") as file:
            change(file)


MakeRun = Callable[..., Run]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """bigWigs are read in this process and nothing is synced, which would take most of the tests' time."""
    monkeypatch.setattr(verifying, "check_track", compare_track)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a whole run below ``tmp_path``; windows overlap and reach over an end."""
    inputs = {name: tmp_path / name for name in ("model.pt", "regions.bed", "genome.fa")}
    inputs["model.pt"].write_bytes(b"weights")
    inputs["regions.bed"].write_text("chr1\t1\t9\n")
    inputs["genome.fa"].write_text(
        "".join(f">{name}\n{decode(codes)}\n" for name, codes in genome_codes().items())
    )

    def make(
        prefix: str = "run",
        *,
        n_rows: int = 12,
        length: int = LENGTH,
        seed: int = 0,
        centers: list[int] | None = None,
        hypothetical: bool = True,
        extras: tuple[str, ...] = (),
        score_dtype: Any = "float32",
        formats: tuple[str, ...] = ("h5", "bigwig"),
        overlap: Any = "nearest",
        crop: int | None = None,
        threads: int = 1,
        **identity: Any,
    ) -> Run:
        paths = OutputPaths(tmp_path / prefix, ("counts",), frozenset(formats), extras)
        prepare_outputs(paths, overwrite=True)
        places = centers or [5 + 37 * row % 470 for row in range(n_rows)]
        rows = [
            scored_row(row, place, seed=seed, hypothetical=hypothetical, extras=extras, length=length)
            for row, place in enumerate(places)
        ]
        facts: dict[str, Any] = {
            "checkpoint_sha256": sha256(inputs["model.pt"]),
            "regions_sha256": sha256(inputs["regions.bed"]),
            "genome_digest": genome_digest((contig.name, contig.length) for contig in CONTIGS),
            **{"window": length, "edge": "pad", "method": "deeplift", "rule": "rescale", "seed": seed},
            **{"references": "dinucleotide-shuffle", "n_references": 20, "strands": "forward"},
            **{"precision": "float32", "score_dtype": score_dtype, "batch_size": 20},
            **identity,
        }
        layout = BlockLayout(length, score_dtype, ("counts",), (hypothetical,), tuple(sorted(extras)))
        with Spool(paths, layout, threads=threads) as spool:
            spool.append(rows)
            finish_run(
                paths,
                spool,
                RunContent(
                    contigs=CONTIGS,
                    identity=facts,
                    provenance={"host": prefix, "command_line": f"dlgenome attribute -o {prefix}"},
                    skipped=SKIPPED,
                    overlap=overlap,
                    crop=crop,
                    target_identity={"counts": {"target": "counts"}},
                ),
                run_facts=lambda: {
                    "settings": {"overlap": overlap, "crop": crop},
                    "identity": facts,
                    "targets": {"counts": "counts"},
                    "regions": {"selected": len(rows) + 1, "scored": len(rows), "skipped": 1},
                },
            )
        return Run(paths, rows, inputs["model.pt"], inputs["regions.bed"], inputs["genome.fa"])

    return make
