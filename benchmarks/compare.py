"""dlgenome and other programs on the same work, taking turns.

All stay loaded in processes of their own and only one computes at a time: A B A B ..., or A B C A B C ...
Each turn gives one ratio to that of dlgenome before it, so what slows the machine for a while slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.bound import operations
from benchmarks.cases import CASES
from benchmarks.contenders import OURS, Contender, settled, started
from benchmarks.inputs import write_inputs
from benchmarks.processes import BenchmarkError, Turn, Worker
from benchmarks.programs import prepare
from benchmarks.task import Scores, Task

PAUSE = 0.25
"""Seconds before each turn, in which the threads of the other program stop spinning."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    precision: str
    threads: int
    pairs: int
    sequences: int | None = None
    """Sequences a turn; None takes what the case says for the number of references."""
    references: int | None = None
    """References of each sequence; None takes what the case says."""
    checkpoint: Path | None = None
    """Of the case that runs a trained model."""
    device: str = "cpu"


@dataclass(frozen=True)
class Timing:
    """What came of one program."""

    program: str
    setup: str
    batch_size: int
    versions: dict[str, str]
    seconds: tuple[float, ...]
    """Of each turn."""
    peak_memory_bytes: int
    peak_device_bytes: int | None
    """What torch took of a GPU's memory; None on a processor."""
    difference: float | None
    """Largest difference of a hypothetical contribution from float64, as a share of the largest one."""
    error: str | None = None
    """Why there are no figures: the program refused the network or did not survive it."""


@dataclass(frozen=True)
class Bound:
    """What explaining a sequence would take if nothing but its convolutions took time."""

    operations: int
    """Multiplications and additions for one sequence and its references."""
    rates: tuple[float, ...]
    """Best operations a second in each pair of turns, in the process and with the threads of dlgenome."""


@dataclass(frozen=True)
class Comparison:
    """One case measured."""

    case: str
    precision: str
    sequences: int
    """Sequences a turn."""
    n_references: int
    timings: tuple[Timing, ...]
    """dlgenome first, then the other programs."""
    bound: Bound
    device: str = "cpu"

    def ratios(self, timing: Timing) -> tuple[float, ...]:
        """How many times as long as dlgenome another program took, turn by turn; none for dlgenome itself."""
        ours = self.timings[0]
        if timing is ours or timing.error is not None:
            return ()
        return tuple(theirs / own for own, theirs in zip(ours.seconds, timing.seconds, strict=True))

    def times_the_bound(self, timing: Timing) -> tuple[float, ...]:
        """How many times as long as the bound of its pair each turn took."""
        return tuple(
            seconds / self.sequences * rate / self.bound.operations
            for seconds, rate in zip(timing.seconds, self.bound.rates, strict=False)
        )


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    minimum: float
    maximum: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one number."""
    return Spread(statistics.median(values), min(values), max(values))


def compare(case: str, contenders: Sequence[Contender], plan: Plan, pause: float = PAUSE) -> Comparison:
    """Time the contenders on a case, after one turn each that does not count."""
    facts = CASES[case]
    n_references = plan.references or facts.n_references
    count = plan.sequences or facts.sequences_against(n_references)
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        folder = Path(name)
        write_inputs(facts, folder, count, n_references, checkpoint=plan.checkpoint)
        task = Task("dlgenome", case, folder, plan.precision, plan.threads, device=plan.device)
        truth = _exact_scores(task)
        timings, rates = _take_turns(task, contenders, plan.pairs, truth, pause)
    bound = Bound(operations(facts, n_references), rates)
    return Comparison(case, plan.precision, count, n_references, timings, bound, plan.device)


def _exact_scores(task: Task) -> Scores:
    """Our scores in float64, made in this process before any other starts."""
    torch.set_num_threads(task.threads)
    return prepare(replace(task, precision="float64", device="cpu")).explain()


@dataclass
class _Player:
    """A contender with its process and what it has done so far."""

    contender: Contender
    worker: Worker
    scores: Path
    turns: list[Turn] = field(default_factory=list)
    error: str | None = None


def _take_turns(
    task: Task, contenders: Sequence[Contender], pairs: int, truth: Scores, pause: float
) -> tuple[tuple[Timing, ...], tuple[float, ...]]:
    """Figures of every contender, and the rate of convolutions in each pair of turns."""
    rates = []
    with ExitStack() as stack:
        players = [
            _Player(one, stack.enter_context(started(task, one)), task.folder / f"scores-{index}.npy")
            for index, one in enumerate([settled(task, one) for one in contenders])
        ]
        for player in players:
            _warm_up(player)
        for _ in range(pairs):
            for player in players:
                if player.error is None:
                    time.sleep(pause)
                    player.turns.append(player.worker.explain())
                if player is players[0]:
                    rates.append(player.worker.convolution_rate())
    return tuple(_timing(player, truth) for player in players), tuple(rates)


def _warm_up(player: _Player) -> None:
    """The turn that does not count; another program that fails in it gets a row that says so."""
    try:
        player.worker.explain(save=player.scores)
    except BenchmarkError as error:
        if player.contender is OURS:
            raise
        player.error = error.message


def _timing(player: _Player, truth: Scores) -> Timing:
    return Timing(
        player.contender.program,
        player.contender.setup,
        player.worker.batch_size,
        player.worker.versions,
        tuple(turn.seconds for turn in player.turns),
        player.turns[-1].peak_memory_bytes if player.turns else 0,
        player.turns[-1].peak_device_bytes if player.turns else None,
        _difference(player.scores, truth) if player.error is None else None,
        player.error,
    )


def _difference(scores: Path, truth: Scores) -> float:
    """The largest of any target, each measured by its own largest contribution."""
    differences = np.abs(np.load(scores) - truth)
    return max(
        float(of_target.max() / np.abs(exact).max())
        for of_target, exact in zip(differences, truth, strict=True)
    )
