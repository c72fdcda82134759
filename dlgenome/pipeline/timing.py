"""What the time of a run goes to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the seconds that named parts of the work took, in whatever threads they were done."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def __getitem__(self, part: str) -> float:
        """Seconds so far; 0 for a part that never began."""
        return self._seconds.get(part, 0.0)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """What the block takes counts for the part, however it ends."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            with self._lock:
                self._seconds[part] = self[part] + spent

    def each(self, part: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items; the time until each is there, and not what is done with it, counts for the part."""
        while True:
            with self.measure(part):
                item = next(items, None)
            if item is None:
                return
            yield item
