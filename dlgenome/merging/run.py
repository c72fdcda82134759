"""Folds that were run apart, joined: the files of the run that names all the folds."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from dlgenome import provenance
from dlgenome.config import OutputFormat, Overlap, default_threads
from dlgenome.errors import UsageError
from dlgenome.folds import FOLD_SD
from dlgenome.merging.beside import find_bed, find_skipped, restore_columns
from dlgenome.merging.folds import CHECKPOINT, Folds, joined_identity, joined_rows, open_folds
from dlgenome.scores import AttributeValue, CompletenessSummary, ScoresFile
from dlgenome.types import SkippedRegion
from dlgenome.writers.blocks import BlockLayout, ScoreDtype
from dlgenome.writers.finish import finish_run
from dlgenome.writers.next_commands import motif_commands
from dlgenome.writers.partial import claimed, clear_partial
from dlgenome.writers.paths import OutputPaths, check_space, estimate_bytes
from dlgenome.writers.spool import Spool

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with regions done and regions in all."""

_WRITTEN_AGAIN = ("format_version", "target_name")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """One `dlgenome merge --mean`: a field for each flag, with the flag's default."""

    scores: tuple[Path, ...]
    """The ``scores.h5`` of every fold; several targets may be joined at once."""
    output: Path
    """Prefix of every file written."""
    fold_sd: bool = False
    formats: tuple[OutputFormat, ...] = ()
    """Empty becomes h5 and bigwig, or h5 alone where windows are whole sequences, as FASTA records are."""
    overlap: Overlap = "nearest"
    crop: int | None = None
    threads: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class MergeSummary:
    """What was joined, for the command to report."""

    outputs: tuple[Path, ...]
    folds: int
    scored: int
    skipped: int | None
    """None where no list of skipped regions lies beside the folds' files."""
    seconds: float
    completeness: Mapping[str, CompletenessSummary]
    next_commands: tuple[str, ...]


def merged_paths(config: MergeConfig) -> OutputPaths:
    """Every file that joining would write; the folds' files are opened and checked, nothing is made."""
    with ExitStack() as stack:
        return _paths(config, open_folds(config.scores, stack))


