"""Programs under test as processes, and the environment that the other programs live in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from benchmarks.task import Task

CHECKOUT = Path(__file__).resolve().parents[1]
PEERS = CHECKOUT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")

KEEPS_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""glibc told to keep freed memory, from outside: what dlgenome asks for by itself."""


class BenchmarkError(click.ClickException):
    """A figure that could not be taken, and why."""


@dataclass(frozen=True)
class Turn:
    """One call of a program that explained every sequence once."""

    seconds: float
    peak_memory_bytes: int
    """Largest resident size of its process so far."""
    peak_device_bytes: int | None = None
    """Most that torch has held of a GPU's memory so far; None on a processor."""


class Worker:
    """A program in its own process, loaded and waiting for its turns."""

    def __init__(self, task: Task, python: Path, environment: dict[str, str] | None = None) -> None:
        self.task = task
        settings = json.dumps({**asdict(task), "folder": str(task.folder)})
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.worker", settings],
            cwd=CHECKOUT,
            env=clean_environment(task.threads) | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            ready = self._answer()
        except BaseException:
            self._stop()
            raise
        self.versions: dict[str, str] = ready["versions"]
        self.batch_size: int = ready["batch_size"]

    def explain(self, save: Path | None = None) -> Turn:
        """Have every sequence explained once, its scores written to ``save`` (outside the timing)."""
        return Turn(**self._ask({"explain": True, "save": str(save) if save else None}))

    def convolution_rate(self) -> float:
        """Best operations a second of plain convolutions in this process, with its threads and its memory."""
        return float(self._ask({"explain": False})["rate"])

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        # a process that is gone says so by its silence
        with suppress(BrokenPipeError):
            print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise BenchmarkError(
                f"{self.task.program} stopped with status {status}; its own message is above."
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{self.task.program} refuses: {answer['error']}")
        return answer

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def clean_environment(threads: int) -> dict[str, str]:
    """This environment with the threads settled and no tuned allocator: every program starts alike."""
    tuned = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "MKL_", "KMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(tuned)}
    return {**kept, "OMP_NUM_THREADS": str(threads)}


def peer_python(chosen: Path | None) -> Path:
    """The interpreter that has the other programs: the chosen one, or `.venv-peers`, made if needed."""
    if chosen is not None:
        return chosen
    python, ready = PEERS / "bin" / "python", PEERS / ".ready"
    wanted = REQUIREMENTS.read_text()
    if not ready.is_file() or ready.read_text() != wanted:
        _install(python, wanted)
        ready.write_text(wanted)
    return python


def _install(python: Path, wanted: str) -> None:
    click.echo(f"Installing the other programs into {PEERS} ...", err=True)
    commands = [[sys.executable, "-m", "venv", str(PEERS)]]
    commands += [
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        for requirement in requirements(wanted)
    ]
    for command in commands:
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
            raise BenchmarkError(
                f"`{' '.join(command)}` failed. Install {' and '.join(requirements(wanted))} where you like "
                "and give that interpreter with --peer-python, or leave the other program out with --no-peer."
            )


def requirements(text: str) -> list[str]:
    """The requirements of a file in their order, comments left out."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]
