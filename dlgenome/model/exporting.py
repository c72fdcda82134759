"""A network written as the program that it runs, which needs no architecture to load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from dlgenome.errors import UnsupportedModelError
from dlgenome.guards.archives import open_archive
from dlgenome.model.exported import DESCRIPTION, open_exported
from dlgenome.quiet import quiet_torch


def save_exported(module: nn.Module, path: Path, *, length: int, description: Mapping[str, object]) -> None:
    """Write the module as a ``.pt2`` program for any number of sequences of ``length`` bases.

    The file appears under its name only when it is complete. Raises UnsupportedModelError where the module
    cannot be exported.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        _export(module, unfinished, length, {DESCRIPTION: json.dumps(dict(description))})
        unfinished.replace(path)


def exported_program(module: nn.Module, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program that `save_exported` writes, as JSON has it, and its tensors by path.

    Raises UnsupportedModelError where the module cannot be exported.
    """
    with TemporaryDirectory(prefix="dlgenome-") as folder:
        path = Path(folder) / "program.pt2"
        _export(module, path, length, {})
        with open_archive(path) as archive:
            program, tensors, _ = open_exported(path, archive)
    return program, tensors


def _export(module: nn.Module, path: Path, length: int, extra_files: dict[str, Any]) -> None:
    example = torch.zeros(3, 4, length)
    example[:, 0] = 1
    with quiet_torch():
        try:
            program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UnsupportedModelError(
                "torch.export cannot write this model as a program"
                f" ({type(error).__name__}: {lines[0][:200]})."
            ) from error
        torch.export.save(program, path, extra_files=extra_files)
