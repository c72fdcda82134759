"""Progress of long work on stderr: a bar on a terminal, a plain line every 30 seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlgenome_cli.options import log, messages_through

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def region_progress(doing: str = "scoring") -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes regions done and regions in all; with -q it shows nothing."""
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        with _bar(doing) as advance:
            yield advance
    else:
        yield _Lines().advance


@contextmanager
def _bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)

    def above(line: str) -> None:
        console.out(line, highlight=False)

    with Progress(*columns, console=console) as progress, messages_through(above):
        task = progress.add_task("checking", total=None, rate="")
        begun: tuple[float, int] | None = None

        def advance(done: int, total: int) -> None:
            nonlocal begun
            if begun is None:  # a run that is gone on with begins in the middle
                begun = time.monotonic(), done
                progress.reset(task, completed=done, total=total, description=doing)
            rate = (done - begun[1]) / max(time.monotonic() - begun[0], 1e-9)
            progress.update(task, completed=done, total=total, rate=f"{rate:.2f} regions/s")

        yield advance


class _Lines:
    """A line whenever enough time has passed since the last."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._first = 0
        self._last = time.monotonic()

    def advance(self, done: int, total: int) -> None:
        """Print done, total, rate and remaining time, at most once per period."""
        now = time.monotonic()
        if self._begun is None:
            self._begun, self._first = now, done
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        left = (total - done) / rate if rate > 0 else float("inf")
        log.info(f"{done:,} of {total:,} regions, {rate:.2f} regions/s, {_duration(left)} left")


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
