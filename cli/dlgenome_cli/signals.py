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


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; not an Exception, since torch.export swallows those and goes on."""


@contextmanager
def stop_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a request to stop while the block runs."""

    def ask(number: int, frame: FrameType | None) -> None:
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
    stop.give_up()
    advice = "run again with --resume" if stop.waits_for_step else "run the command again"
    sys.stderr.write(f"\nError: Stopped without waiting ({why}); {advice}.\n")
    sys.stderr.flush()
    os._exit(Interrupted.exit_code)
