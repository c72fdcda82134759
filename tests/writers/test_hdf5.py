from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.scores import ScoresFile
from dlgenome.types import Contig, ScoredWindow
from dlgenome.writers import hdf5
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.hdf5 import write_scores
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool
from dlgenome.writers.spool_reader import SpoolReader

MakeRun = Callable[..., Any]
MakeRow = Callable[..., ScoredWindow]


def layout_of_length(length: int) -> BlockLayout:
    return BlockLayout(length, "float32", ("counts",), (True,))


def chrombpnet_reader(path: Path) -> tuple[Any, Any, Any]:
    """As chrombpnet's tools and Fi-NeMo read a file of contributions."""
    with h5py.File(path, "r") as file:
        return file["raw"]["seq"][:], file["shap"]["seq"][:], file["projected_shap"]["seq"][:]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_chrombpnet_reader_sees_the_scores(make_run: MakeRun, dtype: str) -> None:
    run = make_run(score_dtype=dtype)
    for target in run.paths.targets:
        one_hot, hypothetical, projected = chrombpnet_reader(run.paths.scores_h5(target))
        assert (one_hot.dtype, hypothetical.dtype, projected.dtype) == (np.int8, dtype, dtype)
        assert one_hot.shape == hypothetical.shape == projected.shape == (21, 4, 200)
        for row in run.rows:
            scores = row.scores[target]
            assert np.array_equal(one_hot[row.row], row.codes == np.arange(4)[:, None])
            assert np.array_equal(hypothetical[row.row], scores.hypothetical.astype(dtype))
            assert np.array_equal(projected[row.row], scores.projected.astype(dtype))


def test_projected_scores_are_the_sequence_times_the_hypothetical(make_run: MakeRun) -> None:
    one_hot, hypothetical, projected = chrombpnet_reader(make_run().paths.scores_h5("counts"))
    assert np.array_equal(one_hot * hypothetical, projected)


def test_regions_and_genome_are_inside(make_run: MakeRun) -> None:
    run = make_run()
    with h5py.File(run.paths.scores_h5("counts")) as file:
        assert set(file["regions"]) == {"chrom", "start", "end", "name", "strand", "summit", "input_row"}
        for row in run.rows:
            window, region = row.window, row.window.region
            stored = {column: values[row.row] for column, values in file["regions"].items()}
            assert stored == {
                "chrom": window.chrom.encode(),
                "start": window.start,
                "end": window.end,
                "name": region.name.encode(),
                "strand": region.strand.encode(),
                "summit": window.center,
                "input_row": region.input_row,
            }
        assert file["genome/chrom"][:].tolist() == [b"chr2", b"chrEmpty", b"chr1"]
        assert file["genome/length"][:].tolist() == [3000, 700, 2000]
        assert file["regions/name"].dtype.kind == "S"


def test_qc_holds_predictions_completeness_and_checksums(make_run: MakeRun) -> None:
    run = make_run()
    with h5py.File(run.paths.scores_h5("index-0")) as file:
        assert set(file["qc"]) == {
            "prediction",
            "reference_prediction",
            "sum",
            "mean_abs_delta",
            "delta_error",
            "n_references",
            "crc32",
        }
        stored = file["projected_shap/seq"][:]
        for row in run.rows:
            scores = row.scores["index-0"]
            assert file["qc/prediction"][row.row] == scores.prediction
            assert file["qc/reference_prediction"][row.row] == scores.reference_prediction
            assert file["qc/sum"][row.row] == scores.contribution_sum
            assert file["qc/mean_abs_delta"][row.row] == scores.mean_abs_delta
            assert file["qc/n_references"][row.row] == 20
            assert file["qc/crc32"][row.row] == zlib.crc32(stored[row.row].tobytes())
            missed = abs(scores.contribution_sum - (scores.prediction - scores.reference_prediction))
            assert file["qc/delta_error"][row.row] == pytest.approx(missed / scores.mean_abs_delta, rel=1e-12)


def test_columns_written_in_many_pieces_are_those_written_at_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_run("whole", n_rows=70).paths.scores_h5("counts")
    monkeypatch.setattr(hdf5, "COLUMN_CHUNK_ROWS", 8)
    pieces = make_run("pieces", n_rows=70).paths.scores_h5("counts")
    with h5py.File(whole) as one, h5py.File(pieces) as other:
        assert other["qc/delta_error"].chunks == (8,)
        for group in ("regions", "qc"):
            assert set(one[group]) == set(other[group])
            for name in one[group]:
                assert one[group][name].dtype == other[group][name].dtype
                assert one[group][name][:].tobytes() == other[group][name][:].tobytes(), name


