"""A checkpoint written as one safe file that says of itself all that is needed to load it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dlgenome.attribution.torchscript import converted, is_torchscript
from dlgenome.errors import DlgenomeError, InputError, UnsupportedModelError, UsageError, first_line
from dlgenome.model.architectures.registry import ARCHITECTURES
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.exporting import exported_program, save_exported
from dlgenome.model.inputs import InputForm, adapt
from dlgenome.model.outputs import flatten_outputs
from dlgenome.model.safe_files import save_program, save_safetensors
from dlgenome.model.targets import check_targets, parse_targets, suggest_targets
from dlgenome.pipeline.modelling import ModelRequest
from dlgenome.quiet import quiet_torch

N_COMPARED = 4
TOLERANCE = 1e-5
"""Relative to the largest prediction: a written file must predict what the checkpoint does."""


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    path: Path
    model: LoadedModel
    input_length: int
    targets: tuple[str, ...]
    largest_difference: float
    """Between predictions of the checkpoint and of the written file, for random sequences."""


def convert_model(
    request: ModelRequest,
    output: Path,
    *,
    targets: tuple[str, ...] = (),
    window: int | None = None,
    overwrite: bool = False,
) -> Conversion:
    """The checkpoint as ``output``, a .safetensors or .pt2 file that loads without flags.

    The written file is loaded again and its predictions are compared. Raises UsageError where the form of the
    output does not suit the model, and InputError where the predictions differ.
    """
    _check_output(output, overwrite)
    loaded = request.load()
    length = loaded.length(window)
    adapted = request.adapt(loaded, length)
    adapted = replace(adapted, module=_without_torchscript(adapted.module, length))
    facts = check_targets(adapted.module, parse_targets(targets), length, model_length=loaded.input_length)
    targets = targets or loaded.targets or suggest_targets(facts)
    if output.suffix == ".safetensors":
        _write_safetensors(request, loaded, adapted, output, length, targets)
    else:
        description = {"title": _title(loaded), "outputs": list(loaded.outputs), "targets": list(targets)}
        save_exported(adapted.module, output, length=length, description=description)
    try:
        difference = _difference(adapted, output, length)
    except DlgenomeError:
        output.unlink(missing_ok=True)
        raise
    return Conversion(output, loaded, length, targets, difference)


def _without_torchscript(module: nn.Module, length: int) -> nn.Module:
    """The module, its TorchScript made into ordinary modules, which alone can be written as a program."""
    if not is_torchscript(module):
        return module
    example = torch.zeros(3, 4, length)
    example[:, 0] = 1
    try:
        with quiet_torch(), torch.no_grad():
            return converted(module, example)
    except Exception as error:
        raise UnsupportedModelError(
            f"torch cannot make ordinary modules of this TorchScript ({first_line(error)}), so it cannot be"
            " converted; convert the network that it was made from."
        ) from error


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix not in (".safetensors", ".pt2"):
        raise UsageError(
            f"-o {output}: end the name in .safetensors, or in .pt2 for what torch.export.load reads as well."
        )
    if not output.parent.is_dir():
        raise UsageError(f"-o {output}: there is no folder {output.parent}; make it first.")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name, or replace it with --overwrite.")


def _title(loaded: LoadedModel) -> str:
    return loaded.title or loaded.architecture


def _write_safetensors(
    request: ModelRequest,
    loaded: LoadedModel,
    adapted: LoadedModel,
    output: Path,
    length: int,
    targets: tuple[str, ...],
) -> None:
    """A built-in architecture by its name; the operations themselves of any other network."""
    if loaded.architecture not in ARCHITECTURES or request.form.extra:
        program, tensors = exported_program(adapted.module, length)
        save_program(program, tensors, output, title=_title(loaded), outputs=loaded.outputs, targets=targets)
        return
    alphabet = request.form.alphabet
    save_safetensors(
        loaded.module,
        output,
        architecture=loaded.architecture,
        arguments=loaded.arguments,
        input_length=length,
        alphabet=loaded.alphabet if alphabet == "auto" else alphabet,
        targets=targets,
    )


def _difference(before: LoadedModel, output: Path, length: int) -> float:
    """Largest difference of the predictions, relative to the largest one; InputError above TOLERANCE."""
    after = load_model(output)
    if after.input_length is None:
        after = replace(after, input_length=length)
    after = adapt(after, InputForm(), length)
    codes = torch.randint(4, (N_COMPARED, length), generator=torch.Generator().manual_seed(0))
    sequences = torch.nn.functional.one_hot(codes, 4).transpose(1, 2).to(torch.float32)
    largest = 0.0
    with torch.no_grad():
        pairs = zip(
            flatten_outputs(before.module(sequences)), flatten_outputs(after.module(sequences)), strict=True
        )
        for expected, found in pairs:
            if expected.shape != found.shape:
                raise UnsupportedModelError(f"{output} does not predict what the checkpoint does.")
            scale = max(float(expected.abs().max()), 1e-30)
            largest = max(largest, float((expected - found).abs().max()) / scale)
    if not largest <= TOLERANCE:
        raise InputError(
            f"The predictions of the written file differ by {largest:.1e} of the largest one from those of"
            " the checkpoint, so it was removed; please report this model."
        )
    return largest
