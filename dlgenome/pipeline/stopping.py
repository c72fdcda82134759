"""How a run is asked to stop: between two steps, with everything that was finished safe on the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlgenome.errors import Interrupted


class StopRequest:
    """Set from outside (a signal, say); looked at by the run before every step."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.cause = ""
        self.waits_for_step = False
        """Whether the run is where it looks at the request; elsewhere it is to be interrupted on the spot."""
        self.is_too_late = False
        """Whether the run is as good as finished: from here on nothing may end it as if it were not."""
        self._last_words: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def request(self, cause: str) -> None:
        """Ask for the end; the first cause counts."""
        if not self._event.is_set():
            self.cause = cause
            self._event.set()

    def refuse_from_here(self) -> None:
        """The last file is about to get its name: who asks later gets a finished run."""
        self.is_too_late = True

    def check(self) -> None:
        """Raise Interrupted when the run was asked to stop."""
        if self._event.is_set():
            raise Interrupted(f"Stopped by {self.cause}")

    @contextmanager
    def between_steps(self, *last_words: Callable[[], None]) -> Iterator[None]:
        """A block that checks often; ``last_words`` are called if the process must end inside it.

        Raises Interrupted at its end for what was asked since it checked last.
        """
        self.waits_for_step, self._last_words = True, list(last_words)
        try:
            yield
        finally:
            self.waits_for_step = False
        self.check()

    def give_up(self) -> None:
        """The process is about to end without waiting: release what outlives it."""
        for word in self._last_words:
            word()
