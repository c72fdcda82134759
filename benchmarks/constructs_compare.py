"""Every program on every construct: do the attributions add up, and what does the program say?

The programs compute and report; this is the only place that judges, by the same yardstick for all.
"""

from __future__ import annotations

import copy
import json
import math
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.constructs import CONSTRUCTS, CONTROL, LENGTH, Network
from benchmarks.constructs_programs import Codes, one_hot
from benchmarks.processes import CHECKOUT, BenchmarkError, clean_environment
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome_sim.genome import random_codes

SEQUENCES, REFERENCES = 2, 5
EXACT_FLOAT32, EXACT_FLOAT64 = 1e-3, 1e-9
OURS = "dlgenome"
PEERS = ("tangermeme", "captum", "shap")
TIMEOUT, START = 120.0, 300.0
"""Seconds for one network, and for a program to start."""
PATIENCE = 5.0
"""Seconds that a program is given to end by itself."""

Status = Literal["exact", "wrong and warned", "wrong and silent", "refused", "crashed"]
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Answer:
    """What a program said about one network in one precision."""

    attributions: NDArray[np.float64] | None
    """(sequences, 4, length); None where there are none, not even from a program told not to check."""
    error: str | None = None
    """Kind of the error that it stopped with."""
    message: str = ""
    refused: bool = False
    """Whether the error was raised on purpose, by the program itself."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One cell of the table."""

    status: Status
    float32: float | None
    """Largest |sum of the attributions - mean delta| / |mean delta|; None where there are no attributions."""
    float64: float | None
    error: str | None = None
    message: str = ""
    warnings: tuple[str, ...] = ()
    """Those that the program does not raise on the control as well."""


@dataclass(frozen=True)
class Measured:
    """All cells of one program, by construct."""

    program: str
    versions: Mapping[str, str]
    results: Mapping[str, Result]


