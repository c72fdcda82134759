"""TF-MoDISco reads the files unchanged and finds in them the motif that was planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.types import Contig, Region, RegionScores, ScoredWindow, Window
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool

MOTIF = np.array([1, 1, 0, 1, 1, 0, 2, 2, 3, 2, 2, 1])  # CCACCAGGTGGC
LENGTH = 200


def rows_with_the_motif(n_rows: int) -> list[ScoredWindow]:
    """Random sequences with one motif each, and the contributions that a perfect model would give."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(n_rows):
        codes = rng.integers(0, 4, LENGTH).astype(np.uint8)
        place = int(rng.integers(40, LENGTH - 60))
        codes[place : place + len(MOTIF)] = MOTIF
        one_hot = codes == np.arange(4)[:, None]
        scores = rng.normal(0, 0.02, (4, LENGTH)).astype(np.float32)
        scores[:, place : place + len(MOTIF)] = rng.uniform(0.5, 1.5) * np.where(
            np.arange(4)[:, None] == MOTIF, 1.0, -0.4
        )
        start = row * LENGTH
        window = Window(
            Region("chr1", start, start + LENGTH), "chr1", start, start + LENGTH, start + LENGTH // 2
        )
        result = RegionScores(scores, np.where(one_hot, scores, 0).astype(np.float32), 1.0, 0.0, 1.0, 1.0, 20)
        rows.append(ScoredWindow(row, window, codes, {"counts": result}))
    return rows


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> OutputPaths:
    """The files of a run over sequences with a planted motif."""
    paths = OutputPaths(tmp_path_factory.mktemp("modisco") / "p", ("counts",), frozenset({"h5", "npz"}))
    prepare_outputs(paths, overwrite=False)
    with Spool(paths, BlockLayout(LENGTH, "float32", ("counts",), (True,))) as spool:
        spool.append(rows_with_the_motif(200))
    finish_run(
        paths,
        spool,
        RunContent(
            contigs=(Contig("chr1", 200 * LENGTH),),
            identity={},
            provenance={},
            skipped=[],
            overlap="nearest",
            crop=None,
        ),
        run_facts=dict,
    )
    return paths


def inputs_h5(paths: OutputPaths) -> list[str]:
    return ["-i", str(paths.scores_h5("counts"))]


def inputs_npz(paths: OutputPaths) -> list[str]:
    ohe, attr = paths.npz("counts")
    return ["-s", str(ohe), "-a", str(attr)]


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [inputs_h5, inputs_npz])
def test_modisco_finds_the_planted_motif(
    paths: OutputPaths, tmp_path: Path, inputs: Callable[[OutputPaths], list[str]]
) -> None:
    command = shutil.which("modisco", path=sysconfig.get_path("scripts")) or shutil.which("modisco")
    if command is None:
        pytest.skip("the modisco command is not installed")
    result = tmp_path / "patterns.h5"
    finished = subprocess.run(
        [command, "motifs", *inputs(paths), "-n", "400", "-w", str(LENGTH), "-o", str(result)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert found_motif(result)


def found_motif(path: Path) -> bool:
    """Whether the strongest stretch of the first positive pattern spells the motif, on either strand."""
    text = "".join("ACGT"[base] for base in MOTIF)
    other = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
    with h5py.File(path) as file:
        probabilities: Any = file["pos_patterns/pattern_0/sequence"][:]
    consensus = "".join("ACGT"[base] for base in probabilities.argmax(axis=1))
    return text[1:-1] in consensus or other[1:-1] in consensus
