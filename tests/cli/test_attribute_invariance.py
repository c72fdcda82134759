"""The same question gets the same answer, whatever the order, the batch size and the number of regions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

Attribute = Callable[..., Result]
Datasets = dict[str, NDArray[Any]]
Read = Callable[[Path], Datasets]


def test_two_runs_give_the_same_bytes_in_every_dataset_and_identity(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    first, second = (
        read_scores(Path(f"{prefix}.counts_scores.h5")) for prefix in (finished, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert {name for name in first if first[name].tobytes() != second[name].tobytes()} == set()
    for ending in ("counts_scores.bw", "interpreted_regions.bed"):
        assert Path(f"{finished}.{ending}").read_bytes() == (tmp_path / f"again.{ending}").read_bytes()


@pytest.mark.parametrize("order", ["shuffle:5", "signal"])
def test_order_does_not_change_a_bit(
    order: str, attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "--order", order)
    assert result.exit_code == 0, result.stderr
    plain = read_scores(Path(f"{finished}.counts_scores.h5"))
    ordered = read_scores(tmp_path / "run.counts_scores.h5")
    rows = ordered["regions/input_row"]
    assert list(rows) != list(range(12))
    for name in (name for name in plain if name.startswith(("raw", "shap", "projected", "qc", "regions"))):
        assert ordered[name].tobytes() == plain[name][rows].tobytes(), name


def test_a_region_alone_has_the_scores_that_it_has_among_others(
    attribute: Attribute, tmp_path: Path, inputs: Path, finished: Path, read_scores: Read
) -> None:
    line = (inputs / "peaks.narrowPeak").read_text().splitlines(keepends=True)[7]
    (tmp_path / "one.narrowPeak").write_text(line + line)
    result = attribute("-o", tmp_path / "run", regions=tmp_path / "one.narrowPeak")
    assert result.exit_code == 0, result.stderr
    alone = read_scores(tmp_path / "run.counts_scores.h5")["shap/seq"]
    among = read_scores(Path(f"{finished}.counts_scores.h5"))["shap/seq"]
    assert alone[0].tobytes() == alone[1].tobytes() == among[7].tobytes()


def test_batch_size_changes_scores_by_rounding_only(
    attribute: Attribute, tmp_path: Path, read_scores: Read
) -> None:
    found = {}
    for size in (1, 7, 20, 64):
        flags = ("--n-references", "20", "--batch-size", size, "--formats", "h5")
        result = attribute("-o", tmp_path / str(size), *flags)
        assert result.exit_code == 0, result.stderr
        found[size] = read_scores(tmp_path / f"{size}.counts_scores.h5")["shap/seq"]
    largest = np.abs(found[20]).max()
    for size in (1, 7, 64):
        assert np.abs(found[size] - found[20]).max() <= 1e-6 * largest, size


def test_the_seed_changes_the_references(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "--seed", "1", "--formats", "h5")
    assert result.exit_code == 0, result.stderr
    ours = read_scores(tmp_path / "run.counts_scores.h5")
    theirs = read_scores(Path(f"{finished}.counts_scores.h5"))
    assert (ours["qc/prediction"] == theirs["qc/prediction"]).all()
    assert (ours["qc/reference_prediction"] != theirs["qc/reference_prediction"]).all()


WIDE = 1000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_regions(inputs: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    torch.save({"1.weight": torch.randn(1, 4 * WIDE), "1.bias": torch.zeros(1)}, tmp_path / "wide.pt")

    def peak_memory(regions: int) -> int:
        bed = tmp_path / f"{regions}.bed"
        rows = [2000 + row % 15_000 for row in range(regions)]
        bed.write_text("".join(f"chrA\t{start}\t{start + 100}\n" for start in rows))
        prefix = tmp_path / f"run{regions}"
        words = ["-m", tmp_path / "wide.pt", "--architecture", f"{inputs / 'linear.py'}:linear"]
        words += ["--architecture-args", json.dumps({"length": WIDE, "outputs": 1}), "--window", WIDE]
        words += ["-g", inputs / "genome.fa", "-r", bed, "-o", prefix, "-t", "index:0", "-q"]
        words += ["--references", "zeros", "--batch-size", "16", "--threads", "1", "--device", "cpu"]
        words += ["--formats", "h5,bigwig,npz"]
        program = [sys.executable, "-m", "dlgenome_cli.main", "attribute", *map(str, words)]
        subprocess.run(program, check=True, timeout=120)
        return int(json.loads(Path(f"{prefix}.run.json").read_text())["peak_memory_bytes"])

    few, many = peak_memory(300), peak_memory(3000)
    # All the scores of the many, if they were kept, would be half as much again as the tolerance.
    assert 0.15 * few < 3000 * 4 * WIDE * (4 + 4 + 1)
    assert many < 1.1 * few
