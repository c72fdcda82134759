"""Signals of users and clusters: the first lets the step in hand end, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from dlgenome.errors import Interrupted

if TYPE_CHECKING:
    from dlgenome.pipeline import StopRequest

SECONDS_FOR_THE_STEP = 8.0
"""Schedulers kill some time after they have asked; a step that takes longer is given up."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
_too_late = threading.Event()
"""Set when what the command was to make is made."""


class Stopped(BaseException):
    """A signal asked for the end.

    Not an Exception, since torch.export swallows those and goes on; nor a KeyboardInterrupt, of which click
    makes an exit status of its own.
    """


def interrupt_on_signals() -> None:
    """For the whole process: a signal unwinds the command, as Ctrl-C does, so that open files are closed.

    A command that has made what it was to make is not interrupted any more: its exit status would deny it.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _too_late.is_set():
            raise Stopped("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    _too_late.clear()
    for number in _SIGNALS:
        signal.signal(number, interrupt)


def refuse_from_here() -> None:
    """From here on no signal interrupts the command."""
    _too_late.set()


def ignore_signals() -> None:
    """For a process that has only to end, in which Python would put its own handlers away first."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a request to stop while the block runs."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_too_late:
            return
        stop.request(signal.Signals(number).name)
        if not stop.waits_for_step:
            raise Stopped(stop.cause)

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    # Python runs handlers between two of its own instructions, which a long step in native code holds up;
    # the descriptor is written to at once, and another thread watches it.
    watched, woken = socket.socketpair()
    woken.setblocking(False)
    former = signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(watched, stop), name="dlgenome-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        if stop.is_too_late:
            refuse_from_here()
        signal.set_wakeup_fd(former)
        for number, handler in before.items():
            signal.signal(number, handler)
        woken.close()
        watcher.join()
        watched.close()


def _watch(watched: socket.socket, stop: StopRequest) -> None:
    """End the process at the second signal, and when the step in hand takes too long after the first."""
    if not watched.recv(1):
        return
    watched.settimeout(SECONDS_FOR_THE_STEP)
    try:
        if not watched.recv(1):
            return
        why = "asked twice"
    except TimeoutError:
        why = f"the step in hand took more than {SECONDS_FOR_THE_STEP:.0f} seconds"
    if stop.is_too_late:
        return
    stop.give_up()
    advice = "run again with --resume" if stop.waits_for_step else "run the command again"
    sys.stderr.write(f"\nError: Stopped without waiting ({why}); {advice}.\n")
    sys.stderr.flush()
    os._exit(Interrupted.exit_code)
