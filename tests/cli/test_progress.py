"""What is shown of long work."""

from __future__ import annotations

import time

import pytest

from dlgenome_cli import progress


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
