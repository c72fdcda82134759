"""The main job: every selected region scored and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from dlgenome import provenance
from dlgenome.attribution.devices import keep_freed_memory
from dlgenome.config import RunConfig, default_threads
from dlgenome.errors import CompletenessError
from dlgenome.folds import FOLD_SD
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.explain import REFERENCE_SE, Batch, Explainer, Strands, orient
from dlgenome.pipeline.job import Job, disk_needed, prepare
from dlgenome.pipeline.prefetch import prefetch
from dlgenome.pipeline.record import identity, provenance_attributes, run_facts
from dlgenome.scores import CompletenessSummary
from dlgenome.types import RegionScores, ScoredWindow
from dlgenome.writers.finish import finish_run
from dlgenome.writers.next_commands import motif_commands
from dlgenome.writers.paths import OutputPaths, abandon, prepare_outputs
from dlgenome.writers.spool import Spool

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
    scoring_seconds: float
    batch_size: int
    completeness: Mapping[str, CompletenessSummary]
    next_commands: tuple[str, ...]
    estimate: str = ""
    """Only of a dry run: time, memory and disk that the run would take."""


def output_paths(config: RunConfig) -> OutputPaths:
    """Every file that a run would write, those of single folds left out."""
    names = tuple(target.name for target in parse_targets(config.targets))
    extras = ((FOLD_SD,) if config.fold_sd else ()) + ((REFERENCE_SE,) if config.reference_se else ())
    return OutputPaths(config.output, names, frozenset(config.formats), extras)


def fold_paths(config: RunConfig, paths: OutputPaths) -> list[OutputPaths]:
    """The files of each fold, with ``--per-fold``: those of a run of its own."""
    if not config.per_fold:
        return []
    extras = tuple(extra for extra in paths.extras if extra != FOLD_SD)
    prefixes = [
        paths.prefix.with_name(f"{paths.prefix.name}.fold-{number}")
        for number in range(1, len(config.folds) + 2)
    ]
    return [replace(paths, prefix=prefix, extras=extras) for prefix in prefixes]


def output_files(config: RunConfig) -> tuple[Path, ...]:
    """Every file that a run would write, in the order in which a summary lists them."""
    paths = output_paths(config)
    return tuple(path for one in (paths, *fold_paths(config, paths)) for path in one.all())


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
    every_path, opened = [paths, *fold_paths(config, paths)], list[OutputPaths]()
    try:
        for one in every_path:
            prepare_outputs(one, overwrite=config.overwrite)
            opened.append(one)
        with ExitStack() as stack:
            job = prepare(config, paths, stack, stdin)
            explainer = job.explainer()
            if config.dry_run:
                return _dry_run(job, explainer)
            spools = [
                stack.enter_context(Spool(one, score_dtype=config.score_dtype, threads=threads))
                for one in every_path
            ]
            checked = time.monotonic()
            _score(job, explainer, spools, progress)
            seconds = {"checks": checked - started, "scoring": time.monotonic() - checked}
            summary = _finish(job, every_path, spools, seconds, threads)
    finally:
        for one in opened:
            abandon(one)
    _gate(config, summary)
    return summary


def _batches(job: Job, size: int) -> Iterator[Batch]:
    """Windows, their codes and their first references, ``size`` sequences at a time."""
    strands = Strands(job.config.reverse_complement, job.config.stranded)
    for first in range(0, len(job.plan), size):
        windows = [job.plan.window(row) for row in range(first, min(first + size, len(job.plan)))]
        codes = np.stack([job.genome.fetch(w.chrom, w.start, w.end) for w in windows])
        oriented = orient(codes, windows, strands)
        rows = np.array([w.region.input_row for w in windows])
        yield Batch(windows, codes, oriented, job.references.draw_batch(oriented, rows))


def _score(job: Job, explainer: Explainer, spools: list[Spool], progress: Progress | None) -> None:
    """Rows of the mean over folds into the first spool, those of single folds into the others."""
    total, done = len(job.plan), 0
    with prefetch(_batches(job, explainer.sequences_per_step), QUEUED_STEPS) as batches:
        for batch in batches:
            found = explainer.explain(batch)
            joined = [explainer.joined(folds) for folds in found]
            spools[0].append(_rows(batch, done, joined))
            for number, spool in enumerate(spools[1:]):
                spool.append(_rows(batch, done, [folds[number] for folds in found]))
            done += len(found)
            if progress is not None:
                progress(done, total)


def _rows(batch: Batch, first: int, scores: list[dict[str, RegionScores]]) -> list[ScoredWindow]:
    return [
        ScoredWindow(first + index, window, batch.codes[index], scores[index])
        for index, window in enumerate(batch.windows)
    ]


def _finish(
    job: Job, paths: list[OutputPaths], spools: list[Spool], seconds: dict[str, float], threads: int
) -> RunSummary:
    """The files of the run, and of each fold where they were asked for."""
    config, begun = job.config, time.monotonic()
    completeness: list[dict[str, CompletenessSummary]] = []
    # The run's own files come last: their run.json says that everything is there.
    for number in reversed(range(len(paths))):
        fold = number - 1 if number else None

        def facts() -> dict[str, Any]:
            return run_facts(job, {**seconds, "writing": time.monotonic() - begun})

        completeness.insert(
            0,
            finish_run(
                paths[number],
                spools[number],
                contigs=job.genome.contigs,
                identity=identity(job, fold),
                provenance=provenance_attributes(job, threads),
                skipped=job.plan.skipped,
                formats=config.formats,
                overlap=config.overlap,
                crop=config.crop,
                score_dtype=config.score_dtype,
                run_facts=facts,
                target_identity={t.name: {"target": t.text} for t in job.targets},
            ),
        )
    return RunSummary(
        tuple(path for one in paths for path in one.all()),
        len(job.plan),
        len(job.plan.skipped),
        sum(seconds.values()) + time.monotonic() - begun,
        seconds["scoring"],
        job.batch_size,
        completeness[0],
        motif_commands(job.paths, job.plan.length),
    )


def _dry_run(job: Job, explainer: Explainer) -> RunSummary:
    """One step is run and thrown away, to tell how long the others will take."""
    batch = next(_batches(job, explainer.sequences_per_step))
    explainer.explain(batch)
    begun = time.monotonic()
    explainer.explain(batch)
    seconds = (time.monotonic() - begun) * -(-len(job.plan) // explainer.sequences_per_step)
    disk = disk_needed(job.config, job.paths, len(job.plan), job.plan.length)
    peak = provenance.peak_memory_bytes()
    estimate = (
        f"about {seconds / 60:.1f} minutes at {job.batch_size} pairs a step on {job.device}, "
        f"{peak / 2**30:.1f} GiB of memory, {disk / 2**20:.0f} MiB of disk while finishing"
    )
    return RunSummary(
        (), len(job.plan), len(job.plan.skipped), seconds, seconds, job.batch_size, {}, (), estimate
    )


def _gate(config: RunConfig, summary: RunSummary) -> None:
    if config.max_delta is None:
        return
    for target, found in summary.completeness.items():
        if not found.maximum <= config.max_delta:
            raise CompletenessError(
                f"The completeness error of {target} reaches {found.maximum:.2g} (row {found.worst_row}), "
                f"above --max-delta {config.max_delta:g}; the files are kept."
            )
