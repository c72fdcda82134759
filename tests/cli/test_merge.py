"""`dlgenome merge`: folds scored by jobs of their own, joined."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
from click.testing import CliRunner, Result

from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli

LENGTH = 100
Attribute = Callable[..., Result]


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["merge", *map(str, arguments)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Weights of three linear folds."""
    import torch

    folder = tmp_path_factory.mktemp("folds")
    paths = [folder / f"fold{fold}.pt" for fold in range(3)]
    with torch.random.fork_rng(devices=[]):
        for fold, path in enumerate(paths):
            torch.manual_seed(fold)
            torch.save({"1.weight": torch.randn(3, 4 * LENGTH), "1.bias": torch.randn(3)}, path)
    return paths


@pytest.fixture(scope="module")
def scores(models: list[Path], linear: Attribute, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The scores of each fold, from a job of its own."""
    folder = tmp_path_factory.mktemp("scores")
    for fold, model in enumerate(models):
        result = linear("-t", "index:1", "-o", folder / f"fold{fold}", model=model)
        assert result.exit_code == 0, result.stderr
    return [folder / f"fold{fold}.index-1_scores.h5" for fold in range(3)]


def test_mean_and_deviation_are_those_of_the_folds(scores: list[Path], tmp_path: Path) -> None:
    result = merge("--mean", "--fold-sd", "-o", tmp_path / "run", *scores)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "Joined 3 folds of 12 regions" in result.stderr
    assert "Completeness error of index-1" in result.stderr
    folds = []
    for path in scores:
        with ScoresFile(path) as file:
            folds.append(file.projected(slice(None)))
    with ScoresFile(tmp_path / "run.index-1_scores.h5") as file:
        np.testing.assert_allclose(file.projected(slice(None)), np.mean(folds, axis=0), atol=1e-6)
        np.testing.assert_allclose(
            file.extra("fold_sd", slice(None)), np.std(folds, axis=0, ddof=1), atol=1e-6
        )
        assert file.qc["delta_error"].max() < 1e-5
        window = file.window(0)
        deviation = file.extra("fold_sd", 0).sum(axis=0)
    with pyBigWig.open(str(tmp_path / "run.index-1_fold_sd.bw")) as bigwig:
        center = window.center
        assert bigwig.values(window.chrom, center, center + 1)[0] == pytest.approx(deviation[LENGTH // 2])


def test_folds_run_apart_and_joined_equal_one_run_of_all_folds(
    linear: Attribute,
    models: list[Path],
    scores: list[Path],
    read_scores: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
) -> None:
    rest = [word for model in models[1:] for word in ("-m", model)]
    result = linear("-t", "index:1", "--fold-sd", "-o", tmp_path / "one", *rest, model=models[0])
    assert result.exit_code == 0, result.stderr
    assert merge("--mean", "--fold-sd", "-o", tmp_path / "run", *scores).exit_code == 0
    files = sorted(path.name.removeprefix("one.") for path in tmp_path.glob("one.*"))
    assert files == sorted(path.name.removeprefix("run.") for path in tmp_path.glob("run.*"))
    ours, theirs = (read_scores(tmp_path / f"{name}.index-1_scores.h5") for name in ("run", "one"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert np.array_equal(ours[name], theirs[name]), name
    for ending in files:
        if not ending.endswith((".h5", ".json")):
            assert (tmp_path / f"run.{ending}").read_bytes() == (tmp_path / f"one.{ending}").read_bytes()


def test_skipped_regions_and_the_columns_of_the_bed_are_kept(scores: list[Path], tmp_path: Path) -> None:
    assert merge("--mean", "-q", "-o", tmp_path / "run", *scores).exit_code == 0
    for ending in ("interpreted_regions.bed", "skipped_regions.tsv"):
        assert (tmp_path / f"run.{ending}").read_bytes() == (
            scores[0].parent / f"fold0.{ending}"
        ).read_bytes()


def test_listed_outputs_are_the_files_written(scores: list[Path], tmp_path: Path) -> None:
    arguments = ("--mean", "--fold-sd", "-o", tmp_path / "run", "--formats", "h5,npz,bigwig", *scores)
    listed = merge(*arguments, "--list-outputs").stdout.splitlines()
    assert not list(tmp_path.iterdir())
    assert merge(*arguments).exit_code == 0
    assert sorted(map(str, tmp_path.iterdir())) == sorted(listed)


def test_folds_are_no_shards(scores: list[Path], tmp_path: Path) -> None:
    result = merge("-o", tmp_path / "run", *scores)
    assert result.exit_code == 3
    assert "is not a shard" in result.stderr
    assert "--mean" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing argument"),
        (("fold0",), "is the only file of the target index-1"),
        (("fold0", "fold1", "--formats", "zarr"), "--formats does not know 'zarr'"),
        (("fold0", "fold1", "--crop", "101"), "--crop 101 is wider"),
    ],
)
def test_wrong_flags_are_exit_2(
    scores: list[Path], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    files = {f"fold{fold}": path for fold, path in enumerate(scores)}
    result = merge("--mean", "-o", tmp_path / "run", *(files.get(word, word) for word in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_fold_of_other_settings_is_exit_3_and_named(
    scores: list[Path], models: list[Path], linear: Attribute, tmp_path: Path
) -> None:
    assert linear("-t", "index:1", "-o", tmp_path / "other", "--seed", "5", model=models[1]).exit_code == 0
    result = merge("--mean", "-o", tmp_path / "run", scores[0], tmp_path / "other.index-1_scores.h5")
    assert result.exit_code == 3
    assert result.stderr.startswith(f"Error: seed is 0 in {scores[0]} and 5 in {tmp_path}/other.index-1_sco")
    assert not list(tmp_path.glob("run*"))


def test_files_that_are_no_scores_are_exit_3(scores: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.h5").write_text("not HDF5")
    for path in (tmp_path / "notes.h5", tmp_path / "missing.h5"):
        result = merge("--mean", "-o", tmp_path / "run", scores[0], path)
        assert result.exit_code == 3
        assert str(path) in result.stderr


def test_truncated_fold_is_exit_3(scores: list[Path], tmp_path: Path) -> None:
    shutil.copy(scores[1], tmp_path / "cut.h5")
    data = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    result = merge("--mean", "-o", tmp_path / "run", scores[0], tmp_path / "cut.h5")
    assert result.exit_code == 3
    assert "damaged or cut short" in result.stderr
