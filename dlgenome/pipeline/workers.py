"""Several processes that explain batches side by side: one for each device, or for parts of a processor."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import cast

import torch

from dlgenome.allocator import keep_freed_memory
from dlgenome.config import RunConfig
from dlgenome.errors import Interrupted
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import Found, GuardedExplainer
from dlgenome.pipeline.models import capture_folds, make_explainer, open_models
from dlgenome.references.registry import parse_references

logger = logging.getLogger(__name__)

_QUEUED_FOR_EACH = 2
_SIGNALS = (signal.SIGINT, signal.SIGUSR1)
"""What a terminal or a scheduler sends to a whole group of processes, as a request to the first of them."""
_SECONDS_TO_END = 2.0
_FINISHED_AHEAD = 4
"""Batches, for each worker, that may wait for one before them to be finished."""


@dataclass(frozen=True)
class WorkOrder:
    """All that a worker needs to make the same explainer as the process that starts it."""

    config: RunConfig
    length: int
    n_input_rows: int
    batch_size: int
    threads: int


@dataclass
class _Task:
    """Windows of one batch that a worker explains."""

    batch: int
    first: int
    piece: Batch
    deaths: int = 0


@dataclass
class _Worker:
    number: int
    device: torch.device
    process: SpawnProcess
    connection: Connection
    tasks: deque[_Task] = field(default_factory=deque)


@dataclass
class _Unfinished:
    batch: Batch
    found: list[Found | str | None]


class WorkerPool:
    """Explains batches in worker processes and gives them back in order.

    A worker that dies is replaced, and the windows that it had in hand are tried again one by one; one that
    takes a second worker with it comes back as a reason.
    """

    def __init__(
        self, order: WorkOrder, devices: tuple[torch.device, ...], on_smaller: Callable[[int], None]
    ) -> None:
        self._order, self._on_smaller = order, on_smaller
        self.batch_size = order.batch_size
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start(number, device) for number, device in enumerate(devices, start=1)]
        self._again: deque[_Task] = deque()
        self._open: dict[int, _Unfinished] = {}

    def explain_all(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Found | str]]]:
        """Every batch with the scores of its windows, or why they have none, in the order given.

        Raises Interrupted when a worker dies that had nothing to do, and what a worker raised.
        """
        pulled = yielded = 0
        exhausted = False
        while True:
            while not exhausted and pulled - yielded < _FINISHED_AHEAD * len(self._workers):
                if (worker := self._idlest()) is None:
                    break
                batch = next(batches, None)
                if batch is None:
                    exhausted = True
                    break
                self._open[pulled] = _Unfinished(batch, [None] * len(batch.windows))
                self._give(worker, _Task(pulled, 0, batch))
                pulled += 1
            while yielded in self._open and None not in self._open[yielded].found:
                done = self._open.pop(yielded)
                yielded += 1
                yield done.batch, cast(list[Found | str], done.found)
            if self._open:
                self._receive()
            elif exhausted:
                return

    def close(self) -> None:
        """End the workers: by themselves where they have nothing in hand, else without asking."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(timeout=_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _start(self, number: int, device: torch.device) -> _Worker:
        ours, theirs = self._context.Pipe()
        order = replace(self._order, batch_size=self.batch_size)
        process = self._context.Process(
            target=work, args=(theirs, order, str(device)), name=f"dlgenome-worker-{number}", daemon=True
        )
        with _signals_held_back():
            process.start()
        theirs.close()  # so that its end is seen here
        return _Worker(number, device, process, ours)

    def _idlest(self) -> _Worker | None:
        """The worker with the least to do, if it can take more; what must be tried again goes first."""
        for worker in sorted(self._workers, key=lambda one: len(one.tasks)):
            if len(worker.tasks) >= _QUEUED_FOR_EACH:
                return None
            if not self._again:
                return worker
            self._give(worker, self._again.popleft())
        return None

    def _give(self, worker: _Worker, task: _Task) -> None:
        worker.tasks.append(task)
        # That a worker has ended is noticed when its answer is waited for.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(task.piece)

    def _receive(self) -> None:
        """Take what the workers have ready; at least one thing."""
        self._idlest()
        by_connection = {worker.connection: worker for worker in self._workers}
        for ready in wait(list(by_connection)):
            worker = by_connection[cast(Connection, ready)]
            try:
                kind, content = worker.connection.recv()
            except (EOFError, OSError):  # the latter where it ended in the middle of a message
                self._replace(worker)
                continue
            if kind == "failed":
                raise content
            if kind == "smaller":
                self._take_smaller(content)
            elif kind == "done":
                task = worker.tasks.popleft()
                found = self._open[task.batch].found
                found[task.first : task.first + len(content)] = content

    def _take_smaller(self, batch_size: int) -> None:
        if batch_size < self.batch_size:
            self.batch_size = batch_size
            logger.warning("Memory ran out in a worker; it goes on with %d pairs a step.", batch_size)
            self._on_smaller(batch_size)

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        ended = _ending(worker.process.exitcode)
        if not worker.tasks:
            raise Interrupted(
                f"Worker {worker.number} on {worker.device} {ended} while it had nothing to do, so the model "
                "is not to blame; look for memory that runs out or for a device that fails"
            )
        in_hand, *others = worker.tasks
        windows = in_hand.piece.windows
        more = f" and {len(windows) - 1} more" if len(windows) > 1 else ""
        logger.warning(
            "Worker %d on %s %s while it explained %s%s; another takes its place.",
            *(worker.number, worker.device, ended, windows[0].place, more),
        )
        if len(windows) == 1 and in_hand.deaths:
            self._open[in_hand.batch].found[in_hand.first] = f"the process that explained it {ended} twice"
        else:
            self._again.extend(
                replace(
                    in_hand,
                    first=in_hand.first + index,
                    piece=in_hand.piece.part(slice(index, index + 1)),
                    deaths=in_hand.deaths + 1,
                )
                for index in range(len(windows))
            )
        self._again.extend(others)
        worker.connection.close()
        self._workers[self._workers.index(worker)] = self._start(worker.number, worker.device)


