from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlgenome.errors import InputError
from dlgenome.scores import (
    PROVENANCE_ATTRIBUTES,
    ScoresFile,
    completeness_error,
    summarize_completeness,
)
from dlgenome.types import Contig, Region, RegionScores, ScoredWindow, Window
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.hdf5 import write_scores
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool
from dlgenome.writers.spool_reader import SpoolReader

CONTIGS = (Contig("chr1", 900), Contig("chrM", 50))


def scored_rows(
    n_rows: int, length: int, *, hypothetical: bool, extras: tuple[str, ...] = ()
) -> list[ScoredWindow]:
    rng = np.random.default_rng(1)
    rows = []
    for row in range(n_rows):
        codes = rng.integers(0, 5, length).astype(np.uint8)
        scores = rng.normal(size=(4, length)).astype(np.float32)
        region = Region("chr1", 10 + row, 60 + row, f"peak{row}", strand="-", input_row=3 * row)
        window = Window(region, "chr1", row - 3, row - 3 + length, row - 3 + length // 2)
        projected = np.where(codes == np.arange(4)[:, None], scores, np.float32(0))
        further = {name: rng.random((4, length), dtype=np.float32) for name in extras}
        facts = RegionScores(
            scores if hypothetical else None, projected, 2.0, 0.5, 1.0 + row, 1.5, 20, further
        )
        rows.append(ScoredWindow(row, window, codes, {"counts": facts}))
    return rows


def write(
    folder: Path,
    n_rows: int = 5,
    length: int = 60,
    *,
    hypothetical: bool = True,
    extras: tuple[str, ...] = (),
) -> list[ScoredWindow]:
    """Write ``folder/x.h5`` and return its rows."""
    rows = scored_rows(n_rows, length, hypothetical=hypothetical, extras=extras)
    paths = OutputPaths(folder / "run", ("counts",), extras=extras)
    prepare_outputs(paths, overwrite=True)
    layout = BlockLayout(length, "float32", paths.targets, (hypothetical,), tuple(sorted(extras)))
    with Spool(paths, layout) as spool:
        spool.append(rows)
    identity = {"method": "deeplift" if hypothetical else "random", "seed": 4, "max": 0.5}
    with SpoolReader(paths.spool) as reader:
        write_scores(folder / "x.h5", reader, "counts", CONTIGS, identity, {"host": "here"})
    return rows


def test_arrays_and_values_come_back(tmp_path: Path) -> None:
    rows = write(tmp_path)
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert (scores.n_regions, scores.length, scores.target) == (5, 60, "counts")
        assert scores.contigs == CONTIGS
        assert scores.score_dtype == "float32"
        for row in rows:
            facts = row.scores["counts"]
            assert facts.hypothetical is not None
            assert np.array_equal(scores.sequence(row.row), row.codes)
            assert np.array_equal(scores.one_hot(row.row), row.codes == np.arange(4)[:, None])
            assert np.array_equal(scores.hypothetical(row.row), facts.hypothetical)
            assert np.array_equal(scores.projected(row.row), facts.projected)
        assert np.array_equal(scores.sequence(slice(1, 4)), [row.codes for row in rows[1:4]])
        assert scores.projected(slice(1, 4)).shape == (3, 4, 60)
        assert scores.qc["sum"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert scores.qc["mean_abs_delta"].tolist() == [1.5] * 5
        assert scores.qc["delta_error"].tolist() == [abs(1.5 - total) / 1.5 for total in scores.qc["sum"]]


def test_windows_come_back_with_their_region(tmp_path: Path) -> None:
    rows = write(tmp_path)
    with ScoresFile(tmp_path / "x.h5") as scores:
        windows = list(scores.windows())
    for found, row in zip(windows, rows, strict=True):
        assert (found.chrom, found.start, found.end, found.center) == (
            row.window.chrom,
            row.window.start,
            row.window.end,
            row.window.center,
        )
        assert (found.region.name, found.region.strand) == (row.window.region.name, "-")
        assert found.region.input_row == row.window.region.input_row


@pytest.mark.parametrize("hypothetical", [True, False])
def test_rows_come_back_as_they_were_handed_over(tmp_path: Path, hypothetical: bool) -> None:
    rows = write(tmp_path, hypothetical=hypothetical, extras=("fold_sd", "reference_se"))
    with ScoresFile(tmp_path / "x.h5") as scores:
        found = [*scores.scored(slice(0, 2)), *scores.scored(slice(2, 99))]
    assert [row.row for row in found] == [row.row for row in rows]
    for one, other in zip(found, rows, strict=True):
        assert (one.window.chrom, one.window.start, one.window.end, one.window.center) == (
            other.window.chrom,
            other.window.start,
            other.window.end,
            other.window.center,
        )
        assert one.window.region.name == other.window.region.name
        assert np.array_equal(one.codes, other.codes)
        for field in fields(RegionScores):
            ours = getattr(one.scores["counts"], field.name)
            theirs = getattr(other.scores["counts"], field.name)
            if field.name == "extras":
                assert ours.keys() == theirs.keys()
                assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
            elif isinstance(theirs, np.ndarray):
                assert ours.dtype == theirs.dtype
                assert np.array_equal(ours, theirs)
            else:
                assert ours == theirs


def test_further_arrays_are_read_by_name(tmp_path: Path) -> None:
    rows = write(tmp_path, extras=("reference_se", "fold_sd"))
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert scores.extras == ("fold_sd", "reference_se")
        for row in rows:
            for name, values in row.scores["counts"].extras.items():
                assert np.array_equal(scores.extra(name, row.row), values)
        with pytest.raises(InputError, match=r"has no confidence; it holds fold_sd, reference_se\."):
            scores.extra("confidence", 0)
    write(tmp_path)
    with (
        ScoresFile(tmp_path / "x.h5") as scores,
        pytest.raises(InputError, match="has no fold_sd; it holds no further arrays"),
    ):
        scores.extra("fold_sd", 0)


def test_files_from_before_mean_abs_delta_was_stored_can_be_read_but_not_joined(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        del file["qc/mean_abs_delta"]
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert "mean_abs_delta" not in scores.qc
        assert scores.qc["sum"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
        with pytest.raises(InputError, match="did not store /qc/mean_abs_delta; make it again"):
            scores.scored(slice(0, 1))


def test_identity_leaves_provenance_out(tmp_path: Path) -> None:
    write(tmp_path)
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert scores.attributes["host"] == "here"
        assert scores.identity == {
            "format_version": 1,
            "max": 0.5,
            "method": "deeplift",
            "seed": 4,
            "target_name": "counts",
        }
        assert not scores.identity.keys() & PROVENANCE_ATTRIBUTES


def test_missing_hypothetical_contributions_name_the_method(tmp_path: Path) -> None:
    write(tmp_path, hypothetical=False)
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert not scores.has_hypothetical
        with pytest.raises(InputError, match="because random has none"):
            scores.hypothetical(0)


def test_missing_file_and_folder_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        ScoresFile(tmp_path / "nothing.h5")
    with pytest.raises(InputError, match="Is a directory"):
        ScoresFile(tmp_path)


def test_a_text_file_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("chr1\t1\t2\n")
    with pytest.raises(InputError, match="is not an HDF5 file"):
        ScoresFile(tmp_path / "x.h5")


def test_files_of_other_programs_are_told_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("raw", "shap", "projected_shap"):
            file.create_dataset(f"{name}/seq", data=np.zeros((2, 4, 9), np.float32))
    with pytest.raises(InputError, match=r"was not written by dlgenome: it lacks /regions/chrom"):
        ScoresFile(tmp_path / "x.h5")


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(InputError, match="format version 99"):
        ScoresFile(tmp_path / "x.h5")


def test_truncated_files_are_refused_wherever_they_are_cut(tmp_path: Path) -> None:
    write(tmp_path)
    data = (tmp_path / "x.h5").read_bytes()
    for size in (*range(0, 200, 7), *range(200, len(data), 1999), len(data) - 1):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(InputError, match=r"not an HDF5 file|damaged or cut short"):
            ScoresFile(tmp_path / "cut.h5")


def test_damaged_chunks_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "x.h5") as file:
        place = file["projected_shap/seq"].id.get_chunk_info(0)
        offset, size = place.byte_offset, place.size
    data = bytearray((tmp_path / "x.h5").read_bytes())
    data[offset : offset + size] = bytes(size)
    (tmp_path / "x.h5").write_bytes(bytes(data))
    with ScoresFile(tmp_path / "x.h5") as scores:
        scores.sequence(0)
        with pytest.raises(InputError, match="damaged: /projected_shap/seq cannot be read"):
            scores.projected(0)


@pytest.mark.parametrize(
    "name", ["shap/seq", "qc/sum", "qc/mean_abs_delta", "regions/start", "raw/seq", "fold_sd/seq"]
)
def test_arrays_that_disagree_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, extras=("fold_sd",))
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, data=np.zeros((7,), dtype))
    with pytest.raises(InputError, match="is damaged"):
        ScoresFile(tmp_path / "x.h5")


def test_filters_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        scores = file["shap/seq"][:]
        del file["shap/seq"]
        file.create_dataset("shap/seq", data=scores, chunks=scores.shape, compression=hdf5plugin.Blosc())
    available = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != 32001 and available(code))
    with pytest.raises(InputError, match=r"HDF5 filter 32001 \(blosc\).*not installed"):
        ScoresFile(tmp_path / "x.h5")
    monkeypatch.undo()
    with ScoresFile(tmp_path / "x.h5") as reader:
        assert np.array_equal(reader.hypothetical(slice(None)), scores)


