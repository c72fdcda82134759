"""Names with spaces, quotes, line ends, letters of any script and dashes in front work for every file."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dlgenome_cli.main import cli

NAMES = {
    "quotes": 'it\'s "so" `x`  [bold]x[red]',
    "a line end": "two\nlines Zürich-日本-🧬",
    "a dash": "-dash $HOME;*&|<>~# %s%n{x}",
    "a flag": "--help",
}


@pytest.fixture(params=list(NAMES.values()), ids=list(NAMES))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, [*words])


def test_every_file_of_a_run_may_have_an_odd_name(
    inputs: Path, here: Path, name: str, read_scores: Callable[[Path], dict[str, Any]]
) -> None:
    for source, ending in (
        ("bpnet.safetensors", ".safetensors"),
        ("genome.fa", ".fa"),
        ("peaks.narrowPeak", ".bed"),
    ):
        shutil.copy(inputs / source, name + ending)
    Path(f"{name}.exclude").write_text("chrZ\t1\t2\n")
    Path(f"{name}.yaml").write_text("batch-size: 6\nthreads: 1\ndevice: cpu\n")
    with h5py.File(f"{name}.h5".encode(errors="surrogateescape"), "w") as file:
        file["references"] = np.full((3, 4, 100), 0.25)
    flags = [
        *("--model", f"{name}.safetensors"),
        *("--genome", f"{name}.fa"),
        *("--regions", f"{name}.bed"),
        *("--exclude", f"{name}.exclude"),
        *("--config", f"{name}.yaml"),
        *("--references", f"file:{name}.h5"),
        *("--output", name),
    ]
    listed = run("attribute", *flags, "--list-outputs")
    assert listed.exit_code == 0, listed.output
    done = run("attribute", *flags)
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in here.iterdir() if path.name.startswith(f"{name}."))
    for ending in (".counts_scores.h5", ".counts_scores.bw", ".interpreted_regions.bed", ".run.json"):
        assert f"{name}{ending}" in written
    assert not [path for path in written if path.endswith(".partial") or path.endswith(".lock")]
    assert len(read_scores(here / f"{name}.counts_scores.h5")["raw/seq"]) == 12
    facts = json.loads((here / f"{name}.run.json").read_text())
    assert facts["settings"]["genome"] == f"{name}.fa"
    _check_commands(facts["next_commands"], here, name)


def _check_commands(commands: list[str], here: Path, name: str) -> None:
    """What a shell makes of the printed commands must be the files, also for programs that look for flags."""
    for command in commands:
        program, verb, *words = shlex.split(command)
        assert (program, verb) == ("modisco", "motifs")
        parser = argparse.ArgumentParser()
        for flag in ("-i", "-n", "-w", "-o"):
            parser.add_argument(flag)
        given = parser.parse_args(words)
        assert (here / given.i).samefile(here / f"{name}.counts_scores.h5")
        assert Path(given.o).name == f"{name}.modisco.h5"


def test_inspecting_and_converting_take_odd_names(inputs: Path, here: Path, name: str) -> None:
    shutil.copy(inputs / "linear.pt", f"{name}.pt")
    shutil.copy(inputs / "linear.py", f"{name}.py")
    np.save(f"{name}.npy", np.zeros(2, np.float32))
    factory = ["--architecture", f"{name}.py:linear", "--window", "100"]
    done = run("convert", *factory, "--output", f"{name}.pt2", "--", f"{name}.pt")
    assert done.exit_code == 0, done.output
    done = run("inspect", "--json", "--", f"{name}.pt2")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["path"] == f"{name}.pt2"
    done = run("inspect", "--extra-input", f"{name}.npy", "--", f"{name}.pt2")
    assert done.exit_code == 2, done.output
    assert "does not run" in done.output


def test_messages_stay_on_one_line_whatever_a_file_is_called(here: Path, name: str) -> None:
    done = run("inspect", "--", f"{name}.pt")
    assert done.exit_code == 3
    assert done.output.count("\n") == 1, done.output
    assert "There is no model file" in done.output


def test_names_that_are_no_text_are_refused_before_anything_is_read(here: Path) -> None:
    done = run("inspect", os.fsdecode(b"latin-\xfc.pt"))
    assert done.exit_code == 2
    assert r"latin-\udcfc.pt is not valid UTF-8; rename the file" in done.output


def test_names_in_files_cannot_speak_to_the_terminal(inputs: Path, here: Path) -> None:
    Path("peaks.bed").write_text("chr\x1b]0;owned\x07\t1\t20\n")
    flags = ["-m", str(inputs / "bpnet.safetensors"), "-g", str(inputs / "genome.fa"), "-r", "peaks.bed"]
    done = run("attribute", *flags, "-o", "x")
    assert done.exit_code == 3
    assert "\x1b" not in done.output
    assert "\x07" not in done.output
    assert "\\x1b" in done.output
