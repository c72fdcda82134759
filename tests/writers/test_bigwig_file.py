"""The bigWig format: what readers that share no code with the writer find in files of every shape."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pyBigWig
import pytest
from numpy.typing import NDArray

from dlgenome.errors import Interrupted
from dlgenome.types import Contig
from dlgenome.writers import bigwig_file, bigwig_trees
from dlgenome.writers.bigwig_file import BigWigFile
from dlgenome.writers.disk import clear_write_errors

Run = tuple[str, int, NDArray[np.float32]]

CONTIGS = (Contig("chr2", 300_000), Contig("empty", 500), Contig("chr1", 70_001), Contig("chr10", 90))


def random_runs(seed: int = 0) -> list[Run]:
    """Runs of many lengths that touch, stand alone, cross blocks, and reach both ends of their contigs."""
    rng = np.random.default_rng(seed)
    runs: list[Run] = []
    for contig in (CONTIGS[0], CONTIGS[2], CONTIGS[3]):
        start = 0
        while start < contig.length:
            length = min(int(rng.choice([1, 2, 15, 16, 17, 500, 2114, 9000])), contig.length - start)
            runs.append((contig.name, start, rng.normal(size=length).astype(np.float32)))
            start += length + int(rng.choice([0, 0, 1, 40, 3000]))
        name, start, values = runs[-1]
        runs[-1] = (name, contig.length - len(values), values)
    return runs


def write(path: Path, runs: list[Run], contigs: tuple[Contig, ...] = CONTIGS) -> Path:
    with BigWigFile(path, contigs) as bigwig:
        for run in runs:
            bigwig.add(*run)
    return path


def dense(runs: list[Run], contig: Contig) -> NDArray[np.float32]:
    track = np.full(contig.length, np.nan, np.float32)
    for name, start, values in runs:
        if name == contig.name:
            track[start : start + len(values)] = values
    return track


def slow_bins(
    track: NDArray[np.float32], reduction: int
) -> list[tuple[int, int, int, float, float, float, float]]:
    """(start, end, count, min, max, sum, squares) of the covered bases of every bin that has any."""
    bins = []
    for first in range(0, len(track), reduction):
        part = track[first : first + reduction].astype(np.float64)
        covered = np.flatnonzero(~np.isnan(part))
        if len(covered):
            values = part[covered]
            start, end = first + int(covered[0]), first + int(covered[-1]) + 1
            squares = float((values**2).sum())
            bins.append((start, end, len(covered), values.min(), values.max(), values.sum(), squares))
    return bins


def read_values(path: Path, contigs: tuple[Contig, ...]) -> list[tuple[bytes, bytes]]:
    """The bytes of every contig's values, as pyBigWig and as pybigtools read them."""
    tools = pybigtools.open(str(path))
    with pyBigWig.open(str(path)) as bigwig:
        return [
            (
                np.array(bigwig.values(name, 0, length), np.float32).tobytes(),
                tools.values(name, 0, length, fillna=np.nan, oob=np.nan).astype(np.float32).tobytes(),
            )
            for name, length in ((contig.name, contig.length) for contig in contigs)
        ]


@pytest.mark.parametrize("bases_per_block", [7, 4096])
def test_every_value_comes_back_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bases_per_block: int
) -> None:
    monkeypatch.setattr(bigwig_file, "BASES_PER_BLOCK", bases_per_block)
    runs = random_runs() if bases_per_block > 100 else random_runs()[-40:]
    for found in read_values(write(tmp_path / "x.bw", runs), CONTIGS):
        assert found[0] == found[1]
    expected = [dense(runs, contig).tobytes() for contig in CONTIGS]
    assert [found for found, _ in read_values(tmp_path / "x.bw", CONTIGS)] == expected


def test_unusual_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    numbers = np.array([0.0, -0.0, 1e-45, -1e-38, 3.4028235e38, -3.4028235e38, 1 / 3], np.float32)
    contigs = (Contig("chr1", len(numbers)),)
    for found in read_values(write(tmp_path / "x.bw", [("chr1", 0, numbers)], contigs), contigs):
        assert found == (numbers.tobytes(), numbers.tobytes())


