"""What is unfinished is for its owner alone; what is finished is as open as the user has it."""

from __future__ import annotations

import os
from pathlib import Path

from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths


def test_the_folder_of_an_unfinished_run_is_private(tmp_path: Path) -> None:
    paths, previous = OutputPaths(tmp_path / "run", ("counts",)), os.umask(0)
    try:
        prepare_outputs(paths, overwrite=False)
    finally:
        os.umask(previous)
    assert paths.partial.stat().st_mode & 0o777 == 0o700
