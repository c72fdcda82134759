"""How far the scores of each precision are from float64: the table of docs/performance.md.

Real checkpoints go through the whole command, the networks of `cases.py` through the engine, all in this
process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cases import CASES
from benchmarks.imitation import Products, imitated
from benchmarks.inputs import write_inputs
from benchmarks.processes import BenchmarkError
from benchmarks.programs.run_dlgenome import prepare
from benchmarks.task import Task
from dlgenome.config import Precision, RunConfig
from dlgenome.pipeline import attribute, output_paths
from dlgenome.scores import ScoresFile

Scores = NDArray[np.floating[Any]]
"""Hypothetical contributions, (targets, regions, 4, length)."""


@dataclass(frozen=True)
class Way:
    """A precision, and where it is computed."""

    name: str
    precision: Precision
    device: str = "cpu"
    imitates: Products | None = None
    """What is rounded as CUDA devices do."""

    def rounding(self) -> AbstractContextManager[None]:
        """Context in which it is computed."""
        return nullcontext() if self.imitates is None else imitated(self.imitates)


EXACT = Way("float64", "float64")
ON_PROCESSORS = (
    Way("float32", "float32"),
    Way("bfloat16", "bfloat16"),
    Way("tf32 on CUDA, imitated", "float32", imitates="all"),
    Way("bfloat16 on CUDA, imitated", "bfloat16", imitates="convolutions"),
)


def ways_on(device: str) -> tuple[Way, ...]:
    """Every precision but float64: as the device has it, those of CUDA devices imitated on a processor."""
    if device == "cpu":
        return ON_PROCESSORS
    names: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
    return tuple(Way(f"{name} on {device}", name, device) for name in names)


@dataclass(frozen=True)
class Accuracy:
    """How far one precision is from float64, region by region."""

    model: str
    target: str
    precision: str
    imitated: bool
    differences: tuple[float, ...]
    """Largest difference of any hypothetical contribution, over the largest contribution of the region."""
    correlations: tuple[float, ...]
    """Of all hypothetical contributions (Pearson)."""


@dataclass(frozen=True)
class Windows:
    """Regions that checkpoints are explained on."""

    genome: Path
    regions: Path


@dataclass(frozen=True)
class Plan:
    """How much is computed, and how."""

    ways: tuple[Way, ...]
    regions: int
    """Of a checkpoint, at most; sequences of a case and seed."""
    n_references: int
    threads: int


def of_checkpoint(model: Path, windows: Windows, targets: tuple[str, ...], plan: Plan) -> list[Accuracy]:
    """Every target and precision of a checkpoint, by `dlgenome attribute`."""

    def scores(way: Way) -> Scores:
        with TemporaryDirectory(prefix="dlgenome-bench-") as name:
            config = RunConfig(
                model=model,
                output=Path(name) / "scores",
                genome=windows.genome,
                regions=str(windows.regions),
                limit=plan.regions,
                targets=targets,
                n_references=plan.n_references,
                precision=way.precision,
                device=way.device,
                threads=plan.threads,
                formats=("h5",),
                fail_fast=True,
            )
            attribute(config)
            paths = output_paths(config)
            return np.stack([_hypothetical(paths.scores_h5(target)) for target in paths.targets])

    return _compared(model.name, targets, scores, plan.ways)


def of_case(case: str, seeds: Sequence[int], plan: Plan) -> list[Accuracy]:
    """Every target and precision of a network with random weights, the sequences of all seeds together."""
    facts = CASES[case]
    torch.set_num_threads(plan.threads)

    def scores(way: Way) -> Scores:
        with TemporaryDirectory(prefix="dlgenome-bench-") as name:
            task = Task("dlgenome", case, Path(name), way.precision, plan.threads, device=way.device)
            made = []
            for seed in seeds:
                write_inputs(facts, task.folder, plan.regions, plan.n_references, seed)
                made.append(prepare(task).explain())
            return np.concatenate(made, axis=1)

    title = f"{case}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return _compared(title, facts.targets, scores, plan.ways)


def _hypothetical(path: Path) -> Scores:
    with ScoresFile(path) as made:
        return made.hypothetical(slice(None))


def _compared(
    model: str, targets: Sequence[str], scores: Callable[[Way], Scores], ways: Sequence[Way]
) -> list[Accuracy]:
    """Target by target, all precisions beside one another."""
    exact, *others = (_computed(scores, way) for way in (EXACT, *ways))
    return [
        Accuracy(model, target, way.name, way.imitates is not None, *distances(exact[place], found[place]))
        for place, target in enumerate(targets)
        for way, found in zip(ways, others, strict=True)
    ]


def _computed(scores: Callable[[Way], Scores], way: Way) -> Scores:
    with way.rounding():
        return scores(way)


def distances(exact: Scores, found: Scores) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The largest difference of every region, over the largest of the exact scores; the correlations.

    Both scores are (regions, 4, length). Regions without contributions are left out: nothing can be said of
    them. Raises BenchmarkError where there are no others.
    """
    pairs = [
        (one.ravel().astype(np.float64), other.ravel().astype(np.float64))
        for one, other in zip(exact, found, strict=True)
        if one.any()
    ]
    if not pairs:
        raise BenchmarkError("No region has any contributions in float64, so nothing can be compared.")
    differences = (np.abs(one - other).max() / np.abs(one).max() for one, other in pairs)
    correlations = (np.corrcoef(one, other)[0, 1] for one, other in pairs)
    return tuple(map(float, differences)), tuple(map(float, correlations))
