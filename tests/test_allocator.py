"""Freed memory stays with the process, from the first thread on, unless somebody tuned it otherwise."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest

from dlgenome import allocator
from dlgenome_cli import main as command


class Library:
    """Stands for the C library, and notes what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        self.told[parameter] = value
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """In the place of the C library, on a Linux where nobody tuned malloc."""
    made = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    return made


def test_large_values_are_kept_and_all_threads_share_them(library: Library) -> None:
    allocator.keep_freed_memory()
    threshold, trim, arenas = library.told[-3], library.told[-1], library.told[-8]
    assert min(threshold, trim) >= 2**30
    assert arenas == 1


def test_nothing_is_changed_where_the_user_tuned_malloc(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    allocator.keep_freed_memory()
    assert library.told == {}


def test_nothing_is_asked_of_other_systems(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    allocator.keep_freed_memory()
    assert library.told == {}


def test_the_command_says_so_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that took memory before has a share of its own, which is given back all the time."""
    order: list[str] = []
    monkeypatch.setattr(command, "keep_freed_memory", lambda: order.append("memory"))
    monkeypatch.setattr(command, "interrupt_on_signals", lambda: order.append("signals"))
    monkeypatch.setattr(command, "ignore_signals", lambda: None)

    def run(**settings: Any) -> None:
        order.append("command")

    monkeypatch.setattr(command, "cli", run)
    command.main()
    assert order == ["memory", "signals", "command"]