def merge_folds(config: MergeConfig, progress: Progress | None = None) -> MergeSummary:
    """Write the mean of the folds as one run: every dataset equals that of `attribute` with all the folds.

    Rows pass through a few at a time. Only scores stored as float16 are not the same to the bit, for they
    were rounded before they are averaged. Raises DlgenomeError subclasses for anything that the user can
    mend; checks come before anything is written.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        folds = open_folds(config.scores, stack)
        paths = _paths(config, folds)
        files = [file for group in folds.values() for file in group]
        skipped = find_skipped(files)
        stack.enter_context(claimed(paths, overwrite=config.overwrite))
        clear_partial(paths)
        check_space(paths, _bytes_needed(files[0], paths))
        return _join(config, folds, paths, skipped, progress, started)


def _paths(config: MergeConfig, folds: Folds) -> OutputPaths:
    first = next(iter(folds.values()))[0]
    if config.crop is not None and config.crop > first.length:
        raise UsageError(f"--crop {config.crop} is wider than the windows of {first.length} bases.")
    formats = config.formats or (("h5",) if _whole_sequences(first) else ("h5", "bigwig"))
    extras = (*first.extras, *((FOLD_SD,) if config.fold_sd else ()))
    paths = OutputPaths(config.output, tuple(folds), frozenset(formats), extras)
    written = {path.resolve() for path in (*paths.all(), *map(paths.scores_h5, paths.targets))}
    for path in config.scores:
        if path.resolve() in written:
            raise UsageError(
                f"-o {config.output} would write over {path}, which is to be read; choose another."
            )
    return paths


def _whole_sequences(scores: ScoresFile) -> bool:
    """Whether every window is a sequence from end to end, as where FASTA records themselves are scored."""
    lengths = {contig.name: contig.length for contig in scores.contigs}
    starts, ends = scores.regions["start"], scores.regions["end"]
    whole = [lengths.get(str(chrom), -1) for chrom in scores.regions["chrom"]]
    return not starts.any() and bool(np.array_equal(ends, whole))


def _bytes_needed(first: ScoresFile, paths: OutputPaths) -> int:
    return estimate_bytes(
        first.n_regions, first.length, len(paths.targets), paths.formats, first.score_dtype, paths.extras
    )


def _join(
    config: MergeConfig,
    folds: Folds,
    paths: OutputPaths,
    skipped: tuple[SkippedRegion, ...] | None,
    progress: Progress | None,
    started: float,
) -> MergeSummary:
    files = [file for group in folds.values() for file in group]
    first, bed = files[0], find_bed(files)
    _warn_of_what_is_missing(skipped, bed)
    _warn_of_own_rounds(first)
    threads = config.threads or default_threads()
    with Spool(paths, _layout(folds, paths), threads=threads) as spool:
        for piece in restore_columns(joined_rows(folds, with_sd=config.fold_sd), bed):
            spool.append(piece)
            if progress is not None:
                progress(spool.rows, first.n_regions)
        identity, of_targets = _identities(folds)
        completeness = finish_run(
            paths,
            spool,
            contigs=first.contigs,
            identity=identity,
            provenance=_provenance(next(iter(folds.values())), threads),
            skipped=skipped or (),
            formats=paths.formats,
            overlap=config.overlap,
            crop=config.crop,
            run_facts=lambda: _facts(config, folds, paths, skipped, started),
            target_identity=of_targets,
        )
    return MergeSummary(
        paths.all(),
        len(next(iter(folds.values()))),
        first.n_regions,
        None if skipped is None else len(skipped),
        time.monotonic() - started,
        completeness,
        motif_commands(paths, first.length),
    )


def _layout(folds: Folds, paths: OutputPaths) -> BlockLayout:
    files = [group[0] for group in folds.values()]
    return BlockLayout(
        length=files[0].length,
        score_dtype=cast(ScoreDtype, files[0].score_dtype),
        targets=tuple(folds),
        hypothetical=tuple(file.has_hypothetical for file in files),
        extras=tuple(sorted(paths.extras)),
    )


def _warn_of_what_is_missing(skipped: tuple[SkippedRegion, ...] | None, bed: Path | None) -> None:
    if skipped is None:
        logger.warning(
            "No PREFIX.skipped_regions.tsv lies beside the folds' files, so the new one is empty; which "
            "regions were skipped is not known."
        )
    if bed is None:
        logger.warning(
            "No PREFIX.interpreted_regions.bed lies beside the folds' files, so columns 5 and 7 to 9 of the "
            "new one are empty."
        )


def _warn_of_own_rounds(scores: ScoresFile) -> None:
    """With adaptive references rounds depend on all the folds, and a job of one fold knows only that one."""
    if "adaptive_references" in scores.identity:
        logger.warning(
            "Each fold chose its own number of references for a region (--adaptive-references); one run of "
            "all folds draws for every fold as many as any of them needs, so its scores differ slightly."
        )


def _identities(
    folds: Folds,
) -> tuple[dict[str, AttributeValue], dict[str, dict[str, AttributeValue]]]:
    """The identity that all targets share, and what each has beside it."""
    of_targets = {target: joined_identity(files) for target, files in folds.items()}
    for identity in of_targets.values():
        for name in _WRITTEN_AGAIN:
            identity.pop(name, None)
    first, *others = of_targets.values()
    shared = {
        name: value
        for name, value in first.items()
        if name != "target" and all(other.get(name) == value for other in others)
    }
    own = {
        target: {name: value for name, value in identity.items() if name not in shared}
        for target, identity in of_targets.items()
    }
    return shared, own


def _provenance(files: tuple[ScoresFile, ...], threads: int) -> dict[str, AttributeValue]:
    def joined(name: str, distinct: bool = True) -> str:
        values = [str(file.attributes.get(name, "")) for file in files]
        return ", ".join(dict.fromkeys(values) if distinct else values)

    return {
        **provenance.host_facts(),
        "command_line": provenance.command_line(),
        "checkpoint_path": joined("checkpoint_path", distinct=False),
        **{name: joined(name) for name in ("genome_path", "regions_path", "device", "device_name")},
        "threads": threads,
        "versions": json.dumps(provenance.package_versions(), sort_keys=True),
    }


def _facts(
    config: MergeConfig,
    folds: Folds,
    paths: OutputPaths,
    skipped: tuple[SkippedRegion, ...] | None,
    started: float,
) -> dict[str, Any]:
    first = next(iter(folds.values()))[0]
    seconds = time.monotonic() - started
    n_skipped = None if skipped is None else len(skipped)
    return {
        "settings": {"mean": True, **asdict(config)},
        "identity": _identities(folds)[0],
        "targets": {target: files[0].attributes.get("target") for target, files in folds.items()},
        "folds": [
            {"scores": file.path, "target": target, CHECKPOINT: file.attributes[CHECKPOINT]}
            for target, files in folds.items()
            for file in files
        ],
        "versions": provenance.package_versions(),
        "command_line": provenance.command_line(),
        "regions": {
            "selected": None if n_skipped is None else first.n_regions + n_skipped,
            "scored": first.n_regions,
            "skipped": n_skipped,
        },
        "seconds": {"joining": round(seconds, 3)},
        "regions_per_second": round(first.n_regions / max(seconds, 1e-9), 4),
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "next_commands": motif_commands(paths, first.length),
    }
