"""`python -m benchmarks near-zero`: the table of float32 errors in docs/operations.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.near_zero import networks, scores
from benchmarks.processes import CHECKOUT, peer_python


@click.command("near-zero")
@click.option(
    "--peer-python",
    "python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DLGENOME_PEER_PYTHON",
    help="Interpreter that has tangermeme. [default: .venv-peers, made when missing]",
)
@click.option("--no-peer", is_flag=True, help="Measure dlgenome alone.")
def near_zero(python: Path | None, no_peer: bool) -> None:
    """Print how far float32 scores are from float64 ones on smooth networks and saturated softmax."""
    pythons = {"dlgenome": Path(sys.executable)}
    if not no_peer:
        pythons["tangermeme"] = peer_python(python)
    exact = scores("dlgenome", torch.float64)
    found = {program: _scores(program, python) for program, python in pythons.items()}
    click.echo("| network | " + " | ".join(pythons) + " |")
    click.echo("|---|" + "---|" * len(pythons))
    for name in networks():
        errors = [np.abs(found[p][name] - exact[name]).max() / np.abs(exact[name]).max() for p in pythons]
        click.echo(f"| {name} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")


def _scores(program: str, python: Path) -> dict[str, NDArray[np.float64]]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [str(python), "-m", "benchmarks.near_zero", program]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {name: np.array(values) for name, values in json.loads(answer.splitlines()[-1]).items()}
