"""Steps side by side: in order, each on one thread, and none left running when one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from dlgenome.attribution.parallel import Lanes


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield Lanes(torch.device("cpu"))
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_tasks(lanes: Lanes) -> None:
    def work(task: int) -> int:
        time.sleep(0.02 / (task + 1))
        return task * task

    assert lanes.map(work, range(10)) == [task * task for task in range(10)]
    assert lanes.map(work, []) == []


def test_tasks_run_side_by_side_on_one_thread_each(lanes: Lanes) -> None:
    together = threading.Barrier(3, timeout=10)

    def work(_: int) -> tuple[int, int]:
        together.wait()
        torch.randn(300, 300) @ torch.randn(300, 300)  # a thread takes up its number when it first computes
        return torch.get_num_threads(), threading.get_ident()

    found = lanes.map(work, range(3))
    assert [threads for threads, _ in found] == [1, 1, 1]
    assert len({thread for _, thread in found}) == 3
    assert torch.get_num_threads() == 3


def test_a_failure_is_raised_when_nothing_runs_any_more(lanes: Lanes) -> None:
    running = begun = 0
    lock = threading.Lock()

    def work(task: int) -> None:
        nonlocal running, begun
        with lock:
            running, begun = running + 1, begun + 1
        try:
            if task == 0:
                raise MemoryError("too little")
            time.sleep(0.1)
        finally:
            with lock:
                running -= 1

    with pytest.raises(MemoryError, match="too little"):
        lanes.map(work, range(50))
    assert running == 0
    assert begun < 50


def test_the_number_of_threads_is_left_as_it_is() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    lanes = Lanes(torch.device("cpu"))
    torch.set_num_threads(2)
    try:
        assert lanes.map(str, range(5)) == ["0", "1", "2", "3", "4"]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_has_one_lane() -> None:
    assert Lanes(torch.device("cuda")).count == 1
