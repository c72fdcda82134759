"""What a model expects as input, where it is not (batch, 4, length) in the order A, C, G, T."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError, UsageError, first_line
from dlgenome.guards.arrays import check_npy
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.outputs import run_once
from dlgenome.model.torchscript import refuse_fixed_batch

LAYOUTS: dict[str, tuple[str, ...]] = {
    "4xL": ("base", "length"),
    "Lx4": ("length", "base"),
    "4x1xL": ("base", "one", "length"),
    "4xLx1": ("base", "length", "one"),
    "1x4xL": ("one", "base", "length"),
    "Lx1x4": ("length", "one", "base"),
}
"""Axes behind the batch, by the name that ``--input-layout`` takes."""

_LARGEST_EXTRA = 2**26
"""Numbers of a further input."""


@dataclass(frozen=True)
class InputForm:
    """How sequences are handed to a model."""

    alphabet: str = "auto"
    """Order of the bases that the model was trained on; auto is what the file says, else A, C, G, T."""
    layout: str = "auto"
    """A key of LAYOUTS, or auto to take the first that the model runs on."""
    extra: tuple[str, ...] = ()
    """Further inputs, equal for all sequences: ``zeros:SHAPE``, ``ones:SHAPE``, a number, or a .npy file."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing needs to be done or found out."""
        return self.alphabet in ("auto", "ACGT") and self.layout == "4xL" and not self.extra


class AdaptedModel(nn.Module):
    """Takes (batch, 4, length) in A, C, G, T order and calls the model the way that it expects."""

    order: Tensor

    def __init__(self, model: nn.Module, alphabet: str, layout: str, extra: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.layout = layout
        self.n_extra = len(extra)
        self.reordered = alphabet != "ACGT"
        self.register_buffer("order", torch.tensor(["ACGT".index(base) for base in alphabet]))
        for index, value in enumerate(extra):
            self.register_buffer(f"extra_{index}", value)

    def forward(self, sequences: Tensor) -> object:
        """What the model returns for these sequences."""
        value = sequences.index_select(1, self.order) if self.reordered else sequences
        axes = LAYOUTS[self.layout]
        value = value.transpose(1, 2) if axes.index("length") < axes.index("base") else value
        value = value.unsqueeze(1 + axes.index("one")) if "one" in axes else value
        extra = [getattr(self, f"extra_{index}") for index in range(self.n_extra)]
        return self.model(value, *[part.expand(sequences.shape[0], *part.shape) for part in extra])


def adapt(loaded: LoadedModel, form: InputForm, length: int) -> LoadedModel:
    """The model behind an adapter where its input needs one; itself where not.

    Raises UsageError for a form that makes no sense or that the model does not run on.
    """
    if form.alphabet == "auto":
        form = replace(form, alphabet=loaded.alphabet)
    if sorted(form.alphabet) != sorted("ACGT"):
        raise UsageError(
            f"--alphabet {form.alphabet}: give the four bases in the model's order, such as AGCT."
        )
    if form.layout != "auto" and form.layout not in LAYOUTS:
        raise UsageError(f"--input-layout {form.layout}: choose auto, {', '.join(LAYOUTS)}.")
    extra = [_extra_input(text) for text in form.extra]
    layout = form.layout if form.layout != "auto" else _find_layout(loaded, form.alphabet, extra, length)
    if loaded.kind == "torchscript":
        refuse_fixed_batch(AdaptedModel(loaded.module, form.alphabet, layout, extra).eval(), length)
    if replace(form, layout=layout).is_plain:
        return loaded
    module = AdaptedModel(loaded.module, form.alphabet, layout, extra)
    notes = [f"input of shape (batch, {layout.replace('x', ', ')})"] if layout != "4xL" else []
    notes += [f"bases in the order {form.alphabet}"] if form.alphabet != "ACGT" else []
    notes += [f"extra input {text}" for text in form.extra]
    return replace(loaded, module=module.eval(), notes=(*loaded.notes, *notes), root="model")


def _find_layout(loaded: LoadedModel, alphabet: str, extra: Sequence[Tensor], length: int) -> str:
    """The first layout that the model runs on; the usual one, with its error, where none works."""
    for layout in LAYOUTS:
        try:
            run_once(AdaptedModel(loaded.module, alphabet, layout, extra).eval(), length)
        except (UsageError, UnsupportedModelError):
            continue
        return layout
    return "4xL"


def _extra_input(text: str) -> Tensor:
    """One extra input without its batch axis."""
    kind, colon, shape = text.partition(":")
    if colon and kind in ("zeros", "ones"):
        try:
            sizes = [int(size) for size in shape.split(",")]
        except ValueError:
            raise UsageError(f"--extra-input {text}: write a shape such as {kind}:2,2114.") from None
        if any(size < 0 for size in sizes) or math.prod(sizes) > _LARGEST_EXTRA:
            raise UsageError(f"--extra-input {text}: no input of a model has such a shape.")
        return torch.full(sizes, 0.0 if kind == "zeros" else 1.0)
    try:
        number = float(text)
    except ValueError:
        return _from_file(Path(text))
    if not math.isfinite(number):
        raise UsageError(f"--extra-input {text}: the number must be finite.")
    return torch.tensor([number])


def _from_file(path: Path) -> Tensor:
    try:
        with path.open("rb") as stream:
            shape = check_npy(stream, path.stat().st_size)
        if math.prod(shape) > _LARGEST_EXTRA:
            raise ValueError(f"it has {math.prod(shape):,} numbers, more than an input of a model")
        with np.errstate(over="ignore"):  # told below
            values = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--extra-input {path}: this is neither zeros:SHAPE, ones:SHAPE, a number nor a .npy file of "
            f"numbers ({first_line(error)}); save it with numpy.save."
        ) from error
    if not np.isfinite(values).all():
        raise InputError(f"--extra-input {path}: holds values that are not finite as float32.")
    return torch.from_numpy(values)
