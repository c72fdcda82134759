"""Several processes give the files of one, and what happens when one of them dies."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from dlgenome.attribution.devices import resolve_devices
from dlgenome.config import RunConfig
from dlgenome.errors import InputError, UsageError
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.workers import WorkerPool, WorkOrder
from dlgenome.types import Region, Window

Attribute = Callable[..., Result]

LENGTH = 100


def order(inputs: Path, **settings: object) -> WorkOrder:
    given: dict[str, object] = {
        "model": inputs / "bpnet.safetensors",
        "genome": inputs / "genome.fa",
        "regions": str(inputs / "peaks.narrowPeak"),
        "output": Path("nowhere"),
        "n_references": 2,
    }
    config = RunConfig(**(given | settings))  # type: ignore[arg-type]
    return WorkOrder(config, LENGTH, n_input_rows=12, batch_size=2, threads=1)


def batch_of(windows: int, row: int, references: int = 2) -> Batch:
    generator = np.random.default_rng(row)
    codes = generator.integers(0, 4, (windows, LENGTH), np.uint8)
    places = [
        Window(Region("chr1", row, row + LENGTH, f"peak{row}"), "chr1", row, row + LENGTH, row + LENGTH // 2)
        for _ in range(windows)
    ]
    return Batch(places, codes, codes, np.stack([codes[::-1]] * references, axis=1))


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    attribute: Attribute, tmp_path: Path, read_scores: Callable[[Path], dict[str, object]]
) -> None:
    for name, device in (("one", "cpu"), ("two", "cpu:2")):
        result = attribute("-o", tmp_path / name, "--device", device, "--batch-size", "3")
        assert result.exit_code == 0, result.stderr
    one, two = (read_scores(tmp_path / f"{name}.counts_scores.h5") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    bigwigs = [(tmp_path / f"{name}.counts_scores.bw").read_bytes() for name in ("one", "two")]
    assert bigwigs[0] == bigwigs[1]


def kill_workers(times: int) -> threading.Thread:
    """Kills the one worker as soon as there is one, so many times."""

    def kill() -> None:
        killed: set[int] = set()
        while len(killed) < times:
            for process in active_children():
                if process.pid is not None and process.pid not in killed:
                    time.sleep(0.5)  # until it has been given work
                    os.kill(process.pid, signal.SIGKILL)
                    killed.add(process.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_dies_takes_nothing_with_it_until_it_dies_twice(
    inputs: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    batches = [batch_of(1, row) for row in range(3)]
    pool = WorkerPool(order(inputs), (torch.device("cpu"),), lambda size: None)
    killer = kill_workers(times)
    try:
        with caplog.at_level(logging.WARNING):
            found = list(pool.explain_all(iter(batches)))
    finally:
        pool.close()
        killer.join()
    assert [batch for batch, _ in found] == batches
    assert caplog.text.count("was killed by SIGKILL while it explained chr1:0-100 (peak0)") == times
    first, *others = (scores[0] for _, scores in found)
    assert isinstance(first, str) == (times == 2)
    if times == 2:
        assert first == "the process that explained it was killed by SIGKILL twice"
    assert not any(isinstance(scores, str) for scores in others)


@pytest.mark.slow
def test_large_batches_and_large_results_do_not_wait_for_each_other(inputs: Path) -> None:
    pool = WorkerPool(order(inputs), (torch.device("cpu"),), lambda size: None)
    batches = [batch_of(600, row) for row in range(3)]  # far beyond what a pipe holds, in both directions
    try:
        found = list(pool.explain_all(iter(batches)))
    finally:
        pool.close()
    assert [len(scores) for _, scores in found] == [600] * 3
    assert not active_children()


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised_as_itself(inputs: Path, tmp_path: Path) -> None:
    pool = WorkerPool(order(inputs, model=tmp_path / "gone.torch"), (torch.device("cpu"),), lambda size: None)
    try:
        with pytest.raises(InputError, match=r"gone\.torch"):
            list(pool.explain_all(iter([batch_of(1, 0)])))
    finally:
        pool.close()


def test_devices_are_named_as_users_of_torch_expect() -> None:
    assert resolve_devices("cpu") == (torch.device("cpu"),)
    assert resolve_devices("cpu:3") == (torch.device("cpu"),) * 3
    for name in ("cpu:0", "cpu:x", "cpu:99999"):
        with pytest.raises(UsageError, match=f"--device {name}: cpu:N starts N processes"):
            resolve_devices(name)
    with pytest.raises(UsageError, match="names a device twice"):
        resolve_devices("cuda:0,0")
    if not torch.cuda.is_available():
        for name in ("cuda:all", "cuda:0,1", "cuda"):
            with pytest.raises(UsageError, match="finds no CUDA device here"):
                resolve_devices(name)


@pytest.mark.gpu
def test_every_gpu_gets_a_process() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    assert len(resolve_devices("cuda:all")) == torch.cuda.device_count()
