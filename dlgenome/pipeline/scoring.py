"""The loop over the windows of a run: read ahead, explain, spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from dlgenome.pipeline.explain import Batch, Strands, join_folds, orient
from dlgenome.pipeline.faults import FailureLimit, Found
from dlgenome.pipeline.job import Job
from dlgenome.pipeline.prefetch import prefetch
from dlgenome.pipeline.stopping import StopRequest
from dlgenome.pipeline.timing import Stopwatch
from dlgenome.types import FailedWindow, ScoredWindow
from dlgenome.writers.lock import Lock
from dlgenome.writers.spool import Spool

Progress = Callable[[int, int], None]
"""Called with regions done and regions in all."""
QUEUED_STEPS = 2


def batches(job: Job, first: int, size: int, clock: Stopwatch | None = None) -> Iterator[Batch]:
    """Windows from ``first`` on, their codes and their first references, ``size`` windows at a time.

    ``clock`` counts "reading" and "references".
    """
    strands = Strands(job.config.reverse_complement, job.config.stranded)
    clock = clock or Stopwatch()
    for begin in range(first, len(job.plan), size):
        with clock.measure("reading"):
            windows = [job.plan.window(row) for row in range(begin, min(begin + size, len(job.plan)))]
            codes = np.stack([job.genome.fetch(w.chrom, w.start, w.end) for w in windows])
            oriented = orient(codes, windows, strands)
            rows = np.array([w.region.input_row for w in windows])
        with clock.measure("references"):
            references = job.references.draw_batch(oriented, rows)
        yield Batch(windows, codes, oriented, references)


class Explaining(Protocol):
    """Explains batches, in this process or in others."""

    def explain_all(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, list[Found | str]]]:
        """Every batch with the scores of its windows, or why they have none, in the order given."""


def score(
    job: Job,
    explaining: Explaining,
    spools: Sequence[Spool],
    locks: Sequence[Lock],
    *,
    progress: Progress | None,
    stop: StopRequest,
) -> dict[str, float]:
    """Rows of the mean over folds into the first spool, those of single folds into the others.

    Goes on where the spools end; what comes back are the seconds of its parts, as run.json has them. Raises
    Interrupted when the run is to stop, or lost its lock.
    """
    clock = Stopwatch()
    done, total = spools[0].next_row, len(job.plan)
    config = job.config
    limit = FailureLimit(config.max_failures, total, config.fail_fast, already=done - spools[0].rows)
    if progress is not None:
        progress(done, total)
    _check(stop, locks)
    ahead = QUEUED_STEPS * len(job.devices)
    with prefetch(batches(job, done, job.windows_per_step, clock), ahead) as steps:
        made = explaining.explain_all(clock.each("waiting", steps))
        for batch, found in clock.each("explaining", made):
            for window, one in zip(batch.windows, found, strict=True):
                if isinstance(one, str):
                    limit.add(window, one)
            with clock.measure("spooling"):
                _append(spools, batch, done, found, with_sd=config.fold_sd)
            done += len(found)
            if progress is not None:
                progress(done, total)
            _check(stop, locks)
    return _seconds_of_parts(clock)


def _seconds_of_parts(clock: Stopwatch) -> dict[str, float]:
    """Batches are waited for while they are explained, so the one is in the other."""
    parts = {name: clock[name] for name in ("reading", "references", "waiting", "spooling")}
    return {**parts, "model": clock["explaining"] - clock["waiting"]}


def _check(stop: StopRequest, locks: Sequence[Lock]) -> None:
    stop.check()
    for lock in locks:
        if lock.lost:
            lock.check()


def _append(
    spools: Sequence[Spool],
    batch: Batch,
    first: int,
    found: Sequence[Found | str],
    *,
    with_sd: bool,
) -> None:
    for number, spool in enumerate(spools):
        rows: list[ScoredWindow | FailedWindow] = []
        for index, (window, one) in enumerate(zip(batch.windows, found, strict=True)):
            if isinstance(one, str):
                rows.append(FailedWindow(first + index, window, one))
                continue
            scores = one[number - 1] if number else join_folds(one, with_sd=with_sd)
            rows.append(ScoredWindow(first + index, window, batch.codes[index], scores))
        spool.append(rows)
