"""A small run, made of random scores: its rows, its genome, and its finished files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlgenome.types import Contig, Region, RegionScores, ScoredWindow, SkippedRegion, Window
from dlgenome.writers.blocks import BlockLayout, ScoreDtype
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool

CONTIGS = (Contig("chr2", 3000), Contig("chrEmpty", 700), Contig("chr1", 2000))


def random_row(
    row: int,
    *,
    length: int,
    targets: tuple[str, ...],
    hypothetical: bool = True,
    center: int | None = None,
    extras: tuple[str, ...] = (),
) -> ScoredWindow:
    """A scored window on chr1 or chr2 that depends on its row number only."""
    rng = np.random.default_rng(row)
    codes = rng.integers(0, 5, length).astype(np.uint8)
    one_hot = codes == np.arange(4)[:, None]
    chrom, chrom_length = [("chr1", 2000), ("chr2", 3000)][row % 2]
    center = int(rng.integers(0, chrom_length)) if center is None else center
    start = center - length // 2
    region = Region(
        chrom, max(0, start - 7), center + 9, name=f"peak_{row}", score=row, input_row=2 * row, line=row
    )
    scores = {}
    for target in targets:
        contributions = rng.normal(size=(4, length)).astype(np.float32)
        scores[target] = RegionScores(
            hypothetical=contributions if hypothetical else None,
            projected=np.where(one_hot, contributions, np.float32(0)),
            prediction=float(rng.normal()),
            reference_prediction=float(rng.normal()),
            contribution_sum=float(rng.normal()),
            mean_abs_delta=float(rng.uniform(0.5, 2)),
            n_references=20,
            extras={
                name: np.where(one_hot, rng.random((4, length), dtype=np.float32), np.float32(0))
                for name in extras
            },
        )
    return ScoredWindow(row, Window(region, chrom, start, start + length, center), codes, scores)


@dataclass
class Run:
    """What a finished run was given, and where it wrote."""

    paths: OutputPaths
    rows: list[ScoredWindow]
    contigs: tuple[Contig, ...] = CONTIGS
    skipped: list[SkippedRegion] = field(default_factory=list)


MakeRun = Callable[..., Run]


@pytest.fixture
def make_row() -> Callable[..., ScoredWindow]:
    """The function that makes random rows."""
    return random_row


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a whole run of random rows below ``tmp_path``."""

    def make(
        prefix: str = "run",
        *,
        n_rows: int = 21,
        length: int = 200,
        targets: tuple[str, ...] = ("counts", "index-0"),
        formats: tuple[str, ...] = ("h5", "bigwig", "npz"),
        score_dtype: ScoreDtype = "float32",
        hypothetical: bool = True,
        centers: list[int] | None = None,
        overwrite: bool = False,
        extras: tuple[str, ...] = (),
        **options: Any,
    ) -> Run:
        paths = OutputPaths(tmp_path / prefix, targets, frozenset(formats), extras)
        prepare_outputs(paths, overwrite=overwrite)
        rows = [
            random_row(
                row,
                length=length,
                targets=targets,
                hypothetical=hypothetical,
                center=centers[row] if centers else None,
                extras=extras,
            )
            for row in range(n_rows)
        ]
        skipped = [
            SkippedRegion(Region("chr1", 1, 4, name="edge", input_row=1, line=3), "over the edge of chr1")
        ]
        kinds = (hypothetical,) * len(targets)
        with Spool(paths, BlockLayout(length, score_dtype, targets, kinds, tuple(sorted(extras)))) as spool:
            spool.append(rows[:3])
            for row in rows[3:]:
                spool.append([row])
        arguments: dict[str, Any] = {
            "contigs": CONTIGS,
            "identity": {"method": "deeplift", "seed": 0, "window": length},
            "provenance": {"command_line": "dlgenome attribute", "host": "here"},
            "overlap": "nearest",
            "crop": None,
            **options,
        }
        facts = arguments.pop("run_facts", lambda: {"n_scored": n_rows})
        finish_run(paths, spool, RunContent(skipped=skipped, **arguments), run_facts=facts)
        return Run(paths, rows, arguments["contigs"], skipped)

    return make