def work(connection: Connection, order: WorkOrder, device_name: str) -> None:
    """The life of a worker: make the explainer, then answer every batch, until the other end is closed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        explainer = _make(order, torch.device(device_name), lambda size: connection.send(("smaller", size)))
        for piece in _received(connection):
            connection.send(("done", explainer.explain(piece)))
    except (BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # the process that started it raises it in its own name
        connection.send(("failed", _portable(error)))


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started in the block is born deaf to Ctrl-C: the one that starts it decides when it ends."""
    resource_tracker.ensure_running()  # or its start would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(connection: Connection) -> Iterator[Batch]:
    """The batches that are sent, until the other end is closed.

    A thread takes them from the pipe at once: were both ends to wait for a large message to be taken, neither
    would ever go on.
    """
    waiting: queue.Queue[Batch | None] = queue.Queue()

    def take() -> None:
        try:
            while True:
                waiting.put(connection.recv())
        except Exception:  # the other end has gone, or cannot be understood: nothing more will come
            waiting.put(None)

    threading.Thread(target=take, name="dlgenome-orders", daemon=True).start()
    while (piece := waiting.get()) is not None:
        yield piece


def _make(order: WorkOrder, device: torch.device, on_smaller: Callable[[int], None]) -> GuardedExplainer:
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    config = order.config
    targets = parse_targets(config.targets)
    models, _ = open_models(replace(config, window=order.length), None)
    folds = capture_folds(config, models, targets, order.length, device)
    references = parse_references(
        config.references,
        n_references=config.n_references,
        seed=config.seed,
        window=order.length,
        n_input_rows=order.n_input_rows,
    )
    return GuardedExplainer(
        lambda size: make_explainer(config, folds, targets, references, device, size),
        order.batch_size,
        on_smaller,
    )


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same and can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__} in a worker: {error}")
    return error


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return f"was killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"was killed by signal {-exit_code}"
    return f"ended with status {exit_code}"
