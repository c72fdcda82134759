"""Who may work on a prefix, and what happens to the lock of a process that is gone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dlgenome.errors import Interrupted, UsageError
from dlgenome.writers import lock as lock_module
from dlgenome.writers.lock import Holder, Lock, this_process

Leave = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.partial.lock"


@pytest.fixture
def leave(path: Path) -> Leave:
    """Puts a lock there, as another holder left it so many seconds ago."""

    def write(seconds_ago: float = 0.0, **changes: object) -> None:
        path.write_text(json.dumps({**asdict(this_process()), **changes}))
        then = time.time() - seconds_ago
        os.utime(path, (then, then))

    return write


def on_another_host(**changes: object) -> dict[str, object]:
    return {"host": "node7", "pid": 4321, "process_start": "1", "machine_start": "b", **changes}


def test_a_lock_goes_when_it_is_released(path: Path) -> None:
    first = Lock(path)
    assert first.still_held()
    first.release()
    assert not path.exists()
    first.release()
    second = Lock(path)
    first.release()
    assert second.still_held(), "a lock that was released twice took the next one with it"
    second.release()


def test_a_second_holder_is_refused_and_told_who_has_it(path: Path) -> None:
    first = Lock(path)
    before = path.read_bytes()
    with pytest.raises(Interrupted, match=rf"in use by process {os.getpid()} on .*--force-unlock") as refused:
        Lock(path)
    assert refused.value.exit_code == 75
    assert path.read_bytes() == before
    first.release()


def test_of_many_at_once_one_gets_the_lock(path: Path) -> None:
    start = threading.Barrier(8)

    def attempt(_: int) -> Lock | None:
        start.wait()
        try:
            return Lock(path)
        except Interrupted:
            return None

    for _ in range(4):
        with ThreadPoolExecutor(8) as pool:
            [winner] = [lock for lock in pool.map(attempt, range(8)) if lock is not None]
        assert winner.still_held()
        winner.release()


def test_of_many_that_find_a_stale_lock_one_gets_it(path: Path, leave: Leave, tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def attempt(_: int) -> Lock | None:
        start.wait()
        try:
            return Lock(path)
        except Interrupted:
            return None

    for _ in range(8):
        leave(process_start="0")
        with ThreadPoolExecutor(6) as pool:
            winners = [lock for lock in pool.map(attempt, range(6)) if lock is not None]
        assert [lock for lock in winners if lock.still_held()] == winners
        assert len(winners) <= 1
        for lock in winners:
            lock.release()
        path.unlink(missing_ok=True)
        assert not list(tmp_path.iterdir())


def test_a_killed_process_leaves_a_lock_that_the_next_one_takes(path: Path) -> None:
    program = (
        "import os, sys, pathlib; from dlgenome.writers.lock import Lock;"
        "Lock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(Interrupted, match=f"process {process.pid} on"):
            Lock(path)
        process.kill()
        process.wait()
    Lock(path).release()


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the system does not tell when a process began"
)
def test_a_number_that_another_process_got_since_does_not_hold_a_lock(path: Path, leave: Leave) -> None:
    leave(pid=1)
    lock = Lock(path)
    assert lock.still_held()
    lock.release()


def test_the_same_job_started_again_takes_its_own_lock(
    path: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    leave(**on_another_host(job="77", job_restart="1"))
    with pytest.raises(Interrupted, match="process 4321 on node7, job 77"):
        Lock(path)
    leave(**on_another_host(job="76", job_restart=""))
    with pytest.raises(Interrupted):
        Lock(path)
    leave(**on_another_host(job="77", job_restart=""))
    Lock(path).release()


def test_tasks_of_one_job_array_are_different_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    holder = this_process()
    assert (holder.job, holder.job_restart) == ("77_3", "2")


def test_a_lock_of_another_host_is_stale_after_five_minutes(path: Path, leave: Leave) -> None:
    leave(290, **on_another_host())
    with pytest.raises(Interrupted, match="process 4321 on node7;"):
        Lock(path)
    leave(310, **on_another_host())
    Lock(path).release()


@pytest.mark.parametrize("wrong_by", [-3600, 3600])
def test_the_clock_of_the_host_is_not_asked(
    path: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    leave(60, **on_another_host())
    clock = time.time
    monkeypatch.setattr("time.time", lambda: clock() + wrong_by)
    with pytest.raises(Interrupted):
        Lock(path)
    monkeypatch.undo()
    leave(310, **on_another_host())
    monkeypatch.setattr("time.time", lambda: clock() + wrong_by)
    Lock(path).release()


def test_a_live_process_of_this_host_holds_its_lock_however_old_it_is(path: Path) -> None:
    first = Lock(path)
    os.utime(path, (0, 0))
    with pytest.raises(Interrupted):
        Lock(path)
    first.release()


def test_looking_at_a_lock_leaves_the_folder_as_it_was(path: Path, leave: Leave, tmp_path: Path) -> None:
    mine = tmp_path / "scratch-clock"
    mine.write_text("years of work")
    leave(10, **on_another_host())
    with pytest.raises(Interrupted):
        Lock(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, mine])
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["text", "json", "folder", "link"])
def test_what_is_no_lock_is_refused_and_stays(
    path: Path, tmp_path: Path, kind: str, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "_SECONDS_TO_WRITE", 0.02)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("years of work" if kind == "text" else '{"pid": 1}')
    if kind != "link":
        os.utime(path, (0, 0))
    with pytest.raises(UsageError, match=r"run\.partial\.lock is in the way and was not made by dlgenome"):
        Lock(path, force=force)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert path.is_symlink() == (kind == "link")


def test_an_empty_file_is_a_lock_in_the_making_until_it_is_old(path: Path) -> None:
    path.touch()
    with pytest.raises(Interrupted, match="in use by another process"):
        Lock(path)
    os.utime(path, (0, 0))
    Lock(path).release()


def test_a_lock_that_is_just_being_written_is_waited_for(path: Path, leave: Leave) -> None:
    path.touch()
    writer = threading.Timer(0.05, leave, kwargs=on_another_host())
    writer.start()
    with pytest.raises(Interrupted, match="process 4321 on node7"):
        Lock(path)
    writer.join()


def test_force_takes_the_lock_of_a_live_run_which_notices(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "TOUCH_SECONDS", 0.01)
    first = Lock(path)
    second = Lock(path, force=True)
    first._keeper.join(timeout=10)
    assert (first.lost, first.still_held()) == (True, False)
    assert (second.lost, second.still_held()) == (False, True)
    first.release()
    assert second.still_held()
    second.release()


def test_a_lock_that_cannot_be_read_for_a_moment_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(path)

    def stale(*_: object, **__: object) -> str:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        assert lock.still_held()
        lock.check()
    lock.release()
    assert not path.exists()


def test_a_lock_is_touched_while_it_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "TOUCH_SECONDS", 0.01)
    lock = Lock(path)
    os.utime(path, (0, 0))
    patience = time.monotonic() + 10
    while path.stat().st_mtime == 0 and time.monotonic() < patience:
        time.sleep(0.01)
    assert time.time() - path.stat().st_mtime < 60
    assert not lock.lost
    lock.release()


def test_a_lock_taken_between_two_looks_is_left_alone(
    path: Path, leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(310, **on_another_host())
    age = lock_module._seconds_untouched

    def judge(path: Path) -> float:
        """Meanwhile the stale lock has become that of a live run."""
        seconds = age(path)
        leave(**on_another_host(pid=99, token="new"))
        return seconds

    monkeypatch.setattr(lock_module, "_seconds_untouched", judge)
    with pytest.raises(Interrupted, match="process 99 on node7"):
        Lock(path)
    assert json.loads(path.read_text())["token"] == "new"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_an_empty_lock_that_another_run_has_just_made_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    os.utime(path, (0, 0))
    age = lock_module._seconds_untouched

    def judge(path: Path) -> float:
        """Meanwhile the stale file has gone, and another run makes its lock."""
        seconds = age(path)
        path.unlink()
        path.touch()
        return seconds

    monkeypatch.setattr(lock_module, "_seconds_untouched", judge)
    with pytest.raises(Interrupted, match="in use by another process"):
        Lock(path)
    assert path.exists()


def test_a_process_that_died_while_it_removed_a_lock_is_in_the_way_for_five_minutes(
    path: Path, leave: Leave, tmp_path: Path
) -> None:
    removing = tmp_path / "run.partial.lock.removing"
    for seconds in (10, 310):
        removing.touch()
        then = time.time() - seconds
        os.utime(removing, (then, then))
        leave(310, **on_another_host())
        with pytest.raises(Interrupted, match="in use by another process"):
            Lock(path)
        assert removing.exists() == (seconds == 10)
    Lock(path).release()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_goes_while_it_is_looked_at_is_free(
    path: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(**on_another_host())
    age = lock_module._seconds_untouched

    def judge(path: Path) -> float:
        path.unlink()
        return age(path)

    monkeypatch.setattr(lock_module, "_seconds_untouched", judge)
    lock = Lock(path)
    assert lock.still_held()
    lock.release()


def test_a_full_disk_leaves_no_empty_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Interrupted, match="is full"):
        Lock(path)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot write .*nowhere/run\.partial\.lock: No such file"):
        Lock(tmp_path / "nowhere" / "run.partial.lock")


def test_two_calls_in_one_process_are_two_holders() -> None:
    one, other = this_process(), this_process()
    assert isinstance(one, Holder)
    assert one.token != other.token
    assert replace(one, token="") == replace(other, token="")
