"""What the pool makes of workers that end badly. Threads say what workers would, so no process starts."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from dlgenome.config import RunConfig
from dlgenome.errors import Interrupted
from dlgenome.pipeline import workers
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.workers import WorkerPool, WorkOrder
from dlgenome.types import Region, Window

Life = Callable[[Connection], None]


class EndedProcess:
    """A process of which only its end is seen."""

    exitcode = -9

    def join(self, timeout: float | None = None) -> None: ...

    def is_alive(self) -> bool:
        return False


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WorkerPool]:
    """Makes a pool of so many workers; each that starts lives the next of the given lives."""

    def make(n_workers: int, *lives: Life) -> WorkerPool:
        remaining = iter(lives)

        def start(self: WorkerPool, number: int, device: torch.device) -> workers._Worker:
            ours, theirs = Pipe()
            threading.Thread(target=next(remaining), args=(theirs,), daemon=True).start()
            return workers._Worker(number, device, cast(SpawnProcess, EndedProcess()), ours)

        monkeypatch.setattr(WorkerPool, "_start", start)
        config = RunConfig(
            model=tmp_path / "model.pt",
            genome=tmp_path / "genome.fa",
            regions="regions.bed",
            output=tmp_path / "run",
        )
        order = WorkOrder(config, length=4, n_input_rows=3, batch_size=2, threads=1)
        return WorkerPool(order, (torch.device("cpu"),) * n_workers, lambda size: None)

    return make


def batch_of(n_windows: int) -> Batch:
    codes = np.zeros((n_windows, 4), np.uint8)
    windows = [
        Window(Region("chr1", row, row + 4, f"peak{row}"), "chr1", row, row + 4, row + 2)
        for row in range(n_windows)
    ]
    return Batch(windows, codes, codes, codes[:, None])


def answering(connection: Connection) -> None:
    try:
        while True:
            connection.send(("done", [window.region.name for window in connection.recv().windows]))
    except EOFError:
        connection.close()


def killed_while_it_answers(connection: Connection) -> None:
    connection.recv()
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"the beginning of a message")
    connection.close()


def killed_at_once(connection: Connection) -> None:
    connection.close()


def waiting(connection: Connection) -> None:
    threading.Event().wait(30)


@pytest.mark.parametrize("sizes", [(3,), (3, 2)])
def test_a_worker_killed_in_the_middle_of_its_answer_is_replaced_and_no_window_is_lost_or_doubled(
    pool: Callable[..., WorkerPool], sizes: tuple[int, ...]
) -> None:
    one = pool(1, killed_while_it_answers, answering)
    found = [scores for _, scores in one.explain_all(map(batch_of, sizes))]
    one.close()
    assert found == [[f"peak{row}" for row in range(size)] for size in sizes]


def test_a_worker_that_dies_idle_stops_a_run_that_can_go_on(pool: Callable[..., WorkerPool]) -> None:
    two = pool(2, waiting, killed_at_once)
    with pytest.raises(Interrupted, match=r"^Worker 2 on cpu was killed by SIGKILL while it had nothing to"):
        list(two.explain_all(iter([batch_of(1)])))
    two.close()
