"""A generator run ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


@contextmanager
def prefetch(items: Iterator[Item], ahead: int) -> Iterator[Iterator[Item]]:
    """Yield an iterator over ``items`` that are made up to ``ahead`` at a time in another thread.

    An exception of the maker is raised where its item would have been; leaving the block stops the maker.
    """
    waiting: queue.Queue[object] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    maker = threading.Thread(target=_fill, args=(items, waiting, stop), name="dlgenome-reader", daemon=True)
    maker.start()
    try:
        yield _drain(waiting)
    finally:
        stop.set()
        while maker.is_alive():
            _empty(waiting)
            maker.join(timeout=0.05)


def _fill(items: Iterator[Item], waiting: queue.Queue[object], stop: threading.Event) -> None:
    try:
        for item in items:
            waiting.put(item)
            if stop.is_set():
                return
        waiting.put(_END)
    except BaseException as error:
        waiting.put(_Failure(error))


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _drain(waiting: queue.Queue[object]) -> Iterator[Item]:
    while (item := waiting.get()) is not _END:
        if isinstance(item, _Failure):
            raise item.error
        yield item  # type: ignore[misc]


def _empty(waiting: queue.Queue[object]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        pass
