from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyBigWig
import pytest

from dlgenome.errors import Interrupted
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.run_json import write_run_json
from dlgenome.writers.spool import Spool

MakeRun = Callable[..., Any]


def test_all_files_appear_and_the_partial_folder_goes(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    assert sorted(tmp_path.iterdir()) == sorted(run.paths.all())


@pytest.mark.parametrize("formats", [("h5",), ("bigwig",), ("npz",)])
def test_each_format_can_be_had_alone(make_run: MakeRun, tmp_path: Path, formats: tuple[str, ...]) -> None:
    run = make_run(formats=formats)
    assert sorted(tmp_path.iterdir()) == sorted(run.paths.all())


def test_a_run_with_further_arrays_leaves_exactly_its_files(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(extras=("fold_sd",))
    assert sorted(tmp_path.iterdir()) == sorted(run.paths.all())
    assert "run.index-0_fold_sd.bw" in json.loads(run.paths.run_json.read_text())["outputs"]


def test_rows_of_bed_and_hdf5_are_the_same_windows(make_run: MakeRun) -> None:
    run = make_run()
    lines = run.paths.regions_bed.read_text().splitlines()
    with h5py.File(run.paths.scores_h5("counts")) as file:
        assert len(lines) == len(file["raw/seq"])
        for line, summit, name in zip(lines, file["regions/summit"], file["regions/name"], strict=True):
            columns = line.split("\t")
            assert int(columns[1]) + int(columns[9]) == summit
            assert columns[3] == name.decode()


def test_npz_pair_holds_what_the_hdf5_holds(make_run: MakeRun) -> None:
    run = make_run(score_dtype="float16")
    ohe, attr = run.paths.npz("counts")
    with h5py.File(run.paths.scores_h5("counts")) as file, np.load(ohe) as sequences, np.load(attr) as scores:
        assert sequences.files == scores.files == ["arr_0"]
        assert np.array_equal(sequences["arr_0"], file["raw/seq"][:])
        assert np.array_equal(scores["arr_0"], file["shap/seq"][:])
        assert scores["arr_0"].dtype == np.float16


def test_run_json_has_the_facts_the_files_and_the_completeness(make_run: MakeRun) -> None:
    run = make_run(run_facts=lambda: {"n_scored": 21, "seconds": 1.5})
    facts = json.loads(run.paths.run_json.read_text())
    assert facts["n_scored"] == 21
    assert facts["outputs"] == [path.name for path in run.paths.all()]
    with h5py.File(run.paths.scores_h5("counts")) as file:
        errors = file["qc/delta_error"][:]
    assert facts["completeness"]["counts"]["maximum"] == errors.max()
    assert facts["completeness"]["counts"]["worst_row"] == errors.argmax()
    assert facts["completeness"]["counts"]["median"] == np.median(errors)


def test_run_json_is_stable_and_strict(tmp_path: Path) -> None:
    facts = {"b": np.float32(0.5), "a": [np.nan, (Path("x"), {"γ"})], "c": np.arange(2)}
    write_run_json(tmp_path / "x.json", facts)
    assert (tmp_path / "x.json").read_text() == (
        '{\n  "a": [\n    null,\n    [\n      "x",\n      [\n        "γ"\n      ]\n    ]\n  ],\n'
        '  "b": 0.5,\n  "c": [\n    0,\n    1\n  ]\n}\n'
    )


def check_whole(path: Path) -> None:
    """Fails when a file with a final name is not complete."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            assert file["projected_shap/seq"][20].any()
            assert len(file["qc/crc32"][:]) == 21
    elif path.suffix == ".bw":
        with pyBigWig.open(str(path)) as bigwig:
            assert bigwig.header()["nBasesCovered"] > 0
    elif path.suffix == ".npz":
        with np.load(path) as archive:
            assert archive["arr_0"].shape == (21, 4, 200)
    else:
        assert path.read_text().endswith("\n")


@pytest.mark.parametrize("n_renamed", range(12))
def test_a_kill_between_renames_shows_no_half_file_and_no_run_json(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renamed: int
) -> None:
    paths = OutputPaths(tmp_path / "run", ("counts", "index-0"), frozenset({"h5", "bigwig", "npz"}))
    rename = os.replace
    calls: list[Path] = []

    def killed_after(source: Path, target: Path) -> None:
        if len(calls) == n_renamed:
            raise KeyboardInterrupt
        calls.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed_after)
    if n_renamed == len(paths.all()):
        make_run()
    else:
        with pytest.raises(KeyboardInterrupt):
            make_run()
    visible = [path for path in paths.all() if path.exists()]
    assert visible == list(paths.all()[:n_renamed])
    assert paths.run_json.exists() == (n_renamed == len(paths.all()))
    for path in visible:
        check_whole(path)
    monkeypatch.undo()
    make_run(overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted(paths.all())


def test_overwriting_withdraws_the_old_run_json_before_the_first_file_changes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_run().paths

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        make_run(overwrite=True)
    assert not paths.run_json.exists()
    for path in paths.all()[:-1]:
        check_whole(path)


def test_a_failure_while_files_are_made_leaves_an_older_run_as_it_was(make_run: MakeRun) -> None:
    paths = make_run().paths
    before = {path: path.read_bytes() for path in paths.all()}
    with pytest.raises(ValueError, match="wrong side"):
        make_run(overwrite=True, provenance={"mood": "good"})
    assert {path: path.read_bytes() for path in paths.all()} == before


def test_a_spool_that_lost_rows_is_noticed(tmp_path: Path, make_row: Callable[..., Any]) -> None:
    paths = OutputPaths(tmp_path / "p", ("counts",))
    prepare_outputs(paths, overwrite=False)
    with Spool(paths, BlockLayout(2114, "float32", ("counts",), (True,))) as spool:
        spool.append([make_row(row, length=2114, targets=("counts",)) for row in range(10)])
    data = bytearray(paths.spool.read_bytes())
    data[-1] ^= 1
    paths.spool.write_bytes(bytes(data))
    with pytest.raises(Interrupted, match="gives back 8 of the 10 rows"):
        finish_run(
            paths,
            spool,
            RunContent(
                contigs=(),
                identity={},
                provenance={},
                skipped=[],
                overlap="nearest",
                crop=None,
            ),
            run_facts=dict,
        )
