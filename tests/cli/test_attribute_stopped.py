"""What is left of a run that is stopped, or whose files change or vanish while it goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import Result

Attribute = Callable[..., Result]


@pytest.fixture
def after_first_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has the next run call a function once its first regions are scored."""

    def plan(act: Callable[[], object]) -> None:
        waiting = [act]

        @contextmanager
        def progress() -> Iterator[Callable[[int, int], None]]:
            def advance(done: int, total: int) -> None:
                if waiting:
                    waiting.pop()()

            yield advance

        monkeypatch.setattr("dlgenome_cli.progress.region_progress", progress)

    return plan


def only_error(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_by(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def test_a_genome_that_is_cut_during_the_run_stops_it(
    attribute: Attribute, inputs: Path, tmp_path: Path, after_first_step: Callable[..., None]
) -> None:
    genome = tmp_path / "genome.fa"
    shutil.copy(inputs / "genome.fa", genome)
    (tmp_path / "out").mkdir()
    after_first_step(lambda: genome.write_text(">chrA\nACGT\n"))
    regions = tmp_path / "many.bed"
    regions.write_text("".join(f"chrA\t{start}\t{start + 20}\n" for start in range(9000, 19000, 100)))
    result = attribute("-o", tmp_path / "out" / "run", genome=genome, regions=regions)
    assert result.exit_code == 3
    assert "genome.fa: chrA:" in only_error(result)
    assert "the file changed, was cut or went away while it was read" in only_error(result)
    assert names_in(tmp_path / "out") == ["run.partial"]


def test_inputs_deleted_during_the_run_do_no_harm(
    attribute: Attribute, inputs: Path, tmp_path: Path, after_first_step: Callable[..., None]
) -> None:
    names = ("genome.fa", "genome.fa.fai", "peaks.narrowPeak", "bpnet.safetensors")
    for name in names:
        shutil.copy(inputs / name, tmp_path / name)
    with h5py.File(tmp_path / "references.h5", "w") as file:
        file["references"] = np.broadcast_to(np.eye(4)[:, :1], (12, 3, 4, 100))

    def delete() -> None:
        for name in (*names, "references.h5"):
            (tmp_path / name).unlink()

    after_first_step(delete)
    result = attribute(
        "-o",
        tmp_path / "run",
        "--references",
        f"file:{tmp_path / 'references.h5'}",
        genome=tmp_path / names[0],
        regions=tmp_path / names[2],
        model=tmp_path / names[3],
    )
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run.run.json").is_file()


def test_an_output_folder_that_goes_away_is_named(
    attribute: Attribute, tmp_path: Path, after_first_step: Callable[..., None]
) -> None:
    (tmp_path / "out").mkdir()
    after_first_step(lambda: shutil.rmtree(tmp_path / "out"))
    result = attribute("-o", tmp_path / "out" / "run")
    assert result.exit_code == 75
    assert str(tmp_path / "out" / "run.partial") in only_error(result)


@pytest.mark.parametrize(
    ("stop", "exit_code", "words"),
    [
        (KeyboardInterrupt(), 75, "Stopped by Ctrl-C"),
        (OSError(28, "No space left on device"), 75, "The disk is full"),
        (MemoryError(), 1, "This is a bug"),
    ],
    ids=["ctrl-c", "disk full", "bug"],
)
def test_a_stopped_run_keeps_what_a_later_one_needs_and_nothing_else(
    stop: BaseException,
    exit_code: int,
    words: str,
    attribute: Attribute,
    finished: Path,
    read_scores: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
    after_first_step: Callable[..., None],
) -> None:
    after_first_step(stop_by(stop))
    result = attribute("-o", tmp_path / "run")
    assert result.exit_code == exit_code
    assert words in only_error(result)
    assert names_in(tmp_path) == ["run.partial"]
    assert names_in(tmp_path / "run.partial") == [
        "dlgenome-unfinished-run.txt",
        "run-state.json",
        "scores.spool",
    ]
    assert f"kept in {tmp_path / 'run.partial'}, run again with --resume" in result.stderr
    assert attribute("-o", tmp_path / "run", "--resume").exit_code == 0
    assert "run.partial" not in names_in(tmp_path)
    ours = read_scores(tmp_path / "run.counts_scores.h5")
    theirs = read_scores(Path(f"{finished}.counts_scores.h5"))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("installed", [False, True], ids=["file", "package"])
def test_a_run_is_not_resumed_with_another_version_of_a_function(
    installed: bool,
    attribute: Attribute,
    tmp_path: Path,
    after_first_step: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tmp_path / "dlgenome_test_resumed.py"
    own.write_text("def twice(outputs):\n    return 2 * outputs[1]\n")
    monkeypatch.syspath_prepend(tmp_path)
    target = ("-t", f"{own.stem if installed else own}:twice", "-o", tmp_path / "run")
    after_first_step(stop_by(KeyboardInterrupt()))
    assert attribute(*target).exit_code == 75
    own.write_text("def twice(outputs):\n    return 3 * outputs[1]\n")
    result = attribute(*target, "--resume")
    assert result.exit_code == 2
    message = only_error(result)
    assert "was begun with other inputs or settings" in message
    assert "the code (sha256) was " in message


def test_a_stopped_overwrite_keeps_the_earlier_files(
    attribute: Attribute, tmp_path: Path, after_first_step: Callable[..., None]
) -> None:
    assert attribute("-o", tmp_path / "run", "--limit", "1").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    after_first_step(stop_by(KeyboardInterrupt()))
    assert attribute("-o", tmp_path / "run", "--overwrite").exit_code == 75
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "run.partial"])
    assert {path: path.read_bytes() for path in before} == before


def test_a_signal_ends_the_command_with_75_and_says_how_to_go_on(inputs: Path, tmp_path: Path) -> None:
    regions = tmp_path / "many.bed"
    (tmp_path / "out").mkdir()
    regions.write_text("".join(f"chrA\t{start}\t{start + 20}\n" for start in range(1000, 19000)) * 10)
    words = ["-m", inputs / "bpnet.safetensors", "-g", inputs / "genome.fa", "-r", regions]
    words += ["-o", tmp_path / "out" / "run", "--batch-size", "20", "--threads", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "dlgenome_cli.main", "attribute", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        spool = tmp_path / "out" / "run.partial" / "scores.spool"
        for _ in range(600):
            if spool.exists() and spool.stat().st_size:
                break
            assert process.poll() is None
            time.sleep(0.1)
        assert not list((tmp_path / "out").glob("run.*_*"))
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 75
    last = messages.splitlines()[-1]
    assert last.startswith("Error: Stopped by SIGTERM; what was scored is kept in ")
    assert last.endswith("run again with --resume.")
    assert "Traceback" not in messages
    assert names_in(tmp_path / "out") == ["run.partial"]
