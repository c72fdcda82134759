"""The main job: every selected region scored and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from dlgenome import provenance
from dlgenome.attribution.deeplift import Contributions, DeepLift
from dlgenome.attribution.devices import keep_freed_memory
from dlgenome.config import RunConfig, default_threads
from dlgenome.errors import CompletenessError, DlgenomeError
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.job import Job, prepare
from dlgenome.pipeline.prefetch import prefetch
from dlgenome.pipeline.record import identity, next_commands, provenance_attributes, run_facts
from dlgenome.scores import CompletenessSummary
from dlgenome.types import Codes, RegionScores, ScoredWindow, Window
from dlgenome.writers.finish import finish_run
from dlgenome.writers.paths import OutputPaths, discard_partial, estimate_bytes, prepare_outputs
from dlgenome.writers.spool import Spool

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with regions done and regions in all."""
QUEUED_STEPS = 2


@dataclass(frozen=True)
class RunSummary:
    """What a run did, for the command to report."""

    outputs: tuple[Path, ...]
    scored: int
    skipped: int
    seconds: float
    batch_size: int
    completeness: Mapping[str, CompletenessSummary]
    next_commands: tuple[str, ...]
    estimate: str = ""
    """Only of a dry run: time, memory and disk that the run would take."""


def output_paths(config: RunConfig) -> OutputPaths:
    """Every file that a run would write."""
    names = tuple(target.name for target in parse_targets(config.targets))
    return OutputPaths(config.output, names, frozenset(config.formats))


def attribute(
    config: RunConfig, progress: Progress | None = None, *, stdin: BinaryIO | None = None
) -> RunSummary:
    """Score every selected region and write the files of ``config.output``.

    Raises DlgenomeError subclasses for anything that the user can mend; checks come before the model runs.
    """
    started = time.monotonic()
    threads = config.threads or default_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    paths = output_paths(config)
    prepare_outputs(paths, overwrite=config.overwrite)
    try:
        with ExitStack() as stack:
            job = prepare(config, paths, stack, stdin)
            deep_lift = job.deep_lift()
            if config.dry_run:
                return _dry_run(job, deep_lift)
            spool = stack.enter_context(Spool(paths, score_dtype=config.score_dtype, threads=threads))
            checked = time.monotonic()
            _score(job, deep_lift, spool, progress)
            scored = time.monotonic()
            summary = _finish(job, spool, {"checks": checked - started, "scoring": scored - checked}, threads)
    except BaseException:
        _clear(paths)
        raise
    _gate(config, summary)
    return summary


def _clear(paths: OutputPaths) -> None:
    """Leave no PREFIX.partial behind: of a run that failed or was stopped, nothing can be used."""
    try:
        if paths.partial.exists():
            discard_partial(paths)
    except DlgenomeError as problem:  # must not hide what went wrong before
        log.warning("%s", problem)


def _batches(job: Job, size: int) -> Iterator[tuple[list[Window], Codes, NDArray[Any]]]:
    """Windows, their codes and their references, ``size`` sequences at a time."""
    for first in range(0, len(job.plan), size):
        windows = [job.plan.window(row) for row in range(first, min(first + size, len(job.plan)))]
        codes = np.stack([job.genome.fetch(w.chrom, w.start, w.end) for w in windows])
        rows = np.array([w.region.input_row for w in windows])
        yield windows, codes, job.references.draw_batch(codes, rows)


def _score(job: Job, deep_lift: DeepLift, spool: Spool, progress: Progress | None) -> None:
    total, done = len(job.plan), 0
    with prefetch(_batches(job, deep_lift.sequences_per_step), QUEUED_STEPS) as batches:
        for windows, codes, references in batches:
            results = deep_lift.explain(codes, references)
            spool.append(_rows(job, done, windows, codes, results))
            done += len(windows)
            if progress is not None:
                progress(done, total)


def _rows(
    job: Job, first: int, windows: list[Window], codes: Codes, results: list[Contributions]
) -> list[ScoredWindow]:
    return [
        ScoredWindow(
            first + index,
            window,
            codes[index],
            {
                t.name: _region_scores(result, index, job)
                for t, result in zip(job.targets, results, strict=True)
            },
        )
        for index, window in enumerate(windows)
    ]


def _region_scores(result: Contributions, index: int, job: Job) -> RegionScores:
    return RegionScores(
        hypothetical=result.hypothetical[index].astype(np.float32),
        projected=result.projected[index].astype(np.float32),
        prediction=float(result.prediction[index]),
        reference_prediction=float(result.reference_prediction[index]),
        contribution_sum=float(result.contribution_sum[index]),
        mean_abs_delta=float(result.mean_abs_delta[index]),
        n_references=job.references.n_references,
    )


def _finish(job: Job, spool: Spool, seconds: dict[str, float], threads: int) -> RunSummary:
    config, begun = job.config, time.monotonic()

    def facts() -> dict[str, Any]:
        return run_facts(job, {**seconds, "writing": time.monotonic() - begun})

    completeness = finish_run(
        job.paths,
        spool,
        contigs=job.genome.contigs,
        identity=identity(job),
        provenance=provenance_attributes(job, threads),
        skipped=job.plan.skipped,
        formats=config.formats,
        overlap=config.overlap,
        crop=config.crop,
        score_dtype=config.score_dtype,
        run_facts=facts,
        target_identity={t.name: {"target": t.text} for t in job.targets},
    )
    return RunSummary(
        job.paths.all(),
        len(job.plan),
        len(job.plan.skipped),
        sum(seconds.values()) + time.monotonic() - begun,
        job.batch_size,
        completeness,
        next_commands(job),
    )


def _dry_run(job: Job, deep_lift: DeepLift) -> RunSummary:
    """One step is run and thrown away, to tell how long the others will take."""
    _, codes, references = next(_batches(job, deep_lift.sequences_per_step))
    deep_lift.explain(codes, references)
    begun = time.monotonic()
    deep_lift.explain(codes, references)
    seconds = (time.monotonic() - begun) * -(-len(job.plan) // deep_lift.sequences_per_step)
    disk = estimate_bytes(
        len(job.plan), job.plan.length, len(job.targets), job.paths.formats, job.config.score_dtype
    )
    peak = provenance.peak_memory_bytes()
    discard_partial(job.paths)
    estimate = (
        f"about {seconds / 60:.1f} minutes at {job.batch_size} pairs a step on {job.device}, "
        f"{peak / 2**30:.1f} GiB of memory, {disk / 2**20:.0f} MiB of disk while finishing"
    )
    return RunSummary((), len(job.plan), len(job.plan.skipped), seconds, job.batch_size, {}, (), estimate)


def _gate(config: RunConfig, summary: RunSummary) -> None:
    if config.max_delta is None:
        return
    for target, found in summary.completeness.items():
        if not found.maximum <= config.max_delta:
            raise CompletenessError(
                f"The completeness error of {target} reaches {found.maximum:.2g} (row {found.worst_row}), "
                f"above --max-delta {config.max_delta:g}; the files are kept."
            )
