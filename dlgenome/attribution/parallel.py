"""Steps side by side on the cores of a processor, each on one thread.

On the processor, a step on one core is faster than half a step on each of two: nothing waits for the slower
half, and values stay in the caches of one core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")
_making = threading.Lock()


class Lanes:
    """Places where steps of one device run at the same time; a GPU has one."""

    def __init__(self, device: torch.device) -> None:
        self.count = torch.get_num_threads() if device.type == "cpu" else 1

    def map(self, work: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        """What ``work`` makes of every task, in the order of the tasks.

        Raises what the first of them raises, once nothing runs any more: when memory ran out, the next try
        needs all of it.
        """
        if self.count == 1:
            return [work(task) for task in tasks]
        with _making:
            pool = _pool(self.count)
        futures = [pool.submit(work, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads whose own torch operations are not spread over further threads, all of them started."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "dlgenome-lane", initializer=_compute_alone)
    together = threading.Barrier(count)
    for future in [pool.submit(together.wait) for _ in range(count)]:
        future.result()
    torch.set_num_threads(before)
    return pool


def _compute_alone() -> None:
    """Asking makes the number stand: who never asked begins with what torch was last told in any thread."""
    torch.set_num_threads(1)
    torch.get_num_threads()
