"""Steps side by side: in order, each on one thread, and without a trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from dlgenome.attribution.parallel import Lanes


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    """Three, made before the number of threads changed to two."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    made = Lanes(torch.device("cpu"))
    torch.set_num_threads(2)
    yield made
    torch.set_num_threads(before)


def test_tasks_run_at_the_same_time_on_one_thread_each_and_come_back_in_order(lanes: Lanes) -> None:
    together = threading.Barrier(3)

    def work(task: int) -> tuple[int, int]:
        together.wait(10)
        return task, torch.get_num_threads()

    assert lanes.map(work, range(6)) == [(task, 1) for task in range(6)]
    assert torch.get_num_threads() == 2


def test_an_error_of_a_task_is_raised_and_the_next_tasks_run(lanes: Lanes) -> None:
    def work(task: int) -> float:
        return 1 / task

    with pytest.raises(ZeroDivisionError):
        lanes.map(work, [1, 0, 2, 4, 5, 8])
    assert lanes.map(work, [1, 2, 4]) == [1, 0.5, 0.25]


def test_a_gpu_has_one_lane() -> None:
    assert Lanes(torch.device("meta")).count == 1
