"""Folds of a small run, made of random scores, each written with its own prefix as separate jobs would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlgenome.folds import fold_mean
from dlgenome.types import Contig, Region, RegionScores, ScoredWindow, SkippedRegion, Window
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool

CONTIGS = (Contig("chr1", 5000), Contig("chr2", 3000))
IDENTITY: dict[str, str | int] = {
    "regions_sha256": "ab",
    "window": 60,
    "references": "zeros",
    "seed": 0,
    "rule": "rescale",
}
SKIPPED = [SkippedRegion(Region("chr1", 1, 4, name="edge", input_row=1, line=3), "over the edge of chr1")]


def window(row: int, length: int) -> tuple[Window, Any]:
    """The same for every fold: windows that overlap, and bases with a few N."""
    generator = np.random.default_rng([7, row])
    chrom, center = ("chr1", "chr2")[row % 3 == 2], 400 + 17 * row
    start = center - length // 2
    region = Region(
        chrom,
        start + 3,
        start + 40,
        f"peak_{row}",
        1500 - row,
        "+",
        7.25 + row,
        1e-7,
        -1.0,
        input_row=2 * row,
    )
    return Window(region, chrom, start, start + length, center), generator.integers(0, 5, length).astype("u1")


def scores_of(fold: int, row: int, target: str, codes: Any, hypothetical: bool = True) -> RegionScores:
    """Scores that depend on the fold, the row and the target."""
    generator = np.random.default_rng([fold, row, *target.encode()])
    values = generator.normal(size=(4, len(codes))).astype(np.float32)
    projected = np.where(codes == np.arange(4)[:, None], values, np.float32(0))
    prediction, reference, total = generator.normal(size=3).tolist()
    scale = float(generator.random())
    kept = values if hypothetical else None
    return RegionScores(kept, projected, prediction, reference, total, scale, 20)


class Folds:
    """Writes folds below a folder, and the run that they should become."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(
        self, fold: int, n_rows: int, length: int, targets: Sequence[str], hypothetical: bool
    ) -> list[ScoredWindow]:
        """The rows of one fold."""
        rows = []
        for row in range(n_rows):
            place, codes = window(row, length)
            scores = {target: scores_of(fold, row, target, codes, hypothetical) for target in targets}
            rows.append(ScoredWindow(row, place, codes, scores))
        return rows

    def write(
        self,
        prefix: str,
        rows: Sequence[ScoredWindow],
        checkpoint: str,
        *,
        skipped: Sequence[SkippedRegion] = SKIPPED,
        contigs: tuple[Contig, ...] = CONTIGS,
        score_dtype: Any = "float32",
        formats: tuple[str, ...] = ("h5",),
        extras: tuple[str, ...] = (),
        **identity: Any,
    ) -> OutputPaths:
        """Write a whole run; keywords change its identity."""
        paths = OutputPaths(self.folder / prefix, tuple(rows[0].scores), frozenset(formats), extras)
        prepare_outputs(paths, overwrite=False)
        first = rows[0]
        kinds = tuple(found.hypothetical is not None for found in first.scores.values())
        layout = BlockLayout(len(first.codes), score_dtype, paths.targets, kinds, tuple(sorted(extras)))
        with Spool(paths, layout) as spool:
            spool.append(rows)
        finish_run(
            paths,
            spool,
            RunContent(
                contigs=contigs,
                identity={**IDENTITY, "checkpoint_sha256": checkpoint, **identity},
                provenance={"host": prefix, "checkpoint_path": f"{prefix}.pt"},
                skipped=skipped,
                overlap="nearest",
                crop=None,
                target_identity={target: {"target": target.upper()} for target in paths.targets},
            ),
            run_facts=dict,
        )
        return paths

    def fold(
        self,
        fold: int,
        *,
        n_rows: int = 21,
        length: int = 60,
        targets: Sequence[str] = ("counts",),
        hypothetical: bool = True,
        change: Callable[[ScoredWindow], ScoredWindow] = lambda row: row,
        **options: Any,
    ) -> Path:
        """The scores file of one fold of the first target."""
        rows = [change(row) for row in self.rows(fold, n_rows, length, targets, hypothetical)]
        options = {"checkpoint": f"digest{fold}", **options}
        return self.write(f"fold{fold}", rows, **options).scores_h5(targets[0])

    def single_run(
        self,
        n_folds: int,
        *,
        n_rows: int = 21,
        length: int = 60,
        targets: Sequence[str] = ("counts",),
        fold_sd: bool = False,
        hypothetical: bool = True,
        formats: tuple[str, ...] = ("h5", "bigwig"),
    ) -> OutputPaths:
        """The run that names all the folds: averaged before anything is written."""
        folds = [self.rows(fold, n_rows, length, targets, hypothetical) for fold in range(n_folds)]
        rows = [
            replace(
                row,
                scores={
                    target: fold_mean([fold[row.row].scores[target] for fold in folds], fold_sd)
                    for target in targets
                },
            )
            for row in folds[0]
        ]
        digests = ",".join(f"digest{fold}" for fold in range(n_folds))
        extras = ("fold_sd",) if fold_sd else ()
        return self.write("single", rows, digests, formats=formats, extras=extras)


@pytest.fixture
def folds(tmp_path: Path) -> Folds:
    """What writes folds below ``tmp_path``."""
    return Folds(tmp_path)
