"""The command on a real checkpoint, a real genome and real peaks; needs the folder of real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
from click.testing import CliRunner, Result

from dlgenome.encoding import decode
from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli

pytestmark = pytest.mark.real
Run = Callable[..., Result]


@pytest.fixture
def run(real_data: Path, tmp_path: Path) -> Run:
    """Runs a real checkpoint on the CTCF peaks of the first million bases of chromosome 1."""
    genome = tmp_path / "genome.fa.gz"
    genome.symlink_to(real_data / "genome" / "hg38_chr1_1m.fa.gz")
    regions = real_data / "regions" / "ENCSR000AKO_chr1_1m.narrowPeak"

    def attribute(model: str, *arguments: object) -> Result:
        words = ["-m", real_data / "models" / model, "-g", genome, "-r", regions, "-o", tmp_path / "run"]
        return CliRunner().invoke(cli, ["attribute", *map(str, words), *map(str, arguments)])

    return attribute


def facts(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "run.run.json").read_text())
    return found


def test_the_strongest_base_of_a_ctcf_peak_lies_in_its_motif(run: Run, tmp_path: Path) -> None:
    result = run("bpnetlite_CTCF_K562_ENCSR000AKO.torch", "--limit", "2")
    assert result.exit_code == 0, result.stderr
    with ScoresFile(tmp_path / "run.counts_scores.h5") as scores:
        track = scores.projected(0).sum(axis=0)
        window = scores.window(0)
        strongest = window.start + int(np.abs(track).argmax())
        motif = decode(scores.sequence(0)).index("CAGCACCAGGTGGCAGCAG") + window.start
        assert (scores.n_regions, scores.length) == (2, 2114)
    assert (window.start, window.end) == (268_024 - 1057, 268_024 + 1057)
    assert 267_999 <= motif <= strongest < motif + 19 <= 268_050
    assert track.max() == np.abs(track).max()
    with pyBigWig.open(str(tmp_path / "run.counts_scores.bw")) as bigwig:
        assert bigwig.chroms() == {"chr1": 1_000_000}
        assert bigwig.values("chr1", strongest, strongest + 1) == [track.max()]
    completeness = facts(tmp_path)["completeness"]["counts"]
    assert completeness["maximum"] < 1e-5
    assert facts(tmp_path)["identity"]["n_references"] == 20


def test_control_tracks_are_taken_as_zeros_and_said_so(run: Run, tmp_path: Path) -> None:
    result = run("GATA2.torch", "--limit", "1", "--n-references", "4")
    assert result.exit_code == 0, result.stderr
    assert "2 control tracks: taken as zeros" in result.stderr
    assert facts(tmp_path)["completeness"]["counts"]["maximum"] < 1e-5
