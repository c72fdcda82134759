"""Runs that were made apart, joined: the files of the one run that they could have been."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from dlgenome import provenance
from dlgenome.config import OutputFormat, Overlap, default_threads
from dlgenome.errors import UsageError
from dlgenome.folds import FOLD_SD
from dlgenome.merging.beside import output_settings
from dlgenome.merging.folds import open_folds
from dlgenome.merging.joining import Header, Joining
from dlgenome.merging.shards import open_shards
from dlgenome.scores import AttributeValue, CompletenessSummary
from dlgenome.writers.blocks import BlockLayout, ScoreDtype
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.lock import Lock
from dlgenome.writers.next_commands import motif_commands
from dlgenome.writers.partial import claimed, clear_partial
from dlgenome.writers.paths import OutputPaths, check_space, estimate_bytes
from dlgenome.writers.spool import Spool

Progress = Callable[[int, int], None]
"""Called with regions done and regions in all."""


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """One `dlgenome merge`: a field for each flag, with the flag's default."""

    scores: tuple[Path, ...]
    """The ``scores.h5`` of every shard or fold; several targets may be joined at once."""
    output: Path
    """Prefix of every file written."""
    mean: bool = False
    """The files are folds to be averaged; otherwise they are shards to be put end to end."""
    fold_sd: bool = False
    formats: tuple[OutputFormat, ...] = ()
    """Empty takes those of the runs; where they do not say, h5 and, where there is a genome, bigwig."""
    overlap: Overlap | None = None
    """None takes that of the runs, or nearest."""
    crop: int | None = None
    """None takes that of the runs."""
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.fold_sd and not self.mean:
            raise UsageError("--fold-sd is about folds: give it with --mean.")


@dataclass(frozen=True)
class MergeSummary:
    """What was joined, for the command to report."""

    outputs: tuple[Path, ...]
    parts: int
    """Folds, or shards."""
    scored: int
    skipped: int | None
    """None where no list of skipped regions lies beside the files."""
    seconds: float
    completeness: Mapping[str, CompletenessSummary]
    next_commands: tuple[str, ...]


def merged_paths(config: MergeConfig) -> OutputPaths:
    """Every file that joining would write; the files are opened and checked, nothing is made."""
    with ExitStack() as stack:
        joining = _open(config, stack)
        return _paths(_complete(config, joining), joining)


