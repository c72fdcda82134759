"""What identifies a run, and what tells how it came to be."""

from __future__ import annotations

import hashlib
import platform
import shlex
import socket
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("dlgenome", "torch", "numpy", "h5py", "numba", "pyBigWig", "pyfaidx")


def package_versions() -> dict[str, str]:
    """Version of every package that shapes the numbers, and of Python."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def command_line() -> str:
    """The command of this process, quoted for a shell."""
    program = Path(sys.argv[0]).name or "python"
    return shlex.join([program, *sys.argv[1:]])


def host_facts() -> dict[str, str]:
    """Where the run happens."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "working_directory": str(Path.cwd()),
    }


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far; 0 where the system does not say.

    Linux hands the parent's peak on to ``getrusage`` of a child, so its own record is read first.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def genome_digest(contigs: Iterable[tuple[str, int]]) -> str:
    """SHA-256 (hex) of contig names and lengths, in the order of the FASTA."""
    lines = "".join(f"{name}\t{length}\n" for name, length in contigs)
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
