"""Everything that is opened and checked before the model runs."""

from __future__ import annotations

import io
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import PRECISIONS, automatic_batch_size, resolve_device
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.methods import Method
from dlgenome.attribution.readout import Readout
from dlgenome.config import RunConfig, architecture_arguments, parse_shard
from dlgenome.errors import InputError, UsageError
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.inputs import InputForm
from dlgenome.model.targets import Target, parse_targets
from dlgenome.pipeline.explain import Explainer, Rounds, Strands
from dlgenome.pipeline.modelling import ModelRequest
from dlgenome.provenance import file_sha256
from dlgenome.references.registry import ReferenceSource, parse_references
from dlgenome.references.shuffled import ShuffledReferences
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.regions.selection import Selection, select
from dlgenome.regions.windows import WindowPlan, plan_windows
from dlgenome.writers.paths import KEPT_REGIONS, OutputPaths, check_space, estimate_bytes


@dataclass(frozen=True)
class Fold:
    """One checkpoint, ready to be explained."""

    model: LoadedModel
    program: Program
    readouts: tuple[Readout, ...]


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
    device: torch.device
    batch_size: int

    def keep_regions(self) -> None:
        """Put regions that came through standard input beside the unfinished run, which may need them."""
        copy = self.paths.scratch(KEPT_REGIONS)
        if copy.exists():
            copy.replace(self.paths.kept_regions)

    def explainer(self, batch_size: int) -> Explainer:
        """The engines of this job's folds, with this many pairs a step, and what is averaged over."""
        config = self.config
        engines = [
            DeepLift(
                fold.program,
                targets=fold.readouts,
                n_references=self.references.n_references,
                batch_size=batch_size,
                device=self.device,
                dtype=PRECISIONS[config.precision],
                method=Method(rules=config.rule, max_pool=config.max_pool),
                keep_pairs=config.reference_se,
            )
            for fold in self.folds
        ]
        most = config.max_rounds if config.adaptive_references is not None else 1
        return Explainer(
            engines,
            [target.name for target in self.targets],
            strands=Strands(config.reverse_complement, config.stranded),
            rounds=Rounds(config.adaptive_references, config.min_rounds, most),
            draw=self.references.draw_batch,
            reference_se=config.reference_se,
            fold_sd=config.fold_sd,
        )


def prepare(
    config: RunConfig,
    paths: OutputPaths,
    stack: ExitStack,
    stdin: BinaryIO | None,
) -> Job:
    """Every input of a run, checked; what must be closed is left to ``stack``."""
    targets = parse_targets(config.targets)
    device = resolve_device(config.device)
    genome, table = _open_inputs(config, paths, stack, stdin)
    selection = select(
        table,
        chroms=config.chroms,
        exclude=config.exclude,
        order=config.order,
        limit=config.limit,
        contigs=genome.contigs,
    )
    models, length = _open_models(config, table)
    plan = _plan(config, _sharded(config, selection), genome, length)
    references = _references(config, length, len(table))
    stack.callback(references.close)
    check_space(paths, disk_needed(config, paths, len(plan), length))
    dtype = PRECISIONS[config.precision]
    folds = tuple(_fold(request, model, targets, length, device, dtype) for request, model in models)
    _check_folds(config, folds)
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
        device,
        _batch_size(config, folds[0].program, references.n_references, len(selection.table), device),
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


def _open_models(config: RunConfig, table: RegionTable) -> tuple[list[tuple[ModelRequest, LoadedModel]], int]:
    """Every fold's checkpoint with its adapter, and the input length that all share."""
    opened, lengths = [], []
    for path in (config.model, *config.folds):
        request = model_request(config, path)
        model = request.load()
        lengths.append(window_length(config, model, table))
        if lengths[-1] != lengths[0]:
            raise UsageError(
                f"{path} takes {lengths[-1]} bases and {config.model} {lengths[0]}; folds must be alike."
            )
        opened.append((request, request.adapt(model, lengths[-1])))
    return opened, lengths[0]


def _fold(
    request: ModelRequest,
    model: LoadedModel,
    targets: tuple[Target, ...],
    length: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Fold:
    program, readouts = request.program(model, targets, length, device, dtype)
    program.require_supported()
    return Fold(model, program, readouts)


def _check_folds(config: RunConfig, folds: tuple[Fold, ...]) -> None:
    """Folds whose outputs differ cannot be averaged."""
    for path, fold in zip(config.folds, folds[1:], strict=True):
        if fold.readouts != folds[0].readouts:
            raise UsageError(f"{path} has other outputs than {config.model}; folds must be alike.")


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


def model_request(config: RunConfig, path: Path) -> ModelRequest:
    """What is said about one checkpoint of a run."""
    return ModelRequest(
        path,
        model_type=config.model_type,
        architecture=config.architecture,
        architecture_args=architecture_arguments(config.architecture_args),
        trust_pickle=config.trust_pickle,
        form=InputForm(config.alphabet, config.input_layout, config.extra_inputs),
        plugins=config.plugins,
        strict=config.strict,
    )


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


def window_length(config: RunConfig, model: LoadedModel, table: RegionTable) -> int:
    """Bases of input: the model's own length, ``--window``, or that of the FASTA records."""
    records = int(table.ends[0]) if config.fasta is not None else None
    known = model.input_length
    length = config.window or known or records
    if length is None:
        raise UsageError(f"The input length of {model.architecture} is not known; give it with --window.")
    if known is not None and length != known:
        raise UsageError(
            f"--window {length}: this {model.architecture} model takes {known} bases; leave --window out."
        )
    if records is not None and records != length:
        raise InputError(
            f"{config.fasta}: records have {records} bases, the model takes {length}; cut them to {length}."
        )
    if config.crop is not None and config.crop > length:
        raise UsageError(f"--crop {config.crop} is wider than the window of {length} bases.")
    return length
