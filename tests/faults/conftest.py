"""A run of 300 regions that takes a few seconds, and a process that starts it many times."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from dlgenome.scores import ScoresFile
from dlgenome_sim.demo import ARCHITECTURE, DemoFiles, write_inputs
from dlgenome_sim.models import INPUT_LENGTH


class Process:
    """One run of the command."""

    def __init__(self, number: int, server: Server, stderr: Path) -> None:
        self.number, self._server, self._stderr = number, server, stderr

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return int(self._server.answer())

    @property
    def said(self) -> str:
        """What it wrote to stderr."""
        return self._stderr.read_text()


class Server:
    """Starts commands in processes that have everything imported already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("run_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready\n"

    def start(self, *arguments: object) -> Process:
        """The command, running."""
        stderr = self._folder / "stderr.txt"
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(stderr), *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        return Process(int(self.answer()), self, stderr)

    def answer(self) -> str:
        """The next line; a server that hangs for a minute is killed, and the line is then empty."""
        assert self._process.stdout is not None
        timer = threading.Timer(60, self._process.kill)
        timer.start()
        try:
            return self._process.stdout.readline()
        finally:
            timer.cancel()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def second_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`attribute` on 300 regions of a simulated genome, all but the prefix."""
    files = DemoFiles(tmp_path_factory.mktemp("simulated"))
    write_inputs(files, regions=300)
    return [
        *("attribute", "-m", files.model, "--architecture", ARCHITECTURE, "--window", INPUT_LENGTH),
        *("-g", files.genome, "-r", files.peaks, "-t", "activity=index:0", "-t", "again=index:0"),
        *("--n-references", 4, "--batch-size", 8, "--threads", 1, "--formats", "h5,bigwig,npz"),
    ]


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, Any]]:
    """Everything in the files of a run in which equal runs agree, by the prefix."""
    return _contents


def _contents(prefix: Path) -> dict[str, Any]:
    """Everything in the files of a run in which equal runs agree."""
    found: dict[str, Any] = {}
    for path in sorted(prefix.parent.glob(f"{prefix.name}.*")):
        name = path.name.removeprefix(prefix.name)
        if path.suffix == ".h5":
            found[name] = _datasets(path)
        elif path.suffix != ".json":
            found[name] = path.read_bytes() if path.is_file() else "a folder"
    return found


def _datasets(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype.str, item.chunks, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(keep)
    with ScoresFile(path) as scores:
        return {**found, "identity": scores.identity}
