from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from dlgenome.errors import Interrupted, UsageError
from dlgenome.writers.paths import (
    MARKER,
    OutputPaths,
    check_space,
    discard_partial,
    estimate_bytes,
    prepare_outputs,
)


def outputs(prefix: Path, *formats: str) -> OutputPaths:
    return OutputPaths(prefix, ("counts", "index-0"), frozenset(formats or ("h5", "bigwig")))


def test_files_have_the_names_of_the_specification(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "run.v1", "h5", "bigwig", "npz")
    assert [path.name for path in paths.all()] == [
        "run.v1.counts_scores.h5",
        "run.v1.counts_scores.bw",
        "run.v1.counts_ohe.npz",
        "run.v1.counts_attr.npz",
        "run.v1.index-0_scores.h5",
        "run.v1.index-0_scores.bw",
        "run.v1.index-0_ohe.npz",
        "run.v1.index-0_attr.npz",
        "run.v1.interpreted_regions.bed",
        "run.v1.skipped_regions.tsv",
        "run.v1.run.json",
    ]


def test_a_run_with_deviations_has_a_track_of_them(tmp_path: Path) -> None:
    extras = ("fold_sd", "reference_se")
    paths = OutputPaths(tmp_path / "p", ("counts",), frozenset({"h5", "bigwig"}), extras)
    assert [path.name for path in paths.all()][:3] == [
        "p.counts_scores.h5",
        "p.counts_scores.bw",
        "p.counts_fold_sd.bw",
    ]
    without = OutputPaths(tmp_path / "p", ("counts",), frozenset({"h5"}), extras)
    assert not any(path.suffix == ".bw" for path in without.all())
    prepare_outputs(paths, overwrite=False)
    (paths.partial / "p.counts_fold_sd.bw").write_bytes(b"half")
    prepare_outputs(paths, overwrite=True)


def test_only_chosen_formats_are_written(tmp_path: Path) -> None:
    names = [path.name for path in outputs(tmp_path / "p", "npz").all()]
    assert not any(name.endswith((".h5", ".bw")) for name in names)
    with pytest.raises(UsageError, match="'zarr'"):
        outputs(tmp_path / "p", "zarr")


def test_same_target_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Two targets are called 'counts'"):
        OutputPaths(tmp_path / "p", ("counts", "counts"))


def test_preparing_leaves_only_the_marked_folder(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["p.partial"]
    assert [path.name for path in paths.partial.iterdir()] == [MARKER]
    discard_partial(paths)
    assert list(tmp_path.iterdir()) == []


def test_prefix_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        prepare_outputs(outputs(tmp_path), overwrite=True)


def test_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; create it first"):
        prepare_outputs(outputs(tmp_path / "nowhere" / "p"), overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        prepare_outputs(outputs(tmp_path / "file" / "p"), overwrite=False)


def test_folder_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop the superuser
    with pytest.raises(UsageError, match="may not be written to"):
        prepare_outputs(outputs(tmp_path / "p"), overwrite=False)


def test_names_too_long_for_the_disk_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        prepare_outputs(outputs(tmp_path / ("p" * 250)), overwrite=False)


def test_existing_output_is_refused_by_name_and_kept(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    paths.run_json.write_text("old")
    with pytest.raises(UsageError, match=r"p\.run\.json.*--overwrite"):
        prepare_outputs(paths, overwrite=False)
    assert not paths.partial.exists()
    prepare_outputs(paths, overwrite=True)
    assert paths.run_json.read_text() == "old"


def test_output_that_is_a_folder_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    paths.bigwig("counts").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        prepare_outputs(paths, overwrite=True)


def test_unfinished_run_is_discarded_only_with_overwrite(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    paths.spool.write_bytes(b"rows")
    paths.scratch("stdin.bed").write_text("chr1\t1\t2\n")
    (paths.partial / "p.old-target_scores.h5").write_bytes(b"half")
    with pytest.raises(UsageError, match="unfinished run"):
        prepare_outputs(paths, overwrite=False)
    assert paths.spool.exists()
    prepare_outputs(paths, overwrite=True)
    assert [path.name for path in paths.partial.iterdir()] == [MARKER]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_foreign_partial_is_never_deleted(tmp_path: Path, kind: str, overwrite: bool) -> None:
    paths = outputs(tmp_path / "p")
    if kind == "folder":
        paths.partial.mkdir()
        (paths.partial / "thesis.tex").write_text("years of work")
    elif kind == "file":
        paths.partial.write_text("years of work")
    else:
        prepare_outputs(outputs(tmp_path / "other"), overwrite=False)
        paths.partial.symlink_to(tmp_path / "other.partial")
    with pytest.raises(UsageError, match="not made by dlgenome"):
        prepare_outputs(paths, overwrite=overwrite)
    if kind == "folder":
        assert (paths.partial / "thesis.tex").read_text() == "years of work"
    assert paths.partial.exists()


def test_a_foreign_file_in_our_folder_stops_its_removal(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    paths.spool.touch()
    (paths.partial / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is not a file of dlgenome"):
        prepare_outputs(paths, overwrite=True)
    assert paths.spool.exists()


def test_too_little_space_names_both_amounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 3 * 2**20))
    paths = outputs(tmp_path / "p")
    check_space(paths, 2**20)
    with pytest.raises(Interrupted, match=r"has 3\.0 MiB free and this run needs about 5\.0 GiB"):
        check_space(paths, 5 * 2**30)


def test_estimated_space_grows_with_rows_targets_and_formats() -> None:
    small = estimate_bytes(1000, 2114, 1, frozenset({"h5"}))
    assert small > 2 * 1000 * 4 * 2114 * 4
    assert estimate_bytes(1000, 2114, 2, frozenset({"h5"})) > 1.9 * small
    assert estimate_bytes(1000, 2114, 1, frozenset({"h5", "bigwig", "npz"})) > 1.4 * small
    assert estimate_bytes(1000, 2114, 1, frozenset({"h5"}), extras=("fold_sd",)) > 1.15 * small
