"""The main job: every selected region scored and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from typing import BinaryIO

import torch

from dlgenome.allocator import keep_freed_memory
from dlgenome.config import RunConfig, default_threads
from dlgenome.errors import CompletenessError, InputError, Interrupted
from dlgenome.pipeline.faults import GuardedExplainer
from dlgenome.pipeline.finishing import RunSummary, already_finished, dry_run, finish
from dlgenome.pipeline.job import Job, piped_sha256, prepare
from dlgenome.pipeline.outputs import every_paths
from dlgenome.pipeline.overlapping import OverlappingExplainer
from dlgenome.pipeline.request import (
    Request,
    differences,
    finished_request,
    read_state,
    record_state,
    refuse_another,
    request_of,
    whole_request,
)
from dlgenome.pipeline.scoring import Progress, score
from dlgenome.pipeline.stopping import StopRequest
from dlgenome.pipeline.workers import WorkerPool, WorkOrder
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.lock import Lock
from dlgenome.writers.partial import Existing, abandon, claimed, clear_partial, find_existing
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool, resumable_blocks
from dlgenome.writers.spool_reader import SpoolReader

logger = logging.getLogger(__name__)


def attribute(
    config: RunConfig,
    progress: Progress | None = None,
    *,
    stdin: BinaryIO | None = None,
    stop: StopRequest | None = None,
) -> RunSummary:
    """Score every selected region and write the files of ``config.output``.

    ``stop`` ends the run between two steps, with Interrupted; it can then be resumed. Raises DlgenomeError
    subclasses for anything that the user can mend; checks come before the model runs.
    """
    started, stop = time.monotonic(), stop or StopRequest()
    threads = config.threads or default_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    paths = every_paths(config)
    with ExitStack() as stack:
        locks = [stack.enter_context(_claimed(config, one)) for one in paths]
        if config.resume and _is_finished(config, paths, stdin):
            stop.refuse_from_here()
            for one in paths:
                abandon(one)  # of a run that was killed after its last file had its name
            summary = already_finished(config, paths)
            _gate(config, summary)
            return summary
        job = prepare(config, paths[0], stack, stdin)
        if config.dry_run:
            return dry_run(job)
        asked = whole_request(job)
        blocks, job = _begin(job, paths, asked)
        with _kept(paths[0]):
            spools = [
                stack.enter_context(Spool(one, _layout(job, one), threads=threads, resume_blocks=blocks))
                for one in paths
            ]
            checked = time.monotonic()
            job, parts = _score(job, asked, spools, locks, threads, progress, stop)
            seconds = {"checks": checked - started, "scoring": time.monotonic() - checked}
            seconds |= {f"scoring_{part}": spent for part, spent in parts.items()}

            def check_locks() -> None:
                for lock in locks:
                    lock.check()

            check_locks()
            summary = finish(job, paths, spools, seconds, threads, asked, check_locks, stop.refuse_from_here)
    _gate(config, summary)
    return summary


def _claimed(config: RunConfig, paths: OutputPaths) -> AbstractContextManager[Lock]:
    return claimed(paths, overwrite=config.overwrite, resume=config.resume, force_unlock=config.force_unlock)


def _is_finished(config: RunConfig, paths: Sequence[OutputPaths], stdin: BinaryIO | None) -> bool:
    """Whether nothing is left to do; raises UsageError when what is there was made otherwise."""
    found = [find_existing(one) for one in paths]
    if Existing.UNFINISHED in found or set(found) == {Existing.NOTHING}:
        return False
    piped = piped_sha256(stdin) if config.regions == "-" and set(found) == {Existing.FINISHED} else None
    asked = request_of(config, piped)
    for one in paths:
        if one.run_json.is_file():
            before = finished_request(one)
            if one.state.is_file() and differences(before, asked):
                return False  # a run that was begun since with --overwrite may be the one that is meant
            refuse_another(one, before, asked)
    if set(found) == {Existing.FINISHED}:
        return True
    logger.warning("Some of the final files are missing, and all are made again.")
    return False


def _begin(job: Job, paths: Sequence[OutputPaths], asked: Request) -> tuple[int | None, Job]:
    """Blocks of the spools to keep, None for a run that begins; and the job with the step it began with."""
    if job.config.resume:
        for one in paths:  # a single one is a run of its own that another must not clear away
            if one.state.is_file():
                refuse_another(one, read_state(one)[0], asked)
    if job.config.resume and all(one.state.is_file() and one.spool.is_file() for one in paths):
        blocks = min(resumable_blocks(one, _layout(job, one)) for one in paths)
        if blocks:
            _check_same_bases(job, paths[0])
            return blocks, replace(job, batch_size=read_state(paths[0])[1])
    job.keep_regions()
    for one in paths:
        clear_partial(one)
    for one in paths:
        record_state(one, asked, job.batch_size)
    return None, job


def _score(
    job: Job,
    asked: Request,
    spools: Sequence[Spool],
    locks: Sequence[Lock],
    threads: int,
    progress: Progress | None,
    stop: StopRequest,
) -> tuple[Job, dict[str, float]]:
    """Score what is left; the job with the step that it ended with, and the seconds of the parts."""

    def smaller(batch_size: int) -> None:
        for spool in spools:
            record_state(spool.paths, asked, batch_size)

    if spools[0].next_row == len(job.plan):
        return job, {}
    with (
        stop.between_steps(*(lock.release for lock in locks)),
        _explaining(job, threads, smaller) as explaining,
    ):
        parts = score(job, explaining, spools, locks, progress=progress, stop=stop)
    return replace(job, batch_size=explaining.batch_size), parts


@contextmanager
def _explaining(
    job: Job, threads: int, on_smaller: Callable[[int], None]
) -> Iterator[GuardedExplainer | OverlappingExplainer | WorkerPool]:
    """What explains: this process on its one device, or a process for each device."""
    if len(job.devices) == 1:
        guarded = GuardedExplainer(job.explainer, job.batch_size, on_smaller)
        if job.devices[0].type != "cpu" or threads == 1:
            yield guarded
            return
        with closing(OverlappingExplainer(guarded)) as overlapping:
            yield overlapping
        return
    order = WorkOrder(
        job.config, job.plan.length, len(job.table), job.batch_size, max(1, threads // len(job.devices))
    )
    with closing(WorkerPool(order, job.devices, on_smaller)) as pool:
        yield pool


@contextmanager
def _kept(paths: OutputPaths) -> Iterator[None]:
    """Tell whoever is stopped that nothing is lost; an error that was about to be raised goes on its way."""
    kept = f"what was scored is kept in {paths.partial}, run again with --resume"
    try:
        yield
    except Interrupted as problem:
        raise Interrupted(f"{str(problem).rstrip('.')}; {kept}.") from problem
    except BaseException:
        logger.warning("This run is not finished: %s.", kept)
        raise


def _layout(job: Job, paths: OutputPaths) -> BlockLayout:
    return BlockLayout(
        length=job.plan.length,
        score_dtype=job.config.score_dtype,
        targets=paths.targets,
        hypothetical=(True,) * len(paths.targets),
        extras=tuple(sorted(paths.extras)),
    )


def _check_same_bases(job: Job, paths: OutputPaths) -> None:
    """The genome is known by names and lengths only, so bases that were read before are compared."""
    with SpoolReader(paths.spool) as reader:
        for window, codes in reader.sequences():
            if (job.genome.fetch(window.chrom, window.start, window.end) != codes).any():
                raise InputError(
                    f"{job.genome.path} has other bases at {window.chrom}:{window.start}-{window.end} than "
                    "when this run began; give the same genome, or begin anew with --overwrite."
                )


def _gate(config: RunConfig, summary: RunSummary) -> None:
    if config.max_delta is None or not summary.scored:
        return
    for target, found in summary.completeness.items():
        if not found.maximum <= config.max_delta:
            raise CompletenessError(
                f"The completeness error of {target} reaches {found.maximum:.2g} (row {found.worst_row}), "
                f"above --max-delta {config.max_delta:g}; the files are kept."
            )
