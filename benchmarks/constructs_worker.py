"""One program in a process of its own, asked for the attributions of one network at a time.

`python -m benchmarks.constructs_worker PROGRAM FOLDER` takes one JSON object a line on stdin (a construct
and a precision) and answers each with one JSON object a line on stdout. Runs in the environments of other
programs too.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.constructs import CONSTRUCTS
from benchmarks.constructs_programs import PROGRAMS, UNCHECKED, Program, is_refusal, versions
from benchmarks.worker import claim_stdout


def answer(program: str, folder: Path, construct: str, precision: str) -> dict[str, Any]:
    """Attributions or the error, and every warning on the way.

    Both come from a program that refused and then was told not to check.
    """
    found: dict[str, Any] = {"attributions": None, "error": None, "message": "", "refused": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found["attributions"] = _attributions(PROGRAMS[program], folder, construct, precision)
        except Exception as error:
            found["error"], found["message"] = type(error).__name__, str(error)
            found["refused"] = is_refusal(error, program)
    found["warnings"] = [f"{each.category.__name__}: {each.message}" for each in caught]
    if found["refused"] and program in UNCHECKED:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found["attributions"] = _attributions(UNCHECKED[program], folder, construct, precision)
    return found


def _attributions(program: Program, folder: Path, construct: str, precision: str) -> list[Any]:
    """(sequences, 4, length) from a network built anew, whatever an earlier call left behind."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
    network = CONSTRUCTS[construct].build(seed=0).to(dtype)
    network.load_state_dict(torch.load(folder / f"{construct}.pt", weights_only=True))
    with np.load(folder / "inputs.npz") as inputs:
        scores = program(network, inputs["sequences"], inputs["references"], dtype)
    numbers: list[Any] = np.asarray(scores, dtype=np.float64).tolist()
    return numbers


def main() -> None:
    """Say the versions, then answer one order a line until stdin ends."""
    answers = claim_stdout()
    program, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    print(json.dumps(versions(program)), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(answer(program, folder, order["construct"], order["precision"])), file=answers)


if __name__ == "__main__":
    main()
