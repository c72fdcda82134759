"""HDF5 files that another process has walked through before this one opens them."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlgenome.errors import InputError

CPU_SECONDS = 5.0
"""Processor time for any file."""
CPU_SECONDS_A_BYTE = 1e-8
"""And for each byte of it; whole files take a tenth of that."""

_PROGRAM = """
import json, sys
sys.path = json.loads(sys.argv[1])
from dlgenome.guards.hdf5_walk import main
main()
"""
_DEATHS: dict[int, str] = {
    signal.SIGXCPU: "is damaged: following its structure has no end",
    signal.SIGSEGV: "is damaged: it crashes the HDF5 library",
    signal.SIGBUS: "is damaged: it crashes the HDF5 library",
    signal.SIGABRT: "is damaged: it crashes the HDF5 library",
    signal.SIGFPE: "is damaged: it crashes the HDF5 library",
}


def check_hdf5(path: Path, *, member: str | None = None, size: int | None = None) -> None:
    """Return where the HDF5 file, or this member of a zip archive, can be opened without harm.

    Every object, attribute and index of chunks has then been followed once, in a process that may be lost.
    ``size`` is that of the member unpacked. Raises InputError for a file that is damaged, claims more than
    it can hold, or keeps its numbers in other files.
    """
    with _lock:
        problem = _walker.ask(path, member, size or 0)
    if problem is not None:
        raise InputError(f"{path} {problem}; make it again, or copy it again.")


class _Walker:
    """The process that walks files: it starts when it is first needed, and ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, path: Path, member: str | None, size: int) -> str | None:
        """What is wrong with the file, in words that follow its name; None where nothing is."""
        request = {
            "path": str(path.absolute()),
            "member": member,
            "size": size,
            "cpu_seconds": CPU_SECONDS + CPU_SECONDS_A_BYTE * max(path.stat().st_size, size),
        }
        process = self._running()
        try:
            answer = _exchange(process, request)
        except BaseException:  # nobody is left to read the answer, and the next file must not get it
            self.stop()
            raise
        if not answer:
            self._process = None
            code = _end(process)
            return _DEATHS.get(-code, "could not be checked: the process that reads it was ended")
        problem: str | None = json.loads(answer)
        return problem

    def stop(self) -> None:
        """End the process; it starts again when it is needed."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            _end(process)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid():  # a forked process must not share the pipes
            self._process, self._owner = _start(), os.getpid()
        return self._process


def _start() -> subprocess.Popen[str]:
    """The process, ready to answer. A session of its own, so that Ctrl-C is for this process alone."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # its buffers would count as memory
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        assert process.stderr is not None
        reason = process.stderr.read().strip().splitlines()
        last = (reason or [f"it ended with {_end(process)}"])[-1]
        _end(process)
        raise InputError(f"HDF5 files cannot be checked, because a second Python does not start: {last}")
    return process


def _exchange(process: subprocess.Popen[str], request: dict[str, Any]) -> str:
    """The line that answers the request; empty where the process ended over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    return process.stdout.readline()


def _end(process: subprocess.Popen[str]) -> int:
    """The status of a process that is ending; what it could not be told is forgotten."""
    for stream in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError):
            if stream is not None:
                stream.close()
    return process.wait()


_walker = _Walker()
_lock = threading.Lock()
atexit.register(_walker.stop)