finite = st.floats(-1e6, 1e6)


@example([(0.0, 0.0, 1.0, 2.2250738585e-313)])
@given(st.lists(st.tuples(finite, finite, finite, st.floats(0, 1e6)), min_size=1, max_size=9))
def test_completeness_error_is_the_formula(rows: list[tuple[float, float, float, float]]) -> None:
    columns = np.array(rows).T
    median = sorted(row[3] for row in rows)[len(rows) // 2]
    if len(rows) % 2 == 0:
        median = (median + sorted(row[3] for row in rows)[len(rows) // 2 - 1]) / 2
    for found, (total, prediction, reference, scale) in zip(completeness_error(*columns), rows, strict=True):
        missed = abs(total - (prediction - reference))
        denominator = max(scale, 1e-6 * median)
        if missed == 0:
            assert found == 0
        elif denominator == 0:
            assert np.isinf(found)
        else:
            assert found == pytest.approx(missed / denominator, rel=1e-12)


def test_tiny_scales_are_floored_at_a_millionth_of_the_median() -> None:
    errors = completeness_error(
        np.array([1.0, 1.0, 1.0]), np.zeros(3), np.zeros(3), np.array([0.0, 2.0, 4.0])
    )
    assert errors.tolist() == [1 / (1e-6 * 2.0), 0.5, 0.25]


def test_methods_without_completeness_have_nan() -> None:
    nothing = np.full(3, np.nan)
    errors = completeness_error(np.ones(3), np.ones(3), np.zeros(3), nothing)
    assert np.isnan(errors).all()
    summary = summarize_completeness(errors)
    assert np.isnan(summary.maximum)
    assert summary.worst_row == -1


def test_summary_names_the_worst_row() -> None:
    summary = summarize_completeness(np.array([1e-7, np.nan, 3e-4, 2e-7]))
    assert (summary.maximum, summary.worst_row, summary.median) == (3e-4, 2, 2e-7)
