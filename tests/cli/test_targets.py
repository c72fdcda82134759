"""Targets of every kind from the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from dlgenome_cli.main import cli

Attribute = Callable[..., Result]
Read = Callable[[Path], dict[str, NDArray[Any]]]

FUNCTIONS = """
def double(outputs):
    return 2 * outputs[:, 2] - outputs[:, 0]


def everything(outputs):
    return outputs
"""


def test_a_function_and_an_index_are_explained_in_one_pass(
    linear: Attribute, tmp_path: Path, read_scores: Read
) -> None:
    (tmp_path / "own.py").write_text(FUNCTIONS)
    targets = ("-t", "index:2", "-t", f"mine={tmp_path / 'own.py'}:double", "-t", "contrast:2,0")
    result = linear("-o", tmp_path / "run", *targets)
    assert result.exit_code == 0, result.stderr
    names = ("index-2", "mine", "contrast-2-0")
    index, mine, contrast = (read_scores(tmp_path / f"run.{name}_scores.h5") for name in names)
    np.testing.assert_allclose(mine["shap/seq"], index["shap/seq"] + contrast["shap/seq"], atol=1e-5)
    assert str(mine["attribute:target"]).endswith("own.py:double")
    alone = linear("-o", tmp_path / "alone", "-t", "contrast:2,0")
    assert alone.exit_code == 0, alone.stderr
    found = read_scores(tmp_path / "alone.contrast-2-0_scores.h5")
    for name, values in contrast.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_function_that_gives_more_than_one_number_is_refused_before_the_work(
    linear: Attribute, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FUNCTIONS)
    result = linear("-o", tmp_path / "run", "-t", f"{tmp_path / 'own.py'}:everything")
    assert result.exit_code == 2
    assert "must return one number for each sequence" in result.stderr
    assert not list(tmp_path.glob("run*"))


def test_two_versions_of_a_function_are_two_identities(
    linear: Attribute, tmp_path: Path, read_scores: Read
) -> None:
    """Shards of a run whose function was changed in between are not joined."""
    own = tmp_path / "own.py"
    for part, text in ((1, FUNCTIONS), (2, FUNCTIONS.replace("2 *", "3 *"))):
        own.write_text(text)
        flags = ("-o", tmp_path / "run", "--shard", f"{part}/2", "--formats", "h5")
        result = linear(*flags, "-t", f"mine={own}:double", "-t", "index:2")
        assert result.exit_code == 0, result.stderr
        found = read_scores(tmp_path / f"run.shard-{part}-of-2.mine_scores.h5")
        assert found["attribute:target_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert "attribute:target_sha256" not in read_scores(
            tmp_path / f"run.shard-{part}-of-2.index-2_scores.h5"
        )
    shards = [str(tmp_path / f"run.shard-{part}-of-2.mine_scores.h5") for part in (1, 2)]
    merged = CliRunner().invoke(cli, ["merge", "-o", str(tmp_path / "all"), *shards])
    assert merged.exit_code == 3, merged.output
    assert "target_sha256" in merged.stderr


def test_a_function_of_a_package_counts_by_its_contents_too(
    linear: Attribute, tmp_path: Path, read_scores: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dlgenome_test_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    result = linear("-o", tmp_path / "run", "-t", "dlgenome_test_functions:double", "--formats", "h5")
    assert result.exit_code == 0, result.stderr
    found = read_scores(tmp_path / "run.double_scores.h5")
    assert found["attribute:target_sha256"] == hashlib.sha256(FUNCTIONS.encode()).hexdigest()


def test_the_code_of_the_network_is_part_of_the_identity(
    linear: Attribute, inputs: Path, tmp_path: Path, read_scores: Read
) -> None:
    result = linear("-o", tmp_path / "run", "-t", "index:2", "--formats", "h5", "--limit", 2)
    assert result.exit_code == 0, result.stderr
    found = read_scores(tmp_path / "run.index-2_scores.h5")
    digest = hashlib.sha256((inputs / "linear.py").read_bytes()).hexdigest()
    assert found["attribute:architecture_sha256"] == digest
    assert "attribute:plugin_sha256" not in found


def test_the_profile_score_that_suffers_from_rounding_is_said_to(
    attribute: Attribute, tmp_path: Path
) -> None:
    flags = ("-t", "profile-bpnetlite", "--limit", 1, "--formats", "h5", "--dry-run")
    single = attribute("-o", tmp_path / "run", *flags)
    double = attribute("-o", tmp_path / "run", *flags, "--precision", "float64")
    assert single.exit_code == double.exit_code == 0, single.stderr + double.stderr
    assert "in float32 its scores can be off" in single.stderr
    assert "profile-bpnetlite" not in double.stderr
