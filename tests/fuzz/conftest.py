"""The process that reads damaged files, which is begun anew when one of them ends it or keeps it busy."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("worker.py")
SECONDS = 30.0
"""For any file; a second of processor time is what the walk through a damaged HDF5 file may take of it."""
MEMORY = 512 * 2**20
"""Bytes beyond what the process holds before it reads a file."""


@dataclass(frozen=True)
class Answer:
    """What came of reading a file."""

    outcome: str
    """``read``, ``refused`` in one sentence, or what must not be."""
    error: str
    seconds: float
    memory: int
    """Bytes of the highest point above the state before."""
    file: Path

    @property
    def is_fine(self) -> bool:
        """Whether it was read or refused, in the time and memory that there are."""
        return self.outcome in ("read", "refused") and self.seconds < SECONDS and self.memory < MEMORY


class Worker:
    """The process; it keeps the last damaged file until the next is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = SECONDS
        self.kinds: tuple[str, ...] = ()
        self._process: subprocess.Popen[str] | None = self._start()

    def ask(self, kind: str, what: int | Path) -> Answer:
        """What comes of a damaged file by its number, or of a file by its path."""
        request = {"kind": kind, **({"seed": what} if isinstance(what, int) else {"path": str(what)})}
        self._process = self._process or self._start()
        answer = self._exchange(self._process, request)
        if isinstance(answer, str):
            self.close()
            file = self.folder / f"damaged.{kind.replace(' ', '.')}" if isinstance(what, int) else what
            return Answer(answer, "the process ended", SECONDS, 0, file)
        return Answer(
            answer["outcome"], answer["error"], answer["seconds"], answer["memory"], Path(answer["path"])
        )

    def _exchange(self, process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any] | str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], self.seconds)[0]:
            return "hangs"
        line = process.stdout.readline()
        found: dict[str, Any] | str = json.loads(line) if line else "crashed"
        return found

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            text=True,
        )
        assert process.stdout is not None
        self.kinds = tuple(json.loads(process.stdout.readline())["kinds"])
        return process

    def close(self) -> None:
        """End the process; it starts again when it is needed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
            process.wait()


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The process, of which there is one for all tests here."""
    started = Worker(tmp_path_factory.mktemp("fuzz"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def report() -> Iterator[dict[str, Any]]:
    """What was tried, by kind; written as JSON to the file that DLGENOME_FUZZ_REPORT names."""
    found: dict[str, Any] = {}
    yield found
    if path := os.environ.get("DLGENOME_FUZZ_REPORT"):
        Path(path).write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture
def keep() -> Callable[[Answer, str], None]:
    """Copies a file that must not be to the folder that DLGENOME_FUZZ_KEEP names, with what came of it."""

    def copy(answer: Answer, name: str) -> None:
        if folder := os.environ.get("DLGENOME_FUZZ_KEEP"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(answer.file, Path(folder) / name)
            (Path(folder) / f"{name}.txt").write_text(f"{answer.outcome}\n{answer.error}")

    return copy
