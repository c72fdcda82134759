"""`python -m benchmarks near-zero`: the table of float32 errors in docs/operations.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.near_zero import scores
from benchmarks.processes import CHECKOUT, peer_python
from dlgenome.attribution.rules import elementwise, fused
from dlgenome.attribution.rules.elementwise import near_limit

LIMITS = (0.01, 0.1, 1.0, 10.0, 100.0)
Scores = dict[str, NDArray[np.float64]]


@click.command("near-zero")
@click.option(
    "--peer-python",
    "python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DLGENOME_PEER_PYTHON",
    help="Interpreter that has tangermeme. [default: .venv-peers, made when missing]",
)
@click.option("--no-peer", is_flag=True, help="Measure dlgenome alone.")
@click.option("--limits", is_flag=True, help="Measure dlgenome alone, with other limits of nearness.")
def near_zero(python: Path | None, no_peer: bool, limits: bool) -> None:
    """Print how far float32 scores are from float64 ones on smooth networks and saturated softmax."""
    if limits:
        exact = scores("dlgenome", torch.float64)
        _print_errors(exact, {f"limit times {f:g}": _scores_with_limit(f) for f in LIMITS})
        return
    pythons = {"dlgenome": Path(sys.executable)}
    if not no_peer:
        pythons["tangermeme"] = peer_python(python)
    exact = scores("dlgenome", torch.float64)
    found = {program: _scores(program, python) for program, python in pythons.items()}
    _print_errors(exact, found)


def _print_errors(exact: Scores, found: Mapping[str, Scores]) -> None:
    click.echo("| network | " + " | ".join(found) + " |")
    click.echo("|---|" + "---|" * len(found))
    for name, values in exact.items():
        errors = [np.abs(one[name] - values).max() / np.abs(values).max() for one in found.values()]
        click.echo(f"| {name} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")


def _scores_with_limit(factor: float) -> Scores:
    """The scores in float32 where two numbers count as near up to ``factor`` times the usual limit."""

    def limit(dtype: torch.dtype) -> float:
        return factor * near_limit(dtype)

    with patch.object(elementwise, "near_limit", limit), patch.object(fused, "near_limit", limit):
        return scores("dlgenome", torch.float32)


def _scores(program: str, python: Path) -> Scores:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [str(python), "-m", "benchmarks.near_zero", program]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {name: np.array(values) for name, values in json.loads(answer.splitlines()[-1]).items()}