def test_storage_is_gzip_1_with_shuffle_in_chunks_of_whole_regions(make_run: MakeRun) -> None:
    run = make_run(n_rows=3, length=2114, targets=("counts",), formats=("h5",))
    with h5py.File(run.paths.scores_h5("counts")) as file:
        chunks = {name: file[name].chunks for name in ("raw/seq", "shap/seq", "projected_shap/seq")}
        assert chunks == {
            "raw/seq": (8, 4, 2114),
            "shap/seq": (2, 4, 2114),
            "projected_shap/seq": (2, 4, 2114),
        }

        def check(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                assert (item.compression, item.compression_opts, item.shuffle) == ("gzip", 1, True), name

        file.visititems(check)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_further_arrays_lie_beside_the_scores_in_groups_of_their_own(make_run: MakeRun, dtype: str) -> None:
    run = make_run(extras=("reference_se", "fold_sd"), score_dtype=dtype)
    for target in run.paths.targets:
        with h5py.File(run.paths.scores_h5(target)) as file:
            projected = file["projected_shap/seq"]
            for name in ("fold_sd", "reference_se"):
                stored = file[f"{name}/seq"]
                assert (stored.dtype, stored.shape, stored.chunks) == (
                    dtype,
                    projected.shape,
                    projected.chunks,
                )
                assert (stored.compression, stored.compression_opts, stored.shuffle) == ("gzip", 1, True)
                for row in run.rows:
                    assert np.array_equal(stored[row.row], row.scores[target].extras[name].astype(dtype))
            for row in run.rows:
                assert np.array_equal(projected[row.row], row.scores[target].projected.astype(dtype))


def test_method_without_hypothetical_contributions_has_no_shap(make_run: MakeRun) -> None:
    run = make_run(hypothetical=False, formats=("h5", "bigwig"))
    with h5py.File(run.paths.scores_h5("counts")) as file:
        assert "shap" not in file
        assert file["projected_shap/seq"].shape == (21, 4, 200)


def test_equal_runs_give_the_same_bytes_at_any_time(make_run: MakeRun) -> None:
    first = make_run("a", formats=("h5", "bigwig", "npz"))
    time.sleep(1.1)  # file formats that store the time do so in seconds
    second = make_run("b", formats=("h5", "bigwig", "npz"))
    for one, other in zip(first.paths.all(), second.paths.all(), strict=True):
        if one != first.paths.run_json:
            assert one.read_bytes() == other.read_bytes(), one.name


def test_how_rows_were_handed_over_does_not_show(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(row, length=2114, targets=("counts",)) for row in range(19)]
    contents = []
    for pieces in ([rows], [[row] for row in rows]):
        paths = OutputPaths(tmp_path / f"p{len(pieces)}", ("counts",))
        prepare_outputs(paths, overwrite=False)
        with Spool(paths, layout_of_length(2114), threads=len(pieces)) as spool:
            for piece in pieces:
                spool.append(piece)
        with SpoolReader(paths.spool) as reader:
            write_scores(tmp_path / "x.h5", reader, "counts", (Contig("chr1", 2000),), {}, {})
        contents.append((tmp_path / "x.h5").read_bytes())
    assert contents[0] == contents[1]


def test_attributes_are_kept_and_provenance_is_told_apart(make_run: MakeRun) -> None:
    run = make_run(
        identity={"method": "deeplift", "seed": 3, "note": ""},
        provenance={"command_line": "x" * 70_000, "host": "γ"},
        target_identity={"counts": {"target": "output:1/index:0"}},
    )
    with h5py.File(run.paths.scores_h5("counts")) as file:
        assert file.attrs["target"] == b"output:1/index:0"
        assert file.attrs["target_name"] == b"counts"
        assert file.attrs["seed"] == 3
        assert file.attrs["note"] == b""
        assert file.attrs["host"].decode() == "γ"
        assert file.attrs["format_version"] == 1
        assert len(file.attrs["command_line"]) == 60_000
    with pytest.raises(ValueError, match="'mood' is on the wrong side"):
        make_run("other", provenance={"mood": "good"})


def test_memory_does_not_grow_with_the_number_of_regions(tmp_path: Path, make_row: MakeRow) -> None:
    template = make_row(0, length=1000, targets=("counts",))

    def peak(n_rows: int) -> int:
        paths = OutputPaths(tmp_path / f"p{n_rows}", ("counts",))
        prepare_outputs(paths, overwrite=False)
        tracemalloc.start()
        with Spool(paths, layout_of_length(1000), threads=1) as spool:
            for row in range(n_rows):
                spool.append([ScoredWindow(row, template.window, template.codes, template.scores)])
        with SpoolReader(paths.spool) as reader:
            write_scores(tmp_path / "x.h5", reader, "counts", (Contig("chr1", 2000),), {}, {})
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(50)  # imports and caches are counted once
    # Blocks wait for the compressing thread, some more, some less; 1,800 rows of scores would be 58 MB.
    assert peak(2000) < 1.1 * peak(200) + 2**19


def test_zero_rows_make_a_file_of_no_rows(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path / "p", ("counts",))
    prepare_outputs(paths, overwrite=False)
    Spool(paths, layout_of_length(1000)).close()
    with SpoolReader(paths.spool) as reader:
        write_scores(tmp_path / "x.h5", reader, "counts", (Contig("chr1", 2000),), {}, {})
    with ScoresFile(tmp_path / "x.h5") as scores:
        assert (scores.n_regions, scores.length) == (0, 1000)
        assert scores.projected(slice(None)).shape == (0, 4, 1000)
        assert scores.contigs == (Contig("chr1", 2000),)
        assert list(scores.windows()) == []
        assert not len(scores.qc["delta_error"])