class Worker:
    """A program in its own process, started again after a network that it did not survive."""

    def __init__(self, program: str, python: Path, folder: Path, timeout: float = TIMEOUT) -> None:
        self.program, self.timeout = program, timeout
        self._command = [str(python), "-m", "benchmarks.constructs_worker", program, str(folder)]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=CHECKOUT,
            env=clean_environment(threads=1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._line(START)
        if not ready:
            self.close()
            raise BenchmarkError(f"{self.program} does not start; its own message is above.")
        self.versions: dict[str, str] = json.loads(ready)

    def ask(self, construct: str, precision: Precision) -> Answer:
        """The program's answer; an error where it dies or takes too long."""
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        order = json.dumps({"construct": construct, "precision": precision})
        print(order, file=self._process.stdin, flush=True)
        line = self._line(self.timeout)
        if line:
            return parse_answer(json.loads(line))
        status = self.close(patience=0 if line is None else PATIENCE)
        if line is None:
            return Answer(None, "Timeout", f"no answer within {self.timeout:g} s")
        return Answer(None, "Death", f"the process ended with status {status}")

    def _line(self, timeout: float) -> str | None:
        """The next line, "" where the process has ended, None where there is none in time."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self._process.stdout.readline() if selector.select(timeout) else None

    def close(self, patience: float = PATIENCE) -> int:
        """End the process; its exit status."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        return process.returncode


def parse_answer(facts: Mapping[str, Any]) -> Answer:
    """An answer as the worker wrote it."""
    given = facts["attributions"]
    return Answer(
        None if given is None else np.array(given, dtype=np.float64),
        facts["error"],
        facts["message"],
        facts["refused"],
        tuple(facts["warnings"]),
    )


@dataclass(frozen=True)
class Inputs:
    """What all programs are given, and the differences that attributions should add up to."""

    folder: Path
    deltas: Mapping[str, NDArray[np.float64]]
    """(sequences,) by construct: f(sequence) - mean f(references), in float64."""


@contextmanager
def inputs(constructs: Sequence[str], seed: int = 0) -> Iterator[Inputs]:
    """Sequences, dinucleotide shuffles of them and weights, in a folder that goes away afterwards."""
    generator = np.random.default_rng(seed)
    sequences = random_codes(SEQUENCES * LENGTH, generator).reshape(SEQUENCES, LENGTH)
    references = shuffle_sequences(sequences, REFERENCES, seed, dinucleotides=True)
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        np.savez(Path(name) / "inputs.npz", sequences=sequences, references=references)
        deltas = {}
        for construct in constructs:
            network = calibrated(construct, sequences, references)
            torch.save(network.state_dict(), Path(name) / f"{construct}.pt")
            deltas[construct] = mean_delta(network, sequences, references)
        yield Inputs(Path(name), deltas)


def calibrated(construct: str, sequences: Codes, references: Codes) -> Network:
    """The construct with the first weights whose deltas do not cancel, scaled to a mean |delta| of 1.

    The number of the table is divided by the mean delta of a sequence, so that must not be near 0 by chance;
    and some programs have absolute tolerances, which mean something for outputs of a usual size only.
    """
    for seed in range(1000):
        network = CONSTRUCTS[construct].build(seed)
        size = np.abs(_deltas(network, sequences, references)).mean()
        if np.abs(mean_delta(network, sequences, references)).min() >= 0.5 * size > 0:
            with torch.no_grad():
                network.head.weight.div_(float(size))
            return network
    raise BenchmarkError(f"No weights of {construct} give deltas that do not cancel.")


def mean_delta(network: Network, sequences: Codes, references: Codes) -> NDArray[np.float64]:
    """(sequences,) f(sequence) - mean f(references), in float64."""
    return np.asarray(_deltas(network, sequences, references).mean(axis=1))


def _deltas(network: Network, sequences: Codes, references: Codes) -> NDArray[np.float64]:
    """(sequences, references)."""
    rows = np.concatenate([sequences[:, None], references], axis=1).reshape(-1, LENGTH)
    with torch.no_grad():
        outputs = copy.deepcopy(network).double()(one_hot(rows, torch.float64)).reshape(len(sequences), -1)
    return np.asarray(outputs[:, :1] - outputs[:, 1:])


def number(answer: Answer, delta: NDArray[np.float64]) -> float | None:
    """Largest |sum of the attributions - mean delta| / |mean delta|; NaN counts as infinite."""
    if answer.attributions is None:
        return None
    errors = np.abs(answer.attributions.sum(axis=(1, 2)) - delta) / np.abs(delta)
    return float(np.nan_to_num(errors, nan=math.inf).max())


def judge(
    single: Answer, double: Answer, delta: NDArray[np.float64], usual: frozenset[str] = frozenset()
) -> Result:
    """The cell of a construct; ``usual`` are warnings that mean nothing, since the control has them too."""
    numbers = number(single, delta), number(double, delta)
    said = tuple(dict.fromkeys(text for text in (*single.warnings, *double.warnings) if text not in usual))
    if single.error is not None:
        status: Status = "refused" if single.refused else "crashed"
        return Result(status, *numbers, single.error, single.message, said)
    return Result(_grade(*numbers, bool(said)), *numbers, double.error, double.message, said)


def _grade(single: float | None, double: float | None, warned: bool) -> Status:
    if single is not None and single < EXACT_FLOAT32 and (double is None or double < EXACT_FLOAT64):
        return "exact"
    return "wrong and warned" if warned else "wrong and silent"


def measure(program: str, python: Path, given: Inputs, timeout: float = TIMEOUT) -> Measured:
    """Every construct of the inputs, the control among them, in both precisions."""
    worker = Worker(program, python, given.folder, timeout)
    try:
        answers = {
            construct: (worker.ask(construct, "float32"), worker.ask(construct, "float64"))
            for construct in given.deltas
        }
        usual = frozenset(text for answer in answers[CONTROL] for text in answer.warnings)
        results = {
            construct: judge(*answers[construct], delta, usual) for construct, delta in given.deltas.items()
        }
        return Measured(program, worker.versions, results)
    finally:
        worker.close()


def compare(constructs: Sequence[str], peer: Path | None, timeout: float = TIMEOUT) -> list[Measured]:
    """dlgenome in this environment, then the other programs in theirs, one after another."""
    with inputs(list(dict.fromkeys((CONTROL, *constructs)))) as given:
        programs = [(OURS, Path(sys.executable))] + ([(name, peer) for name in PEERS] if peer else [])
        return [measure(program, python, given, timeout) for program, python in programs]
