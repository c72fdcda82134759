from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from dlgenome.errors import Interrupted, UsageError
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths, check_space, estimate_bytes


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
