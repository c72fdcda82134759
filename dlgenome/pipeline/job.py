"""Everything that is opened and checked before the model runs."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import torch

from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import PRECISIONS, automatic_batch_size, resolve_device
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.methods import Method
from dlgenome.config import RunConfig, architecture_arguments
from dlgenome.errors import InputError, UsageError
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.inputs import InputForm
from dlgenome.model.targets import Target, parse_targets
from dlgenome.pipeline.modelling import ModelRequest
from dlgenome.provenance import file_sha256
from dlgenome.references.registry import ReferenceSource, parse_references
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.regions.selection import Selection, select
from dlgenome.regions.windows import WindowPlan, plan_windows
from dlgenome.writers.paths import OutputPaths, check_space, estimate_bytes


@dataclass(frozen=True)
class Job:
    """Every input opened and checked; nothing scored yet."""

    config: RunConfig
    paths: OutputPaths
    genome: Genome
    table: RegionTable
    selection: Selection
    plan: WindowPlan
    model: LoadedModel
    targets: tuple[Target, ...]
    references: ReferenceSource
    references_sha256: str | None
    """Of the file that the references come from, as it was before the run."""
    program: Program
    device: torch.device
    batch_size: int

    def deep_lift(self) -> DeepLift:
        """The engine for this job."""
        return DeepLift(
            self.program,
            targets=len(self.targets),
            n_references=self.references.n_references,
            batch_size=self.batch_size,
            device=self.device,
            dtype=PRECISIONS[self.config.precision],
            method=Method(rules=self.config.rule, max_pool=self.config.max_pool),
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
    request = model_request(config)
    model = request.load()
    length = window_length(config, model, table)
    model = request.adapt(model, length)
    plan = plan_windows(
        selection.table,
        genome,
        center=config.center,
        length=length,
        edge=config.edge,
        skip_missing=config.skip_missing_contigs,
    )
    if not len(plan):
        raise InputError(
            f"{table.source}: no window of {length} bases lies inside its chromosome; try --edge pad."
        )
    references = parse_references(
        config.references,
        n_references=config.n_references,
        seed=config.seed,
        window=length,
        n_input_rows=len(table),
    )
    stack.callback(references.close)
    check_space(paths, estimate_bytes(len(plan), length, len(targets), paths.formats, config.score_dtype))
    program = request.program(model, targets, length, device, PRECISIONS[config.precision])
    program.require_supported()
    batch_size = config.batch_size
    if batch_size == "auto":
        batch_size = automatic_batch_size(
            program, references.n_references, device, PRECISIONS[config.precision]
        )
        # No more pairs a step than there are in the run: the rest would be padding.
        batch_size = min(batch_size, len(plan) * references.n_references)
    return Job(
        config,
        paths,
        genome,
        table,
        selection,
        plan,
        model,
        targets,
        references,
        None if references.path is None else file_sha256(references.path),
        program,
        device,
        int(batch_size),
    )


def model_request(config: RunConfig) -> ModelRequest:
    """The part of a run's settings that is about the model."""
    return ModelRequest(
        config.model,
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
    return genome, read_regions(config.regions, stdin=stdin or _standard_input(config.regions))


def _standard_input(regions: str) -> BinaryIO | None:
    """Only looked at for ``-``: a job of a scheduler may have no standard input at all."""
    if regions != "-":
        return None
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
