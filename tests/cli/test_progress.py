"""What is shown of long work."""

from __future__ import annotations

import logging
import time

import click
import pytest
from click.testing import CliRunner

from dlgenome_cli import progress
from dlgenome_cli.options import verbosity_options


@pytest.mark.parametrize("first", [0, 90])
def test_the_bar_counts_the_speed_from_where_a_run_goes_on(
    first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress._bar("scoring") as advance:
        advance(first, 100)
        clock[0] += 4
        advance(100, 100)
    shown = capsys.readouterr().err
    assert "100/100" in shown
    assert f"{(100 - first) / 4:.2f} regions/s" in shown


def test_a_message_begins_a_line_of_its_own_above_the_bar() -> None:
    @click.command()
    @verbosity_options
    def work() -> None:
        with progress._bar("scoring") as advance:
            advance(1, 3)
            logging.getLogger("dlgenome.somewhere").info("a [message] on the way")
            advance(3, 3)
        logging.getLogger("dlgenome.somewhere").info("a message afterwards")

    shown = CliRunner(env={"TTY_COMPATIBLE": "1", "TERM": "xterm"}).invoke(work).stderr
    assert "\x1b[2Ka [message] on the way\n" in shown  # the line of the bar is erased first
    assert shown.endswith("a message afterwards\n")
