"""What run.json says of the time that the parts of scoring took."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dlgenome.config import RunConfig
from dlgenome.pipeline import attribute, run
from dlgenome.pipeline.explain import Batch
from dlgenome.pipeline.faults import Found, GuardedExplainer
from dlgenome.pipeline.job import Job
from dlgenome.pipeline.timing import Stopwatch
from dlgenome.references.shuffled import ShuffledReferences
from dlgenome.regions.fasta import Genome
from dlgenome.types import Codes
from dlgenome.writers.spool import Spool

PAUSE = 0.02
STEPS = 6
"""23 regions, four windows a step."""


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves a clock that nothing else moves."""
    now = [0.0]
    monkeypatch.setattr("dlgenome.pipeline.timing.time.perf_counter", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_parts_are_added_up_each_by_itself(ticks: Callable[[float], None]) -> None:
    clock = Stopwatch()
    for seconds in (1.0, 2.5):
        with clock.measure("one"):
            ticks(seconds)
        ticks(100)
        with clock.measure("other"):
            ticks(4)
    assert (clock["one"], clock["other"], clock["third"]) == (3.5, 8, 0)


def test_what_ends_in_an_error_counts_too(ticks: Callable[[float], None]) -> None:
    clock = Stopwatch()

    def fail() -> None:
        with clock.measure("one"):
            ticks(2)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert clock["one"] == 2


def test_items_are_timed_until_they_are_there_and_no_longer(ticks: Callable[[float], None]) -> None:
    def slowly() -> Iterator[int]:
        for number in range(3):
            ticks(5)
            yield number
        ticks(1)

    clock, seen = Stopwatch(), []
    for number in clock.each("making", slowly()):
        ticks(1000)
        seen.append(number)
    assert seen == [0, 1, 2]
    assert clock["making"] == 16


def test_no_thread_loses_the_seconds_of_another() -> None:
    clock = Stopwatch()

    def often() -> None:
        for _ in range(50):
            with clock.measure("one"):
                time.sleep(0.0001)

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock["one"] > 4 * 50 * 0.0001


class AheadOfItself:
    """Takes batches ahead of those it gives back, as several processes do."""

    def __init__(self, explainer: GuardedExplainer) -> None:
        self.explainer, self.batch_size = explainer, explainer.batch_size

    def explain_all(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Found | str]]]:
        taken: list[Batch] = []
        while True:
            batch = next(batches, None)
            taken += [] if batch is None else [batch]
            if batch is None and not taken:
                return
            if batch is None or len(taken) == 3:
                time.sleep(PAUSE)
                first = taken.pop(0)
                yield first, self.explainer.explain(first)


@pytest.mark.parametrize("slow", ["reading", "references", "model", "spooling"])
def test_run_json_says_which_part_of_scoring_took_the_time(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    def slowed(part: str, owner: type, name: str, times: int = 1) -> None:
        original = getattr(owner, name)

        def call(self: object, *arguments: object, **named: object) -> object:
            if part == slow:
                time.sleep(PAUSE / times)
            return original(self, *arguments, **named)

        monkeypatch.setattr(owner, name, call)

    slowed("reading", Genome, "fetch", times=4)
    slowed("references", ShuffledReferences, "draw_batch")
    slowed("model", GuardedExplainer, "explain")
    slowed("spooling", Spool, "append")
    attribute(config())
    seconds = json.loads((tmp_path / "run.run.json").read_text())["seconds"]
    parts = {name.removeprefix("scoring_"): took for name, took in seconds.items() if "_" in name}
    assert parts.keys() == {"reading", "references", "model", "waiting", "spooling"}
    enough = 0.9 * STEPS * PAUSE
    assert parts[slow] > enough
    in_turn = parts["model"] + parts["waiting"] + parts["spooling"]
    assert in_turn <= seconds["scoring"] + 0.002, "rounded to a thousandth each"
    if slow in ("reading", "references"):
        assert parts["waiting"] > enough / 2, "the model waits for the reader"


def test_time_of_several_processes_is_that_of_waiting_for_them(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def explaining(job: Job, *_: object) -> Iterator[AheadOfItself]:
        yield AheadOfItself(GuardedExplainer(job.explainer, job.batch_size, lambda size: None))

    def slow_draw(self: ShuffledReferences, codes: Codes, *_: object) -> Codes:
        time.sleep(PAUSE)
        return np.repeat(codes[:, None], 3, axis=1)

    monkeypatch.setattr(run, "_explaining", explaining)
    monkeypatch.setattr(ShuffledReferences, "draw_batch", slow_draw)
    attribute(config())
    seconds = json.loads((tmp_path / "run.run.json").read_text())["seconds"]
    assert seconds["scoring_model"] > 0.9 * STEPS * PAUSE
    assert seconds["scoring_references"] > 0.9 * STEPS * PAUSE
    assert seconds["scoring_model"] + seconds["scoring_waiting"] < seconds["scoring"] + 0.002
