"""A disk that fills up in the middle of a run, and a run that goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
set -u
mount -t tmpfs -o size=64m tmpfs "$1"
shift_to="$1"; shift
"$@" -o "$shift_to/run" >"$shift_to.first" 2>&1 &
run=$!
spooled() { stat -c %s "$shift_to/run.partial/scores.spool" 2>/dev/null || echo 0; }
while [ "$(spooled)" -lt 100000 ] && kill -0 $run; do sleep 0.02; done
dd if=/dev/zero of="$shift_to/filler" bs=64k 2>/dev/null
wait $run
echo "first $?"
ls "$shift_to"
rm "$shift_to/filler"
"$@" -o "$shift_to/run" --resume >"$shift_to.second" 2>&1
echo "second $?"
cp -r "$shift_to" "$shift_to.copy"
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_with_75_and_nothing_is_lost(
    tmp_path: Path, arguments: list[object], contents: Any, server: Any
) -> None:
    unshare = shutil.which("unshare")
    inside = [unshare or "", "--user", "--map-root-user", "--mount"]
    allowed = (
        unshare
        and not subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True
        ).returncode
    )
    if not allowed:
        pytest.skip("a small disk cannot be mounted here (unshare --user --mount)")
    small = tmp_path / "small"
    small.mkdir()
    command = [sys.executable, "-m", "dlgenome_cli.main", *map(str, arguments)]
    done = subprocess.run(
        [*inside, "sh", "-c", SCRIPT, "sh", str(small), *command],
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, second = (Path(f"{small}.{name}").read_text() for name in ("first", "second"))
    lines = done.stdout.split("\n")
    assert lines[0] == "first 75", first
    # while it scores, or when it is about to finish: the filler and the run are as fast as they are
    assert "is full" in first or "free and this run needs" in first
    assert "free some space" in first
    assert "run again with --resume" in first
    assert "Traceback" not in first
    assert "run.partial" in lines
    assert "run.run.json" not in lines
    assert "second 0" in lines, second
    assert "of them before" in second
    assert server.start(*arguments, "-o", tmp_path / "run").wait() == 0
    assert contents(Path(f"{small}.copy") / "run") == contents(tmp_path / "run")
