"""Where and how figures were taken."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.processes import CHECKOUT


def processor() -> str:
    """What the processor calls itself."""
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def facts(threads: int, device: str = "cpu") -> dict[str, str | int | float | list[float]]:
    """Date, machine, how busy it is, threads, command line and the commit of the checkout."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "processors": os.cpu_count() or 1,
        "platform": platform.platform(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "threads": threads,
        **_gpu(device),
        "command_line": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "commit": _commit(),
    }


def _gpu(device: str) -> dict[str, str]:
    """What the GPU calls itself, where one is timed."""
    if device == "cpu":
        return {}
    from dlgenome.attribution.devices import device_name, resolve_device

    return {"device": device_name(resolve_device(device))}


def _commit() -> str:
    """The commit of the checkout, with a + where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
