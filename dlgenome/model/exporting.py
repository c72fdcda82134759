"""A network written as a ``.pt2`` file, which holds the program itself and needs no architecture to load."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.export import Dim

from dlgenome.errors import UnsupportedModelError
from dlgenome.model.exported import DESCRIPTION


def save_exported(module: nn.Module, path: Path, *, length: int, description: Mapping[str, object]) -> None:
    """Write the module as a program for any number of sequences of ``length`` bases.

    The file appears under its name only when it is complete. Raises UnsupportedModelError where the module
    cannot be exported.
    """
    example = torch.zeros(3, 4, length)
    example[:, 0] = 1
    with _quiet(), TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        try:
            program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UnsupportedModelError(
                "torch.export cannot write this model as a program"
                f" ({type(error).__name__}: {lines[0][:200]})."
            ) from error
        unfinished = Path(folder) / path.name
        torch.export.save(program, unfinished, extra_files={DESCRIPTION: json.dumps(dict(description))})
        unfinished.replace(path)


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch")
    previous = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(previous)
