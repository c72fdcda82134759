"""A run that is killed at random moments, again and again, ends as if nothing had happened.

DLGENOME_KILLS sets how many times it is killed with each signal.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dlgenome.writers.spool_reader import SpoolReader

KILLS = int(os.environ.get("DLGENOME_KILLS", "1"))
SECONDS_TO_STOP = 10.0
UNSYNCED_BYTES = 60_000
"""More than the run writes between two syncs."""


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, server: Any, arguments: list[object], contents: Any
) -> tuple[dict[str, Any], float]:
    """What the run comes to, and its seconds."""
    prefix = tmp_path_factory.mktemp("uninterrupted") / "run"
    begun = time.monotonic()
    process = server.start(*arguments, "-o", prefix)
    assert process.wait() == 0, process.said
    return contents(prefix), time.monotonic() - begun


def cut_power(spool: Path, chance: random.Random) -> None:
    """What was not synced may be gone, or have become anything."""
    if not spool.exists():
        return
    with spool.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        kept = max(0, size - chance.randrange(UNSYNCED_BYTES))
        file.truncate(kept)
        file.seek(kept)
        file.write(chance.randbytes(chance.randrange(2000)) if chance.random() < 0.5 else b"")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(
    tmp_path: Path,
    server: Any,
    arguments: list[object],
    uninterrupted: tuple[dict[str, Any], float],
    contents: Any,
    name: str,
) -> None:
    expected, seconds = uninterrupted
    chance = random.Random(name)
    number = getattr(signal, name)
    kills = runs = resumed = 0
    while kills < KILLS:
        prefix = tmp_path / f"run{runs}"
        runs += 1
        status = -1
        while status != 0:
            process = server.start(*arguments, "-o", prefix, "--resume")
            time.sleep(chance.uniform(0, seconds))
            asked = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.number, number)
            status = process.wait()
            assert status in (0, 75, -number), process.said
            if status:
                kills += 1
                assert time.monotonic() - asked < SECONDS_TO_STOP
                # SIGKILL alone can come between the last name and the exit.
                assert name == "SIGKILL" or not prefix.with_name(f"{prefix.name}.run.json").exists()
            if name == "SIGKILL" and status and chance.random() < 0.5:
                cut_power(prefix.with_name(f"{prefix.name}.partial") / "scores.spool", chance)
            resumed += "of them before" in process.said
        assert contents(prefix) == expected
    print(f"{name}: {kills} kills in {runs} runs, {resumed} of which went on from saved scores")


@pytest.mark.slow
def test_what_was_saved_is_not_scored_again(
    tmp_path: Path, server: Any, arguments: list[object], uninterrupted: tuple[dict[str, Any], float]
) -> None:
    spool = tmp_path / "run.partial" / "scores.spool"
    process = server.start(*arguments, "-o", tmp_path / "run")
    while not (spool.exists() and spool.stat().st_size > 300_000):
        time.sleep(0.01)
    os.kill(process.number, signal.SIGTERM)
    assert process.wait() == 75
    assert "what was scored is kept" in process.said
    with SpoolReader(spool) as reader:
        _, saved, _ = reader.blocks_end(reader.full_blocks())
    assert saved > 0
    process = server.start(*arguments, "-o", tmp_path / "run", "--resume")
    assert process.wait() == 0
    assert f"Scored 300 regions ({saved} of them before)" in process.said


@pytest.mark.slow
def test_a_second_process_on_the_prefix_is_refused_while_the_first_works(
    tmp_path: Path, server: Any, arguments: list[object], second_server: Any
) -> None:
    first = server.start(*arguments, "-o", tmp_path / "run")
    while not (tmp_path / "run.partial.lock").exists():
        time.sleep(0.01)
    second = second_server.start(*arguments, "-o", tmp_path / "run", "--resume")
    assert second.wait() == 75
    assert f"in use by process {first.number} on" in second.said
    assert first.wait() == 0
