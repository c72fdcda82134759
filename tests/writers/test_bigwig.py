from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pybigtools
import pyBigWig
import pytest

from dlgenome.errors import InputError, UsageError
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig
from dlgenome.writers import genome_order
from dlgenome.writers.bigwig import write_bigwig

MakeRun = Callable[..., Any]
Track = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def read_with_pybigwig(path: Path) -> Track:
    with pyBigWig.open(str(path)) as bigwig:
        return {
            chrom: np.array(bigwig.values(chrom, 0, length), np.float32)
            for chrom, length in bigwig.chroms().items()
            if length
        }


def read_with_pybigtools(path: Path) -> Track:
    bigwig = pybigtools.open(str(path))
    return {
        chrom: bigwig.values(chrom, 0, length, fillna=np.nan, oob=np.nan).astype(np.float32)
        for chrom, length in bigwig.chroms().items()
    }


def slow_track(
    run: Any, target: str, overlap: str, crop: int | None = None, extra: str | None = None
) -> Track:
    """What every base should have, looked at one base at a time."""
    track = {contig.name: np.full(contig.length, np.nan, np.float32) for contig in run.contigs}
    for contig in run.contigs:
        for base in range(contig.length):
            here = []
            for row in run.rows:
                window = row.window
                start, end = window.start, window.end
                if crop is not None:
                    start, end = window.center - crop // 2, window.center - crop // 2 + crop
                if window.chrom == contig.name and start <= base < end:
                    scores = row.scores[target]
                    array = scores.projected if extra is None else scores.extras[extra]
                    value = float(array[:, base - window.start].sum())
                    here.append((abs(window.center - base - 0.5), -window.center, row.row, value))
            if here:
                values = [value for *_, value in sorted(here, key=lambda item: item[2])]
                track[contig.name][base] = {
                    "nearest": min(here)[3],
                    "mean": sum(values) / len(values),
                    "max": max(values, key=abs),
                    "first": values[0],
                }[overlap]
    return track


def assert_same(one: Track, other: Track) -> None:
    assert list(one) == list(other)
    for chrom in one:
        assert one[chrom].tobytes() == other[chrom].tobytes(), chrom


@pytest.mark.parametrize("overlap", ["nearest", "mean", "max", "first"])
@pytest.mark.parametrize("crop", [None, 60, 61])
def test_two_readers_find_the_values_of_the_twin(make_run: MakeRun, overlap: str, crop: int | None) -> None:
    run = make_run(overlap=overlap, crop=crop, targets=("counts",), formats=("h5", "bigwig"))
    expected = slow_track(run, "counts", overlap, crop)
    path = run.paths.bigwig("counts")
    assert_same(read_with_pybigwig(path), expected)
    assert_same(read_with_pybigtools(path), expected)


@pytest.mark.parametrize("overlap", ["nearest", "mean"])
def test_deviation_across_folds_is_a_track_under_the_same_rule(make_run: MakeRun, overlap: str) -> None:
    run = make_run(
        overlap=overlap, crop=60, targets=("counts",), extras=("fold_sd", "reference_se"), formats=("bigwig",)
    )
    [(name, path)] = run.paths.extra_bigwigs("counts").items()
    assert (name, path.name) == ("fold_sd", "run.counts_fold_sd.bw")
    assert_same(read_with_pybigwig(path), slow_track(run, "counts", overlap, 60, extra="fold_sd"))
    assert_same(read_with_pybigwig(run.paths.bigwig("counts")), slow_track(run, "counts", overlap, 60))


@pytest.mark.parametrize("overlap", ["nearest", "mean", "max", "first"])
@pytest.mark.parametrize(
    "centers",
    [
        pytest.param([500, 500, 500, 500, 500, 501, 501, 500], id="equal and one base apart"),
        pytest.param([0, 0, 1, 3, 1999, 2999, 2000, 3000], id="chromosome ends"),
        pytest.param([100, 100, 151, 140, 230, 200, 231, 201], id="chains of overlaps"),
        pytest.param([100, 100, 200, 200, 300, 300, 400, 400], id="windows that touch"),
    ],
)
def test_hard_places_have_the_values_of_the_twin(make_run: MakeRun, overlap: str, centers: list[int]) -> None:
    run = make_run(
        n_rows=8, length=100, centers=centers, overlap=overlap, targets=("counts",), formats=("h5", "bigwig")
    )
    assert_same(read_with_pybigtools(run.paths.bigwig("counts")), slow_track(run, "counts", overlap))


