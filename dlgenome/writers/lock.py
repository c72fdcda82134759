"""One run at a time on one prefix: a lock file that tells who holds it, and whether they are still alive."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlgenome.errors import Interrupted, UsageError
from dlgenome.writers.disk import clear_write_errors

TOUCH_SECONDS = 30.0
STALE_SECONDS = 300.0

_UNREADABLE: Mapping[str, Any] = {}
_SECONDS_TO_WRITE = 0.2
"""Nobody takes longer from making the file to filling it, unless the machine fails in between."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, and what tells it from a later one with the same number."""

    host: str
    pid: int
    process_start: str
    """Kernel ticks at which the process began; empty where the system does not tell."""
    machine_start: str
    """Identifier of this boot of the machine, and of the process namespace."""
    job: str
    """Number of the scheduler's job, or empty."""
    job_restart: str
    token: str


def this_process() -> Holder:
    """A holder of its own for every call."""
    environment = os.environ
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_start=_process_start(os.getpid()),
        machine_start=_machine_start(),
        job="_".join(
            environment[name] for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID") if environment.get(name)
        ),
        job_restart=environment.get("SLURM_RESTART_COUNT", ""),
        token=uuid.uuid4().hex,
    )


class Lock:
    """A lock file, created by nobody else and touched every 30 seconds until it is released.

    A lock is stale when its process is gone, when its job has been started again, or when the file has not
    been touched for five minutes by the clock of its own file system, whatever the clocks of the hosts say.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Take the lock; raises Interrupted, naming the holder, while another run has it.

        ``force`` takes it from any holder. Raises UsageError for a file of this name that is no lock.
        """
        self.path = path
        self.lost = False
        """Whether another run took the lock although this one goes on."""
        self._holder = this_process()
        self._take(force)
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="dlgenome-lock", daemon=True)
        self._keeper.start()

    def still_held(self) -> bool:
        """Whether the file is there and names this holder; a disk that cannot be read takes no lock away."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return _parsed(text).get("token") == self._holder.token

    def check(self) -> None:
        """Raise Interrupted unless the lock is still held."""
        if self.lost or not self.still_held():
            raise Interrupted(f"{self.path} was removed or taken over by another run, so this one ends here")

    def release(self) -> None:
        """Remove the file, where it is still ours; may be called twice."""
        self._released.set()
        if self.still_held():
            with suppress(OSError):
                self.path.unlink()

    def _take(self, force: bool) -> None:
        if self._created():
            return
        found = _look(self.path)
        if not force and not _is_stale(self.path, found, self._holder):
            raise Interrupted(_busy(self.path, found))
        _remove(self.path, found, force)
        if not self._created():
            raise Interrupted(_busy(self.path, _look(self.path)))

    def _created(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise UsageError(f"Cannot write {self.path}: {error.strerror}. Choose another -o.") from error
        try:
            with clear_write_errors(self.path), os.fdopen(descriptor, "w") as file:
                json.dump(asdict(self._holder), file)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _keep(self) -> None:
        while not self._released.wait(TOUCH_SECONDS):
            if not self.still_held():
                self.lost = True
                return
            with suppress(OSError):
                os.utime(self.path)


def _is_stale(path: Path, found: Mapping[str, Any], ours: Holder) -> bool:
    same_host = found.get("host") == ours.host
    if same_host and found.get("machine_start") == ours.machine_start:
        return _process_start(found["pid"]) != found.get("process_start")
    if found.get("job") and found["job"] == ours.job and found.get("job_restart") != ours.job_restart:
        return True
    return _seconds_untouched(path) > STALE_SECONDS


def _remove(path: Path, stale: Mapping[str, Any], force: bool) -> None:
    """Remove the stale lock, unless another run has the lock by now; only one process removes at a time.

    Otherwise a second one that judged the stale lock, too, would remove that of the first. An empty file has
    no token to tell it from one that another run has just made, so its age is looked at again.
    """
    removing = path.with_name(f"{path.name}.removing")
    try:
        os.close(os.open(removing, os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        if _is_old(removing):  # its process died in between
            removing.unlink(missing_ok=True)
        raise Interrupted(_busy(path, _UNREADABLE)) from None
    try:
        if _read(path) == stale and (stale or force or _is_old(path)):
            path.unlink(missing_ok=True)
    finally:
        removing.unlink(missing_ok=True)


def _is_old(path: Path) -> bool:
    """Whether the file is there and nobody has touched it for long."""
    return STALE_SECONDS < _seconds_untouched(path) < float("inf")


def _seconds_untouched(path: Path) -> float:
    """Age of the file by the clock of its file system, read off a file made now."""
    with (
        clear_write_errors(path),
        tempfile.NamedTemporaryFile(prefix=f"{path.name}.", dir=path.parent) as clock,
    ):
        now = os.fstat(clock.fileno()).st_mtime
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:  # released meanwhile
        return float("inf")


def _look(path: Path) -> Mapping[str, Any]:
    """What the lock says: nothing when it is gone, or empty since its maker died at once.

    One that is being written at this moment is waited for. Raises UsageError for what is no lock.
    """
    patience = time.monotonic() + _SECONDS_TO_WRITE
    while not (path.is_symlink() or path.is_dir()):
        text = _text(path)
        found = _parsed(text)
        if found is not _UNREADABLE or text is None:
            return found
        if time.monotonic() > patience:
            if not text:
                return found
            break
        time.sleep(0.01)
    raise UsageError(f"{path} is in the way and was not made by dlgenome; move it, or choose another -o.")


def _read(path: Path) -> Mapping[str, Any]:
    return _parsed(_text(path))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _parsed(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "")
    except ValueError:
        return _UNREADABLE
    is_lock = isinstance(found, dict) and "token" in found and isinstance(found.get("pid"), int)
    return found if is_lock else _UNREADABLE


def _busy(path: Path, found: Mapping[str, Any]) -> str:
    job = f", job {found['job']}" if found.get("job") else ""
    who = f"process {found['pid']} on {found['host']}{job}" if found.get("host") else "another process"
    return (
        f"-o {str(path).removesuffix('.partial.lock')} is in use by {who}; wait for it or choose another -o "
        "(--force-unlock if it is certain that no such run exists)."
    )


def _process_start(pid: int) -> str:
    """When the process began, in kernel ticks; "gone" when there is none, empty where nobody knows."""
    if pid == os.getpid() and not Path("/proc/self/stat").exists():
        return ""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _without_proc(pid)
    return text.rpartition(")")[2].split()[19]


def _without_proc(pid: int) -> str:
    """The same where there is no /proc, as on macOS: only whether the process lives."""
    if Path("/proc/self/stat").exists():
        return "gone"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass
    return ""


def _machine_start() -> str:
    facts = []
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(facts)
