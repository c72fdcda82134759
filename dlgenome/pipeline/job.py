"""Everything that is opened and checked before the model runs."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch

from dlgenome.attribution.devices import PRECISIONS, automatic_batch_size, resolve_devices
from dlgenome.attribution.layout import step_shape
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.narrow import has_maxima
from dlgenome.attribution.parallel import Lanes
from dlgenome.config import RunConfig, parse_shard
from dlgenome.errors import InputError, UsageError
from dlgenome.model.targets import Target, parse_targets
from dlgenome.pipeline.code import CodeDigests, digest_code
from dlgenome.pipeline.explain import Explainer
from dlgenome.pipeline.models import Fold, capture_folds, make_explainer, open_models
from dlgenome.provenance import file_sha256
from dlgenome.references.registry import ReferenceSource, parse_references
from dlgenome.references.shuffled import ShuffledReferences
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.regions.selection import Selection, select
from dlgenome.regions.windows import WindowPlan, plan_windows
from dlgenome.writers.paths import KEPT_REGIONS, OutputPaths, check_space, estimate_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Every input opened and checked; nothing scored yet."""

    config: RunConfig
    paths: OutputPaths
    genome: Genome
    table: RegionTable
    selection: Selection
    plan: WindowPlan
    folds: tuple[Fold, ...]
    targets: tuple[Target, ...]
    references: ReferenceSource
    references_sha256: str | None
    """Of the file that the references come from, as it was before the run."""
    code: CodeDigests
    devices: tuple[torch.device, ...]
    """One for each process that explains; a single one does without further processes."""
    batch_size: int

    def keep_regions(self) -> None:
        """Put regions that came through standard input beside the unfinished run, which may need them."""
        copy = self.paths.scratch(KEPT_REGIONS)
        if copy.exists():
            copy.replace(self.paths.kept_regions)

    @property
    def windows_per_step(self) -> int:
        """Windows that are read and explained together."""
        step = step_shape(self.batch_size, self.references.n_references)
        return step.sequences * Lanes(self.devices[0]).count

    def explainer(self, batch_size: int) -> Explainer:
        """What explains batches in this process, with so many pairs a step."""
        return make_explainer(
            self.config, self.folds, self.targets, self.references, self.devices[0], batch_size
        )


def prepare(
    config: RunConfig,
    paths: OutputPaths,
    stack: ExitStack,
    stdin: BinaryIO | None,
) -> Job:
    """Every input of a run, checked; what must be closed is left to ``stack``."""
    targets = parse_targets(config.targets)
    devices = resolve_devices(config.device)
    _check_precision(config, devices)
    if config.compile and devices[0].type != "cuda":
        log.warning("--compile records the steps of CUDA devices; on %s it changes nothing.", devices[0])
    genome, table = _open_inputs(config, paths, stack, stdin)
    selection = select(
        table,
        chroms=config.chroms,
        exclude=config.exclude,
        order=config.order,
        limit=config.limit,
        contigs=genome.contigs,
    )
    record_length = int(table.ends[0]) if config.fasta is not None else None
    models, length = open_models(config, record_length)
    plan = _plan(config, _sharded(config, selection), genome, length)
    references = _references(config, length, len(table))
    stack.callback(references.close)
    check_space(paths, disk_needed(config, paths, len(plan), length))
    folds = capture_folds(config, models, targets, length, devices[0])
    _warn_of_rounding(config, targets, folds[0].program, devices)
    return Job(
        config,
        paths,
        genome,
        table,
        selection,
        plan,
        folds,
        targets,
        references,
        None if references.path is None else file_sha256(references.path),
        digest_code(config, targets),
        devices,
        _batch_size(config, folds[0].program, references.n_references, len(selection.table), devices[0]),
    )


def _check_precision(config: RunConfig, devices: Sequence[torch.device]) -> None:
    if config.precision == "tf32" and devices[0].type != "cuda":
        raise UsageError(
            f"--precision tf32 is a format of CUDA devices, and this run is on {devices[0]}; take bfloat16 "
            "or float32."
        )


