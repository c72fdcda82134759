"""The programs that are compared, and the ways in which each is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from benchmarks.processes import KEEPS_FREED_MEMORY, BenchmarkError, Worker
from benchmarks.task import Task

BATCH_SIZES = (8, 16, 32, 64, 128, 256)
"""Pairs a step that are tried for the best."""
BatchSize = int | Literal["best"] | None
"""None is as the program comes."""


@dataclass(frozen=True)
class Contender:
    """A program and the way it is run."""

    program: str
    setup: str
    """In words, for the table."""
    python: Path
    batch_size: BatchSize = None
    environment: tuple[tuple[str, str], ...] = ()


OURS = Contender("dlgenome", "as the command runs", Path(sys.executable))


def setups(program: str, python: Path, batch_size: BatchSize, allocator: str) -> list[Contender]:
    """Another program in every way that was asked for: "best" and "both" are beside how it comes."""
    sizes: Sequence[BatchSize] = (None, "best") if batch_size == "best" else (batch_size,)
    allocators = {"as-it-comes": (False,), "keeps-memory": (True,), "both": (False, True)}[allocator]
    return [
        Contender(
            program,
            ("as it comes" if size is None else f"batch size {size}")
            + (", freed memory kept" if kept else ""),
            python,
            size,
            tuple(KEEPS_FREED_MEMORY.items()) if kept else (),
        )
        for kept, size in product(allocators, sizes)
    ]


@contextmanager
def started(task: Task, contender: Contender) -> Iterator[Worker]:
    """The contender in a process of its own, with the task prepared."""
    assert contender.batch_size != "best", "which one is best has been found out"
    own = replace(task, program=contender.program, batch_size=contender.batch_size)
    with Worker(own, contender.python, dict(contender.environment)) as worker:
        yield worker


def settled(task: Task, contender: Contender) -> Contender:
    """The contender with a batch size: the best of several where that was asked for.

    Each is tried once, in a process of its own; one that fails is out. No step has more pairs than there are.
    """
    if contender.batch_size != "best":
        return contender
    sequences, references = (len(codes) for codes in (task.codes()[0], task.codes()[1][0]))
    seconds: dict[int, float] = {}
    problem: BenchmarkError | None = None
    for size in sorted({min(size, sequences * references) for size in BATCH_SIZES}):
        try:
            with started(task, replace(contender, batch_size=size)) as worker:
                seconds[size] = worker.explain().seconds
        except BenchmarkError as error:
            problem = error
    if not seconds:
        assert problem is not None
        raise problem
    fastest = min(seconds, key=lambda size: seconds[size])
    setup = contender.setup.replace("batch size best", f"best batch size of {_listed(seconds)}")
    return replace(contender, batch_size=fastest, setup=setup)


def _listed(sizes: Sequence[int] | dict[int, float]) -> str:
    *others, last = sizes
    return f"{', '.join(map(str, others))} and {last}" if others else str(last)
