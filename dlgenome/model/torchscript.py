"""TorchScript archives: programs, which run as soon as they are loaded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError, first_line


def refuse_torchscript(path: Path) -> None:
    """Raise InputError: TorchScript has its own language, in which an archive can write files when loaded."""
    raise InputError(
        f"{path} is a TorchScript archive, a program that can write files as soon as it is loaded, so it was"
        " not loaded; give the model's state_dict with --architecture, or use --trust-pickle only if you"
        " trust where the file comes from."
    )


def read_torchscript(path: Path) -> nn.Module:
    """The scripted or traced module, loaded by running it: only for files that the user vouches for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated; files of it exist
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(
            f"The TorchScript archive {path} is damaged or needs operations that are not installed"
            f" ({first_line(error)}); copy or save it again."
        ) from error
    return module


def refuse_fixed_batch(module: nn.Module, length: int) -> None:
    """Raise UnsupportedModelError where three sequences do not come out as three predictions.

    Attribution runs a sequence and its references side by side.
    """
    sequences = torch.zeros(3, 4, length)
    sequences[:, 0] = 1
    try:
        with torch.no_grad():
            value = module(sequences)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _fixed(f"three at once fail with {lines[-1][:200].rstrip('.')}") from error
    outputs = _tensors(value)
    if any(output.dim() == 0 or output.shape[0] != len(sequences) for output in outputs):
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise _fixed(f"three at once give {shapes}")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    values = list(value.values()) if isinstance(value, dict) else list(value)
    return [item for item in values if isinstance(item, Tensor)]


def _fixed(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The TorchScript model fixes its batch size: one sequence works, {what}. Script or trace it again"
        " with x.shape[0] in place of the number."
    )