@pytest.mark.parametrize("bins_per_block", [3, 512])
def test_zoom_records_are_those_of_the_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bins_per_block: int
) -> None:
    monkeypatch.setattr(bigwig_file, "BINS_PER_BLOCK", bins_per_block)
    runs = random_runs()
    bigwig = pybigtools.open(str(write(tmp_path / "x.bw", runs)))
    assert bigwig.zooms()[:4] == [16, 64, 256, 1024]
    fields = ("bases_covered", "min_val", "max_val", "sum", "sum_squares")
    for reduction in bigwig.zooms():
        for contig in CONTIGS:
            records = [
                (start, end, *(facts[field] for field in fields))
                for start, end, facts in bigwig.zoom_records(reduction, contig.name)
            ]
            expected = slow_bins(dense(runs, contig), reduction)
            assert [record[:3] for record in records] == [record[:3] for record in expected]
            found_sizes, sizes = (np.array([record[3:] for record in both]) for both in (records, expected))
            np.testing.assert_allclose(found_sizes, sizes, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("bin_size", [256, 1024, 16384])
def test_means_of_a_zoomed_out_browser_are_those_of_the_values(tmp_path: Path, bin_size: int) -> None:
    runs = random_runs()
    track = dense(runs, CONTIGS[0])[: 16384 * 18]
    with pyBigWig.open(str(write(tmp_path / "x.bw", runs))) as bigwig:
        for kind, summarize in (("mean", np.mean), ("max", np.max), ("min", np.min)):
            n_bins = len(track) // bin_size
            found = bigwig.stats("chr2", 0, len(track), type=kind, nBins=n_bins)
            parts = (part[~np.isnan(part)].astype(np.float64) for part in np.split(track, n_bins))
            expected = np.array([summarize(part) if len(part) else np.nan for part in parts])
            np.testing.assert_allclose(np.array(found, np.float64), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("shift", [0.0, -9.0, 9.0])
def test_total_summary_is_that_of_all_values(tmp_path: Path, shift: float) -> None:
    runs = [(name, start, values + np.float32(shift)) for name, start, values in random_runs()]
    everything = np.concatenate([values for *_, values in runs]).astype(np.float64)
    content = write(tmp_path / "x.bw", runs).read_bytes()
    (offset,) = struct.unpack_from("<Q", content, 44)
    covered, *sizes = struct.unpack_from("<Q4d", content, offset)
    assert covered == len(everything)
    expected = [everything.min(), everything.max(), everything.sum(), (everything**2).sum()]
    np.testing.assert_allclose(sizes, expected, rtol=1e-12, atol=1e-9)
    info = pybigtools.open(str(tmp_path / "x.bw")).info()["summary"]
    assert (info["basesCovered"], info["min"], info["max"]) == (covered, *expected[:2])


def test_a_file_without_values_is_a_bigwig_without_values(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bw", [])
    with pyBigWig.open(str(path)) as bigwig:
        assert bigwig.chroms() == {contig.name: contig.length for contig in CONTIGS}
        assert bigwig.header()["nBasesCovered"] == bigwig.header()["nLevels"] == 0
        assert bigwig.intervals("chr1") in ((), None)
    summary = pybigtools.open(str(path)).info()["summary"]
    assert (summary["basesCovered"], summary["min"], summary["max"]) == (0, 0, 0)


def test_short_contigs_have_the_finest_zoom_level(tmp_path: Path) -> None:
    contigs = (Contig("plasmid", 9),)
    path = write(tmp_path / "x.bw", [("plasmid", 2, np.array([1, 2, 3], np.float32))], contigs)
    bigwig = pybigtools.open(str(path))
    assert bigwig.zooms() == [16]
    ((start, end, facts),) = bigwig.zoom_records(16, "plasmid")
    assert (start, end, facts["sum"]) == (2, 5, 6)


@pytest.mark.parametrize("n_contigs", [4, 5, 16, 17, 70])
def test_trees_of_every_depth_lead_to_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_contigs: int
) -> None:
    monkeypatch.setattr(bigwig_trees, "NAMES_PER_NODE", 4)
    monkeypatch.setattr(bigwig_trees, "BLOCKS_PER_NODE", 4)
    contigs = tuple(Contig(f"scaffold_{row}", 40 + row) for row in range(n_contigs))
    runs = [
        (contig.name, row % 9, np.arange(30, dtype=np.float32) + row) for row, contig in enumerate(contigs)
    ]
    path = write(tmp_path / "x.bw", runs, contigs)
    expected = [dense(runs, contig).tobytes() for contig in contigs]
    assert read_values(path, contigs) == [(values, values) for values in expected]
    bigwig = pybigtools.open(str(path))
    for contig in contigs:
        for bin_found, bin_expected in zip(
            bigwig.zoom_records(16, contig.name), slow_bins(dense(runs, contig), 16), strict=True
        ):
            assert bin_found[:2] == bin_expected[:2]
            assert bin_found[2]["sum"] == bin_expected[5]


def test_a_genome_in_forty_thousand_pieces_can_be_read(tmp_path: Path) -> None:
    contigs = tuple(Contig(f"scaffold_{row}", 40) for row in range(40_000))
    path = write(tmp_path / "x.bw", [("scaffold_39998", 1, np.array([1, 2], np.float32))], contigs)
    with pyBigWig.open(str(path)) as bigwig:
        assert list(bigwig.chroms().items())[::9999] == [
            (f"scaffold_{row}", 40) for row in range(0, 40_000, 9999)
        ]
        assert bigwig.values("scaffold_39998", 1, 3) == [1, 2]
    bigwig = pybigtools.open(str(path))
    assert len(bigwig.chroms()) == 40_000
    assert bigwig.values("scaffold_39998", 1, 3, fillna=np.nan).tolist() == [1, 2]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(("chr1", 149, np.ones(5, np.float32)), id="overlap"),
        pytest.param(("chr1", 20, np.ones(5, np.float32)), id="before"),
        pytest.param(("chr2", 200_000, np.ones(5, np.float32)), id="earlier contig"),
        pytest.param(("chr1", 69_998, np.ones(5, np.float32)), id="beyond the end"),
    ],
)
def test_values_out_of_place_are_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ValueError, match=rf"5 values from {run[0]}:{run[1]} on are out of place"):
        write(tmp_path / "x.bw", [("chr1", 100, np.ones(50, np.float32)), run])


