"""How the cost of scores grows with regions, references, bases and filters.

Regions go through the whole command, with a small network. The others go through the engine in a process of
its own for each size, as `benchmarks.programs.run_dlgenome` sets it up, one of the three at a time away from
BPNet with 64 filters on 2114 bases and 20 references.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import command
from benchmarks.cases import named
from benchmarks.inputs import write_inputs
from benchmarks.processes import Worker
from benchmarks.task import Task

FILTERS, LENGTH, REFERENCES = 64, 2114, 20
"""What stays the same while something else grows."""
TURN, MOST = 8, 200
"""A turn explains about as much as so many sequences of that size, from one a thread to so many at most."""
SMALL_FILTERS, SMALL_LAYERS, SMALL_REFERENCES = 16, 4, 10
"""Of the runs that grow in regions: small, so that ten thousand end in minutes."""
SIZES: dict[str, tuple[int, ...]] = {
    "regions": (100, 300, 1_000, 3_000, 10_000),
    "references": (1, 3, 10, 30, 100),
    "window": (200, 500, 1_000, 2_000, 5_000, 10_000),
    "filters": (32, 64, 128, 256, 512),
}
QUICK: dict[str, tuple[int, ...]] = {
    "regions": (5, 10),
    "references": (1, 2),
    "window": (200, 300),
    "filters": (4, 8),
}


@dataclass(frozen=True)
class Point:
    """The cost of one size."""

    size: int
    seconds: float
    """Of the whole command where regions grow, else of a sequence with its references, at its fastest."""
    peak_memory_bytes: int
    """Of the process, Python and torch included."""


@dataclass(frozen=True)
class Exponent:
    """Slope of the logarithm of a cost against that of the size: 1 is in proportion, 2 its square."""

    overall: float
    upper_half: float
    """Of the larger half of the sizes, where what comes once no longer counts."""


@dataclass(frozen=True)
class Sweep:
    """The costs of all sizes of one thing."""

    name: str
    points: tuple[Point, ...]

    @property
    def seconds(self) -> Exponent:
        """How time grows."""
        return self._exponent(lambda point: point.seconds)

    @property
    def memory(self) -> Exponent:
        """How the peak of memory grows."""
        return self._exponent(lambda point: point.peak_memory_bytes)

    def _exponent(self, cost: Callable[[Point], float]) -> Exponent:
        upper = self.points[-max(2, ceil(len(self.points) / 2)) :]
        return Exponent(_slope(self.points, cost), _slope(upper, cost))


def _slope(points: Iterable[Point], cost: Callable[[Point], float]) -> float:
    """By least squares."""
    sizes, costs = np.log([(point.size, cost(point)) for point in points]).T
    return float(np.polyfit(sizes, costs, 1)[0])


def grow(name: str, *, quick: bool, threads: int, turns: int) -> Sweep:
    """Measure all sizes of one sweep."""
    sizes = (QUICK if quick else SIZES)[name]
    if name == "regions":
        return Sweep(name, _regions(sizes, threads))
    filters = QUICK["filters"][0] if quick else FILTERS
    length = QUICK["window"][0] if quick else LENGTH
    references = QUICK["references"][0] if quick else REFERENCES
    points = []
    for size in sizes:
        changed = {"filters": filters, "window": length, "references": references, name: size}
        points.append(_engine(size, **changed, threads=threads, turns=turns))
    return Sweep(name, tuple(points))


def _regions(sizes: tuple[int, ...], threads: int) -> tuple[Point, ...]:
    """The command on the first so many regions of one file, after a run that does not count."""
    flags = ("--n-references", str(SMALL_REFERENCES))
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        inputs = command.write_inputs(Path(name), max(sizes), SMALL_FILTERS, SMALL_LAYERS)
        command.run(inputs, 1, flags, threads)  # which makes the index of the FASTA
        runs = [command.run(inputs, size, flags, threads) for size in sizes]
    return tuple(Point(run.regions, run.seconds, run.peak_memory_bytes) for run in runs)


def _engine(size: int, *, filters: int, window: int, references: int, threads: int, turns: int) -> Point:
    """The engine in a process of its own, after a turn that does not count."""
    case = f"bpnet/{filters}/{window}"
    sequences = sequences_a_turn(filters, window, references, threads)
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        task = Task("dlgenome", case, Path(name), "float32", threads)
        write_inputs(named(case), task.folder, sequences, references)
        with Worker(task, Path(sys.executable)) as worker:
            worker.explain()
            made = [worker.explain() for _ in range(turns)]
    seconds = min(turn.seconds for turn in made) / sequences
    return Point(size, seconds, max(turn.peak_memory_bytes for turn in made))


def sequences_a_turn(filters: int, window: int, references: int, threads: int) -> int:
    """Fewer of what takes long, and as many for each thread, so that none waits for another."""
    work = (filters / FILTERS) * (window / LENGTH) * (references / REFERENCES)
    return ceil(min(TURN / work, MOST) / threads) * threads
