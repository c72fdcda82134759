"""What comes after the scores: the files, and what the command tells of the run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlgenome import provenance
from dlgenome.config import RunConfig
from dlgenome.errors import InputError
from dlgenome.pipeline.job import Job, disk_needed
from dlgenome.pipeline.record import identity, provenance_attributes, run_facts, target_identity
from dlgenome.pipeline.request import Request
from dlgenome.pipeline.scoring import batches
from dlgenome.scores import CompletenessSummary
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.next_commands import motif_commands
from dlgenome.writers.partial import abandon
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool


@dataclass(frozen=True)
class RunSummary:
    """What a run did, for the command to report."""

    outputs: tuple[Path, ...]
    scored: int
    skipped: int
    seconds: float
    scoring_seconds: float
    batch_size: int
    completeness: Mapping[str, CompletenessSummary]
    next_commands: tuple[str, ...]
    resumed_rows: int = 0
    """Windows that an earlier, interrupted run had scored."""
    was_finished: bool = False
    """Nothing was left to do."""
    estimate: str = ""
    """Only of a dry run: time, memory and disk that the run would take."""


def finish(
    job: Job,
    paths: Sequence[OutputPaths],
    spools: Sequence[Spool],
    seconds: Mapping[str, float],
    threads: int,
    asked: Request,
    check_locks: Callable[[], None],
    point_of_no_return: Callable[[], None],
) -> RunSummary:
    """Write the files of the run, and of each fold where they were asked for.

    ``check_locks`` raises where another run has taken one of the prefixes meanwhile; ``point_of_no_return``
    is called right before the last file gets its name.
    """
    begun = time.monotonic()
    completeness: dict[str, CompletenessSummary] = {}
    # The run's own files come last: their run.json says that everything is there.
    for number in reversed(range(len(paths))):
        completeness = _finish_one(
            job,
            paths[number],
            spools[number],
            number,
            seconds,
            threads,
            asked,
            check_locks,
            (lambda: None) if number else point_of_no_return,
        )
    # Not before: a run that is killed in between goes on from all the spools.
    for one in paths:
        abandon(one)
    return RunSummary(
        tuple(path for one in paths for path in one.all()),
        spools[0].rows,
        len(job.plan.skipped) + spools[0].next_row - spools[0].rows,
        seconds["checks"] + seconds["scoring"] + time.monotonic() - begun,
        seconds["scoring"],
        job.batch_size,
        completeness,
        motif_commands(paths[0], job.plan.length),
        resumed_rows=spools[0].resumed_rows,
    )


def _finish_one(
    job: Job,
    paths: OutputPaths,
    spool: Spool,
    number: int,
    seconds: Mapping[str, float],
    threads: int,
    asked: Request,
    check_locks: Callable[[], None],
    point_of_no_return: Callable[[], None],
) -> dict[str, CompletenessSummary]:
    """The mean's files are number 0, those of the folds follow."""
    config, begun = job.config, time.monotonic()
    own_identity = identity(job, number - 1 if number else None)

    def facts() -> dict[str, Any]:
        spent = {**seconds, "writing": time.monotonic() - begun}
        return {
            **run_facts(job, spent, spool),
            "identity": own_identity,
            "threads": threads,
            "request": asked,
        }

    return finish_run(
        paths,
        spool,
        RunContent(
            contigs=job.genome.contigs,
            identity=own_identity,
            provenance=provenance_attributes(job, threads),
            skipped=job.plan.skipped,
            overlap=config.overlap,
            crop=config.crop,
            target_identity=target_identity(job),
        ),
        run_facts=facts,
        check_lock=check_locks,
        point_of_no_return=point_of_no_return,
        keep_partial=True,
    )


def already_finished(config: RunConfig, paths: Sequence[OutputPaths]) -> RunSummary:
    """The summary of a run that was finished before; raises InputError when its run.json is damaged."""
    path = paths[0].run_json
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        counts, settings = facts["regions"], facts["identity"]
        completeness = {
            target: CompletenessSummary(**_numbers(found)) for target, found in facts["completeness"].items()
        }
        return RunSummary(
            tuple(file for one in paths for file in one.all()),
            int(counts["scored"]),
            int(counts["skipped"]),
            0.0,
            0.0,
            int(settings["batch_size"]),
            completeness,
            tuple(facts["next_commands"]),
            was_finished=True,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged, so whether {config.output} is finished is not known; make it again with "
            "--overwrite."
        ) from error


def dry_run(job: Job) -> RunSummary:
    """One step is run and thrown away, to tell how long the others will take."""
    if not len(job.plan):
        return _estimated(job, 0.0, "this shard has no region to score")
    explainer = job.explainer(job.batch_size)
    batch = next(batches(job, 0, job.windows_per_step))
    explainer.explain(batch)
    begun = time.monotonic()
    explainer.explain(batch)
    steps = -(-len(job.plan) // job.windows_per_step)
    seconds = (time.monotonic() - begun) * steps / len(job.devices)
    disk = disk_needed(job.config, job.paths, len(job.plan), job.plan.length)
    peak, devices = provenance.peak_memory_bytes(), ", ".join(map(str, job.devices))
    estimate = (
        f"about {_in_words(seconds)} at {job.batch_size} pairs a step on {devices}, "
        f"{peak / 2**30:.1f} GiB of memory, {disk / 2**20:.0f} MiB of disk while finishing"
    )
    return _estimated(job, seconds, estimate)


def _in_words(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _estimated(job: Job, seconds: float, estimate: str) -> RunSummary:
    return RunSummary(
        (), len(job.plan), len(job.plan.skipped), seconds, seconds, job.batch_size, {}, (), estimate=estimate
    )


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """A completeness summary as read from JSON, which has no NaN."""
    return {name: float("nan") if value is None else value for name, value in found.items()}