def test_a_file_that_was_not_finished_is_no_bigwig_and_leaves_nothing_aside(tmp_path: Path) -> None:
    runs = random_runs()
    with pytest.raises(ValueError, match="out of place"):
        write(tmp_path / "x.bw", [*runs, runs[0]])
    assert not any((tmp_path / "x.bw").read_bytes()[:4])
    assert [path.name for path in tmp_path.iterdir()] == ["x.bw"]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.bw"
    monkeypatch.setattr(bigwig_file._Blocks, "add", fail)
    with (
        pytest.raises(Interrupted, match=r"is full, so x\.bw could not be written"),
        clear_write_errors(path),
    ):
        write(path, random_runs())


PEAK_OF_A_RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from dlgenome.types import Contig
from dlgenome.writers import genome_order
from dlgenome.writers.bigwig import write_bigwig

genome_order.BATCH_BYTES = 2**18
n_regions, length = int(sys.argv[1]), 2114
rng = np.random.default_rng(0)
starts = np.sort(rng.integers(0, 100_000_000 - length, n_regions))
pool = rng.normal(size=(4, 8 * length)).astype(np.float32)
columns = {"chrom": np.full(n_regions, b"chr1"), "start": starts, "end": starts + length,
           "summit": starts + length // 2}
def projected(rows):
    return np.stack([pool[:, row % length :][:, :length] for row in range(*rows.indices(n_regions))])

scores = SimpleNamespace(
    path="made", n_regions=n_regions, length=length, score_dtype="float32", projected=projected,
    stored=lambda name, rows=slice(None): columns[name.removeprefix("regions/")][rows].copy(),
)
write_bigwig(Path(sys.argv[2]), scores, contigs=(Contig("chr1", 100_000_000),))
print(next(line for line in Path("/proc/self/status").open() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_peak_memory_does_not_grow_with_the_number_of_regions(tmp_path: Path) -> None:
    """Not ru_maxrss: a child process inherits its parent's."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", PEAK_OF_A_RUN, str(n_regions), str(tmp_path / "x.bw")],
                check=True,
                capture_output=True,
            ).stdout
        )
        for n_regions in (300, 3000)
    ]
    assert peaks[1] < 1.1 * peaks[0], f"{peaks} KiB"
