"""Simulated files, read back by the libraries that read real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyfaidx
import pytest

from dlgenome.encoding import encode
from dlgenome_sim.files import write_fasta, write_narrow_peak, write_truth
from dlgenome_sim.genome import simulate_genome


@pytest.mark.parametrize("length", [1, 59, 60, 61, 120])
def test_a_fasta_reads_back_as_it_was(tmp_path: Path, length: int) -> None:
    codes = np.random.default_rng(length).integers(0, 5, size=length).astype(np.uint8)
    path = tmp_path / "genome.fa"
    write_fasta(path, {"chrA": codes, "chrB": codes[::-1]})
    assert not any(line == "" for line in path.read_text().splitlines())
    with pyfaidx.Fasta(str(path)) as fasta:
        assert list(fasta.keys()) == ["chrA", "chrB"]
        np.testing.assert_array_equal(encode(str(fasta["chrA"])), codes)
        np.testing.assert_array_equal(encode(str(fasta["chrB"])), codes[::-1])


def test_peaks_and_truth_are_proper_bed(tmp_path: Path) -> None:
    genome = simulate_genome({"c": 12_000})
    write_narrow_peak(tmp_path / "peaks.narrowPeak", genome.peaks)
    write_truth(tmp_path / "truth.bed", genome.planted)
    rows = [line.split("\t") for line in (tmp_path / "peaks.narrowPeak").read_text().splitlines()]
    assert [len(row) for row in rows] == [10] * len(genome.peaks)
    for row, peak in zip(rows, genome.peaks, strict=True):
        assert (row[0], int(row[1]), int(row[2])) == (peak.chrom, peak.start, peak.end)
        assert int(row[1]) + int(row[9]) == peak.summit
        assert 0 <= int(row[4]) <= 1000
    truth = [line.split("\t") for line in (tmp_path / "truth.bed").read_text().splitlines()]
    assert [(row[0], int(row[1]), row[3], row[5]) for row in truth] == [
        (site.chrom, site.start, site.name, site.strand) for site in genome.planted
    ]
