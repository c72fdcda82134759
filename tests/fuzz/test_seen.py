"""The process that reads damaged files notices what must not be; otherwise its silence would say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("trial", "outcome"),
    [
        ("fills the memory", "read"),
        ("asks for too much", "bug"),
        ("fails", "bug"),
        ("says too much", "wordy"),
        ("hangs", "hangs"),
    ],
)
def test_what_must_not_be_is_seen(
    worker: Any, monkeypatch: pytest.MonkeyPatch, trial: str, outcome: str
) -> None:
    monkeypatch.setattr(worker, "seconds", 1.0 if trial == "hangs" else worker.seconds)
    answer = worker.ask("trial", Path(trial))
    assert answer.outcome == outcome, answer.error
    assert not answer.is_fine