def test_odd_windows_have_the_values_of_the_twin(make_run: MakeRun) -> None:
    run = make_run(n_rows=16, length=101, targets=("counts",), formats=("h5", "bigwig"))
    assert_same(read_with_pybigwig(run.paths.bigwig("counts")), slow_track(run, "counts", "nearest"))


@pytest.mark.parametrize("overlap", ["nearest", "mean", "max", "first"])
@pytest.mark.parametrize("windows_a_batch", [1, 3])
def test_windows_read_a_few_at_a_time_give_the_same_file(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overlap: str, windows_a_batch: int
) -> None:
    run = make_run(n_rows=70, targets=("counts",), formats=("h5", "bigwig"), overlap=overlap)
    monkeypatch.setattr(genome_order, "BATCH_BYTES", windows_a_batch * 4 * 200)
    monkeypatch.setattr(genome_order, "PIECE_BYTES", 1)
    monkeypatch.setattr(genome_order, "PIECE_ROWS", 7)
    with ScoresFile(run.paths.scores_h5("counts")) as scores:
        write_bigwig(tmp_path / "again.bw", scores, overlap=overlap, contigs=run.contigs)  # type: ignore[arg-type]
    assert (tmp_path / "again.bw").read_bytes() == run.paths.bigwig("counts").read_bytes()


def test_header_has_every_contig_in_the_order_of_the_fasta(make_run: MakeRun) -> None:
    run = make_run(targets=("counts",))
    expected = {"chr2": 3000, "chrEmpty": 700, "chr1": 2000}
    with pyBigWig.open(str(run.paths.bigwig("counts"))) as bigwig:
        assert bigwig.chroms() == expected
        assert bigwig.isBigWig()
    bigwig = pybigtools.open(str(run.paths.bigwig("counts")))
    assert bigwig.chroms() == expected
    assert bigwig.info()["summary"]["basesCovered"] == sum(
        np.isfinite(values).sum() for values in read_with_pybigwig(run.paths.bigwig("counts")).values()
    )


def test_contigs_without_bases_or_rows_do_no_harm(make_run: MakeRun) -> None:
    contigs = (Contig("without_bases", 0), Contig("chr1", 2000), Contig("chr2", 3000))
    run = make_run(targets=("counts",), contigs=contigs)
    expected = slow_track(run, "counts", "nearest")
    assert len(expected.pop("without_bases")) == 0
    assert_same(read_with_pybigwig(run.paths.bigwig("counts")), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_before_they_crash_a_reader(
    make_run: MakeRun, tmp_path: Path, bad: float
) -> None:
    run = make_run(targets=("counts",), formats=("h5",))
    window = run.rows[5].window
    with h5py.File(run.paths.scores_h5("counts"), "r+") as file:
        file["projected_shap/seq"][5, 2, 100] = bad
    place = f"{window.chrom}:{window.start}-{window.end}"
    with (
        ScoresFile(run.paths.scores_h5("counts")) as scores,
        pytest.raises(InputError, match=rf"not finite numbers for {place}"),
    ):
        write_bigwig(tmp_path / "x.bw", scores, overlap="mean", contigs=run.contigs)


def test_regions_outside_the_genome_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(targets=("counts",), formats=("h5",))
    with (
        ScoresFile(run.paths.scores_h5("counts")) as scores,
        pytest.raises(InputError, match="regions on chr2, which is not a sequence of the genome"),
    ):
        write_bigwig(tmp_path / "x.bw", scores, contigs=(Contig("chr1", 2000),))


@pytest.mark.parametrize("crop", [0, -4, 201])
def test_crop_beyond_the_window_is_refused(make_run: MakeRun, tmp_path: Path, crop: int) -> None:
    run = make_run(targets=("counts",), formats=("h5",))
    with (
        ScoresFile(run.paths.scores_h5("counts")) as scores,
        pytest.raises(UsageError, match=f"--crop {crop} must be from 1"),
    ):
        write_bigwig(tmp_path / "x.bw", scores, crop=crop, contigs=run.contigs)