def merge(
    config: MergeConfig,
    progress: Progress | None = None,
    *,
    point_of_no_return: Callable[[], None] = lambda: None,
) -> MergeSummary:
    """Write the files of the run that the parts could have been.

    Shards, put end to end, give every dataset and identity attribute of the run without shards; the mean of
    folds gives those of `attribute` with all the folds. Rows pass through a few at a time. Only folds stored
    as float16 are not averaged to the bit, for they were rounded before. ``point_of_no_return`` is called
    right before the last file gets its name. Raises DlgenomeError subclasses for anything that the user can
    mend; checks come before anything is written.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        joining = _open(config, stack)
        complete = _complete(config, joining)
        paths = _paths(complete, joining)
        lock = stack.enter_context(claimed(paths, overwrite=config.overwrite))
        clear_partial(paths)
        check_space(paths, _bytes_needed(joining, paths))
        return _join(complete, joining, paths, lock, progress, started, point_of_no_return)


def _open(config: MergeConfig, stack: ExitStack) -> Joining:
    if config.mean:
        return open_folds(config.scores, stack, with_sd=config.fold_sd)
    return open_shards(config.scores)


def _complete(config: MergeConfig, joining: Joining) -> MergeConfig:
    """The settings, with those of the runs where none were given."""
    runs = output_settings(joining.any_header)
    usual: tuple[OutputFormat, ...] = ("h5",) if joining.whole_sequences else ("h5", "bigwig")
    return replace(
        config,
        formats=config.formats or tuple(runs.get("formats", ())) or usual,
        overlap=config.overlap or runs.get("overlap") or "nearest",
        crop=config.crop or runs.get("crop"),
    )


def _paths(config: MergeConfig, joining: Joining) -> OutputPaths:
    first = joining.any_header
    if config.crop is not None and config.crop > first.length:
        raise UsageError(f"--crop {config.crop} is wider than the windows of {first.length} bases.")
    extras = (*first.extras, *((FOLD_SD,) if config.fold_sd else ()))
    paths = OutputPaths(config.output, tuple(joining.first), frozenset(config.formats), extras)
    written = {path.resolve() for path in (*paths.all(), *map(paths.scores_h5, paths.targets))}
    for path in config.scores:
        if path.resolve() in written:
            raise UsageError(
                f"-o {config.output} would write over {path}, which is to be read; choose another."
            )
    return paths


def _bytes_needed(joining: Joining, paths: OutputPaths) -> int:
    first = joining.any_header
    return estimate_bytes(
        joining.n_regions, first.length, len(paths.targets), paths.formats, first.score_dtype, paths.extras
    )


def _layout(joining: Joining, paths: OutputPaths) -> BlockLayout:
    first = joining.any_header
    return BlockLayout(
        length=first.length,
        score_dtype=cast(ScoreDtype, first.score_dtype),
        targets=paths.targets,
        hypothetical=tuple(joining.first[target].has_hypothetical for target in paths.targets),
        extras=tuple(sorted(paths.extras)),
    )


def _join(
    config: MergeConfig,
    joining: Joining,
    paths: OutputPaths,
    lock: Lock,
    progress: Progress | None,
    started: float,
    point_of_no_return: Callable[[], None],
) -> MergeSummary:
    threads = config.threads or default_threads()
    shared, own = joining.split_identity()
    with Spool(paths, _layout(joining, paths), threads=threads) as spool:
        for piece in joining.rows():
            spool.append(piece)
            if progress is not None:
                progress(spool.rows, joining.n_regions)
        completeness = finish_run(
            paths,
            spool,
            RunContent(
                contigs=joining.contigs,
                identity=shared,
                provenance=_provenance(joining, threads),
                skipped=joining.skipped or (),
                overlap=config.overlap or "nearest",
                crop=config.crop,
                target_identity=own,
            ),
            run_facts=lambda: _facts(config, joining, paths, started),
            check_lock=lock.check,
            point_of_no_return=point_of_no_return,
        )
    return MergeSummary(
        paths.all(),
        len(joining.headers) // len(joining.first),
        joining.n_regions,
        None if joining.skipped is None else len(joining.skipped),
        time.monotonic() - started,
        completeness,
        motif_commands(paths, joining.any_header.length),
    )


def _provenance(joining: Joining, threads: int) -> dict[str, AttributeValue]:
    target = joining.any_header.target
    files: Sequence[Header] = [header for header in joining.headers if header.target == target]

    def joined(name: str) -> str:
        return ", ".join(dict.fromkeys(str(file.attributes.get(name, "")) for file in files))

    copied = ("checkpoint_path", "genome_path", "regions_path", "device", "device_name")
    return {
        **provenance.host_facts(),
        "command_line": provenance.command_line(),
        **{name: joined(name) for name in copied},
        "threads": threads,
        "versions": json.dumps(provenance.package_versions(), sort_keys=True),
    }


def _facts(config: MergeConfig, joining: Joining, paths: OutputPaths, started: float) -> dict[str, Any]:
    seconds = time.monotonic() - started
    n_skipped = None if joining.skipped is None else len(joining.skipped)
    return {
        "settings": asdict(config),
        "identity": joining.split_identity()[0],
        "targets": {target: header.attributes.get("target") for target, header in joining.first.items()},
        **joining.facts,
        "versions": provenance.package_versions(),
        "command_line": provenance.command_line(),
        "regions": {
            "selected": None if n_skipped is None else joining.n_regions + n_skipped,
            "scored": joining.n_regions,
            "skipped": n_skipped,
        },
        "seconds": {"joining": round(seconds, 3)},
        "regions_per_second": round(joining.n_regions / max(seconds, 1e-9), 4),
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "next_commands": motif_commands(paths, joining.any_header.length),
    }
