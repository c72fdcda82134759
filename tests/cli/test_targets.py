"""Targets of every kind from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result
from numpy.typing import NDArray

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
