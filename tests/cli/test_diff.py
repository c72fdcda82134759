"""`dlgenome diff` on real runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dlgenome_cli.main import cli

Attribute = Callable[..., Result]


def diff(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["diff", *map(str, arguments)])


@pytest.fixture(scope="module")
def others(attribute: Attribute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs that differ from the finished one: in their order, their seed, and their regions."""
    folder = tmp_path_factory.mktemp("others")
    for name, flags in {
        "again": ("--seed", "0"),
        "shuffled": ("--order", "shuffle:1"),
        "seed": ("--seed", "5"),
        "few": ("--limit", "4"),
    }.items():
        result = attribute("-o", folder / name, "--formats", "h5", *flags)
        assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def scores(finished: Path) -> Path:
    return Path(f"{finished}.counts_scores.h5")


def test_equal_runs_are_said_to_be_equal(scores: Path, others: Path) -> None:
    again = others / "again.counts_scores.h5"
    result = diff(scores, again, "--tolerance", "0")
    assert result.exit_code == 0
    assert result.stdout == f"{scores} and {again} are equal in every dataset and identity attribute.\n"


def test_another_order_has_the_same_scores(scores: Path, others: Path) -> None:
    result = diff(scores, others / "shuffled.counts_scores.h5", "--tolerance", "1e-6")
    assert result.exit_code == 0, result.output
    assert "order: input in " in result.stdout
    assert "12 in both, in another order, 0 only in" in result.stdout
    assert "Every dataset is equal in these regions." in result.stdout


def test_another_seed_gives_other_scores_and_the_worst_regions_are_listed(scores: Path, others: Path) -> None:
    other = others / "seed.counts_scores.h5"
    result = diff(scores, other, "--worst", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"seed: 0 in {scores}, 5 in {other}"
    assert any("/projected_shap/seq in 12" in line for line in lines)
    assert any(line.startswith("Correlation of the scores of a region: least 0.") for line in lines)
    place = next(index for index, line in enumerate(lines) if line.startswith("Worst regions"))
    assert len(lines) == place + 4
    assert lines[-1].startswith("  chr")


def test_a_difference_above_the_tolerance_is_exit_4(scores: Path, others: Path) -> None:
    result = diff(scores, others / "seed.counts_scores.h5", "--tolerance", "1e-6")
    assert result.exit_code == 4
    assert "is not within --tolerance 1e-06" in result.stderr
    assert diff(scores, others / "seed.counts_scores.h5", "--tolerance", "100").exit_code == 0


def test_regions_in_one_file_only_are_not_within_any_tolerance(scores: Path, others: Path) -> None:
    few = others / "few.counts_scores.h5"
    result = diff(few, scores)
    assert result.exit_code == 0
    assert f"4 in both, 0 only in {few}, 8 only in {scores}" in result.stdout
    result = diff(few, scores, "--tolerance", "1")
    assert result.exit_code == 4
    assert "8 regions are in one of the files only" in result.stderr


def test_json_says_the_same(scores: Path, others: Path) -> None:
    result = diff(scores, others / "seed.counts_scores.h5", "--json")
    facts = json.loads(result.stdout)
    assert facts["equal"] is False
    assert facts["identity"] == {"seed": [0, 5]}
    assert facts["matched"] == 12
    assert len(facts["worst"]) == 5
    assert facts["largest"] == facts["worst"][0]["largest"] > 0
    assert json.loads(diff(scores, scores, "--json").stdout)["equal"] is True


def test_files_that_are_no_scores_are_exit_3(scores: Path, inputs: Path) -> None:
    result = diff(scores, inputs / "peaks.narrowPeak")
    assert result.exit_code == 3
    assert "is not an HDF5 file" in result.stderr


@pytest.mark.parametrize("arguments", [("--worst", "-1"), ("--tolerance", "-1"), ("more.h5",)])
def test_wrong_flags_are_exit_2(scores: Path, arguments: tuple[str, ...]) -> None:
    assert diff(scores, scores, *arguments).exit_code == 2