def _warn_of_rounding(
    config: RunConfig, targets: Sequence[Target], program: Program, devices: Sequence[torch.device]
) -> None:
    if config.precision in ("tf32", "bfloat16") and has_maxima(program):
        off = 16 if devices[0].type == "cuda" else 4  # docs/performance.md, "Precision"
        log.warning(
            "--precision %s: where this model takes the maximum of near equals, rounding can choose another, "
            "and scores of some regions were off by up to %d %% of the largest; compare a few with float32.",
            config.precision,
            off,
        )
    if config.precision != "float64" and any(target.kind == "profile-bpnetlite" for target in targets):
        log.warning(
            "profile-bpnetlite divides by differences of logits, some of them close to zero: in %s its "
            "scores can be off by a few percent of the largest; take --precision float64, as bpnet-lite.",
            config.precision,
        )


def _sharded(config: RunConfig, selection: Selection) -> RegionTable:
    """The selected regions, or the part of them that this shard is to score; parts differ by one at most."""
    table = selection.table
    if config.shard is None:
        return table
    part, parts = parse_shard(config.shard)
    bounds = [len(table) * number // parts for number in (part - 1, part)]
    return table.take(np.arange(*bounds, dtype=np.int64))


def _plan(config: RunConfig, table: RegionTable, genome: Genome, length: int) -> WindowPlan:
    plan = plan_windows(
        table,
        genome,
        center=config.center,
        length=length,
        edge=config.edge,
        skip_missing=config.skip_missing_contigs,
    )
    if not len(plan) and config.shard is None:
        raise InputError(
            f"{table.source}: no window of {length} bases lies inside its chromosome; try --edge pad."
        )
    return plan


def _batch_size(
    config: RunConfig, program: Program, n_references: int, n_regions: int, device: torch.device
) -> int:
    """Pairs a step: what was asked for, else what suits the device, and no more than all shards have."""
    if config.batch_size != "auto":
        return config.batch_size
    suits = automatic_batch_size(program, n_references, device, PRECISIONS[config.precision])
    return min(suits, n_regions * n_references)


def disk_needed(config: RunConfig, paths: OutputPaths, n_rows: int, length: int) -> int:
    """Bytes that the run's files and those of single folds take while they are made."""
    copies = 1 + (len(config.folds) + 1 if config.per_fold else 0)
    one = estimate_bytes(n_rows, length, len(paths.targets), paths.formats, config.score_dtype, paths.extras)
    return copies * one


def _references(config: RunConfig, length: int, n_input_rows: int) -> ReferenceSource:
    references = parse_references(
        config.references,
        n_references=config.n_references,
        seed=config.seed,
        window=length,
        n_input_rows=n_input_rows,
    )
    if references.n_references < 2 and config.reference_se:
        raise UsageError(f"--reference-se needs two references or more; {references.name} has one.")
    if config.adaptive_references is not None and not isinstance(references, ShuffledReferences):
        raise UsageError(f"--adaptive-references draws more references; {references.name} has no more.")
    return references


def _open_inputs(
    config: RunConfig, paths: OutputPaths, stack: ExitStack, stdin: BinaryIO | None
) -> tuple[Genome, RegionTable]:
    fasta = config.fasta or config.genome
    assert fasta is not None, "RunConfig has checked that there is a FASTA"
    genome = stack.enter_context(Genome(fasta))
    if config.fasta is not None:
        return genome, regions_of_records(genome)
    assert config.regions is not None, "RunConfig has checked that there are regions"
    if config.regions != "-":
        return genome, read_regions(config.regions)
    if config.resume and paths.kept_regions.exists() and _is_silent(stdin):
        return genome, read_regions(paths.kept_regions, source="stdin")
    return genome, read_regions("-", stdin=stdin or _standard_input(), kept=paths.scratch(KEPT_REGIONS))


def piped_sha256(stdin: BinaryIO | None) -> str | None:
    """Checksum of what is piped into standard input, which is read for it; None where nothing is."""
    if _is_silent(stdin):
        return None
    return hashlib.file_digest(stdin or _standard_input(), "sha256").hexdigest()  # type: ignore[arg-type]


def _is_silent(stdin: BinaryIO | None) -> bool:
    """Whether nothing is piped in: a terminal, a closed standard input, or one that ends at once."""
    if stdin is None:
        stdin = None if sys.stdin is None else sys.stdin.buffer
    if stdin is None or stdin.isatty():
        return True
    return isinstance(stdin, io.BufferedReader) and not stdin.peek(1)


def _standard_input() -> BinaryIO:
    """Only looked at for ``-``: a job of a scheduler may have no standard input at all."""
    if sys.stdin is None:
        raise InputError("--regions - reads standard input, which is closed; pipe the regions into it.")
    return sys.stdin.buffer
