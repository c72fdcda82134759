"""The checkpoints of a run: opened, found to be alike, captured, and made into what explains batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import PRECISIONS, allow_tf32
from dlgenome.attribution.fusing import FusingRecorder
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.methods import Method
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.readout import Readout
from dlgenome.attribution.recording import CudaRecorder
from dlgenome.config import RunConfig, architecture_arguments
from dlgenome.errors import InputError, UsageError
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.inputs import InputForm
from dlgenome.model.targets import Target
from dlgenome.pipeline.explain import Explainer, Rounds, Strands
from dlgenome.pipeline.modelling import ModelRequest
from dlgenome.references.registry import ReferenceSource


@dataclass(frozen=True)
class OpenModel:
    """A checkpoint as its file has it, taking (batch, 4, length) in A, C, G, T order."""

    request: ModelRequest
    model: LoadedModel


@dataclass(frozen=True)
class Fold:
    """One checkpoint, ready to be explained."""

    model: LoadedModel
    program: Program
    readouts: tuple[Readout, ...]


def open_models(config: RunConfig, record_length: int | None) -> tuple[list[OpenModel], int]:
    """Every fold's checkpoint, and the input length that all share.

    ``record_length`` is that of FASTA records which are scored themselves. Raises UsageError for folds that
    take other lengths, and for a checkpoint that is given twice.
    """
    opened, lengths = [], []
    seen: dict[str, Path] = {}
    for path in (config.model, *config.folds):
        request = model_request(config, path)
        model = request.load()
        if model.sha256 in seen:
            raise UsageError(
                f"-m {seen[model.sha256]} and -m {path} are the same checkpoint; give each fold once."
            )
        seen[model.sha256] = path
        lengths.append(window_length(config, model, record_length))
        if lengths[-1] != lengths[0]:
            raise UsageError(
                f"{path} takes {lengths[-1]} bases and {config.model} {lengths[0]}; folds must be alike."
            )
        opened.append(OpenModel(request, request.adapt(model, lengths[-1])))
    return opened, lengths[0]


def capture_folds(
    config: RunConfig,
    models: Sequence[OpenModel],
    targets: tuple[Target, ...],
    length: int,
    device: torch.device,
) -> tuple[Fold, ...]:
    """Every fold with a rule for each of its operations.

    Raises UnsupportedModelError for operations without one, and UsageError for folds with other outputs.
    """
    dtype = PRECISIONS[config.precision]
    folds = []
    for opened in models:
        program, readouts = opened.request.program(opened.model, targets, length, device, dtype)
        program.require_supported()
        folds.append(Fold(opened.model, program, readouts))
    for path, fold in zip(config.folds, folds[1:], strict=True):
        if fold.readouts != folds[0].readouts:
            raise UsageError(f"{path} has other outputs than {config.model}; folds must be alike.")
    return tuple(folds)


def make_explainer(
    config: RunConfig,
    folds: Sequence[Fold],
    targets: Sequence[Target],
    references: ReferenceSource,
    device: torch.device,
    batch_size: int,
) -> Explainer:
    """The engines of all folds, with this many pairs a step, and what is averaged over."""
    if device.type == "cuda":
        allow_tf32(config.precision)
    narrow = with_narrow_products if config.precision == "bfloat16" else (lambda program: program)
    compiled = config.compile and device.type == "cuda"
    engines = [
        DeepLift(
            narrow(fold.program),
            targets=fold.readouts,
            n_references=references.n_references,
            batch_size=batch_size,
            device=device,
            dtype=PRECISIONS[config.precision],
            method=Method(rules=config.rule, max_pool=config.max_pool),
            keep_pairs=config.reference_se,
            recorder=FusingRecorder(CudaRecorder(device)) if compiled else None,
        )
        for fold in folds
    ]
    most = config.max_rounds if config.adaptive_references is not None else 1
    return Explainer(
        engines,
        [target.name for target in targets],
        strands=Strands(config.reverse_complement, config.stranded),
        rounds=Rounds(config.adaptive_references, config.min_rounds, most),
        draw=references.draw_batch,
        reference_se=config.reference_se,
    )


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


def window_length(config: RunConfig, model: LoadedModel, record_length: int | None) -> int:
    """Bases of input: the model's own length, ``--window``, or that of the FASTA records."""
    known = model.input_length
    length = model.length(config.window or known or record_length)
    if known is not None and length != known:
        raise UsageError(
            f"--window {length}: this {model.architecture} model takes {known} bases; leave --window out."
        )
    if record_length is not None and record_length != length:
        raise InputError(
            f"{config.fasta}: records have {record_length} bases, the model takes {length}; cut them to "
            f"{length}."
        )
    if config.crop is not None and config.crop > length:
        raise UsageError(f"--crop {config.crop} is wider than the window of {length} bases.")
    return length
