"""The frame of the command line: help, exit statuses, presets and configuration files."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dlgenome import errors
from dlgenome.config_files import preset_path, presets
from dlgenome_cli.main import cli
from dlgenome_cli.options import config_option, split_commas, verbosity_options
from dlgenome_cli.signals import Stopped

HEAVY = ("torch", "numpy", "matplotlib", "h5py", "pyfaidx", "numba", "rich", "yaml")


def modules_after(arguments: list[str]) -> set[str]:
    program = (
        "import sys, json\n"
        "from dlgenome_cli.main import cli\n"
        "try:\n    cli(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print()\nprint(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_imports_nothing_heavy(command: str) -> None:
    loaded = modules_after([command, "--help"] if command else ["--help"])
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_both_help_flags_and_verbosity(command: str) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(cli, [command, flag])
        assert result.exit_code == 0
        for shared in ("--verbose", "--quiet", "--debug"):
            assert shared in result.output


def test_what_commands_do_fits_a_line_of_80_columns() -> None:
    result = CliRunner().invoke(cli, ["--help"], terminal_width=80)
    assert "..." not in result.output.partition("Commands:")[2]


def test_version_is_one_line() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"dlgenome {version('dlgenome')}\n"


def test_presets_are_listed_and_printed() -> None:
    listing = CliRunner().invoke(cli, ["presets"])
    assert [line.split()[0] for line in listing.stdout.splitlines()] == list(presets())
    printed = CliRunner().invoke(cli, ["presets", "quick"])
    assert printed.stdout == preset_path("quick").read_text(encoding="utf-8")
    unknown = CliRunner().invoke(cli, ["presets", "quik"])
    assert unknown.exit_code == 2
    assert unknown.stdout == ""
    assert unknown.stderr.startswith("Error: There is no preset `quik`")


FAILURES: dict[str, tuple[BaseException, int, str]] = {
    "usage": (errors.UsageError("two flags"), 2, "Error: two flags"),
    "input": (errors.InputError("bad file"), 3, "Error: bad file"),
    "gate": (errors.CompletenessError("gate"), 4, "Error: gate"),
    "model": (errors.UnsupportedModelError("no rule"), 5, "Error: no rule"),
    "signal": (errors.Interrupted("stopped"), 75, "Error: stopped"),
    "sigterm": (Stopped("SIGTERM"), 75, "Error: Stopped by SIGTERM"),
    "ctrl-c": (KeyboardInterrupt(), 75, "Error: Stopped by Ctrl-C"),
    "disk": (OSError(errno.ENOSPC, "No space left", "out.h5"), 75, "Error: The disk is full (out.h5)"),
    "bug": (ValueError("first\nsecond"), 1, "(ValueError: first); run again with --debug"),
}


@pytest.fixture
def failing_command(request: pytest.FixtureRequest) -> Iterator[str]:
    @click.command("fail")
    @verbosity_options
    def fail() -> None:
        raise FAILURES[request.param][0]

    cli.add_command(fail)
    yield request.param
    del cli.commands["fail"]


@pytest.mark.parametrize("failing_command", FAILURES, indirect=True)
def test_a_failure_is_one_line_on_stderr_and_its_own_exit_status(failing_command: str) -> None:
    _, exit_code, words = FAILURES[failing_command]
    result = CliRunner().invoke(cli, ["fail"])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("failing_command", ["bug"], indirect=True)
def test_debug_adds_the_traceback(failing_command: str) -> None:
    result = CliRunner().invoke(cli, ["fail", "--debug"])
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "ValueError: first" in result.stderr


def test_a_library_that_swallows_exceptions_does_not_swallow_a_signal() -> None:
    assert not issubclass(Stopped, Exception)


def test_a_wrong_value_in_a_file_is_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("n-references: lots\n")
    flags = ["attribute", "-m", "m.pt", "-o", "x", "--config", str(path)]
    assert "'n-references' in the --config file: 'lots'" in CliRunner().invoke(cli, flags).output
    typed = CliRunner().invoke(cli, [*flags, "--n-references", "many"]).output
    assert "'--n-references': 'many'" in typed


@click.command()
@config_option
@click.option("--seed", type=int, default=0)
@click.option("--n-references", type=int, default=20)
@click.option("-t", "--target", "targets", multiple=True, default=("counts",))
@click.option("--chroms", type=click.UNPROCESSED, callback=split_commas, default="")
@click.option("--max-delta", type=float)
@verbosity_options
def echo_settings(**settings: object) -> None:
    click.echo(json.dumps(settings))


def settings_of(arguments: list[str]) -> dict[str, object]:
    result = CliRunner().invoke(echo_settings, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_a_flag_beats_the_file_and_the_file_beats_the_default(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 7\nn-references: 5\ntarget: index:3\nchroms: [chr1, chr2]\nmax-delta: 1e-4\n")
    assert settings_of(["--seed", "9", "--config", str(path)]) == {
        "seed": 9,
        "n_references": 5,
        "targets": ["index:3"],
        "chroms": ["chr1", "chr2"],
        "max_delta": 1e-4,
    }
    assert settings_of(["--chroms", "chr3, chr4", "--config", "quick"]) == {
        "seed": 0,
        "n_references": 5,
        "targets": ["counts"],
        "chroms": ["chr3", "chr4"],
        "max_delta": None,
    }


def test_a_value_of_the_wrong_kind_names_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("n-references: many\n")
    result = CliRunner().invoke(echo_settings, ["--config", str(path)])
    assert result.exit_code == 2
    assert "--n-references" in result.stderr


def test_quiet_and_verbose_together_are_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["presets", "-q", "-v"])
    assert result.exit_code == 2
    assert "not both" in result.stderr
