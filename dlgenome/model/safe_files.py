"""Safetensors files: tensors, and a header that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dlgenome.errors import InputError
from dlgenome.model.architectures.definition import Arguments, Tensors
from dlgenome.model.architectures.registry import ARCHITECTURES


@dataclass(frozen=True)
class SafeFile:
    """Tensors of a safetensors file, and its own description where it has one."""

    tensors: Tensors
    architecture: str | None = None
    arguments: Arguments = field(default_factory=dict)


def save_safetensors(
    module: nn.Module,
    path: Path,
    *,
    architecture: str,
    arguments: Mapping[str, object],
    input_length: int | None = None,
) -> None:
    """Write weights and description of a built-in architecture to one file that needs no flags to load.

    The file appears under its name only when it is complete.
    """
    arguments = dict(arguments) | ({} if input_length is None else {"input_length": input_length})
    metadata = {"format": "pt", "architecture": architecture, "arguments": json.dumps(arguments)}
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        save_file(tensors, unfinished, metadata=metadata)
        unfinished.replace(path)


def read_safetensors(path: Path) -> SafeFile:
    """Tensors and description of the file; InputError when it is damaged or describes itself wrongly.

    Only built-in architectures are taken from the file: a factory is code, and stands on the command line.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The model file {path} is a damaged or cut safetensors file ({error}); copy it again."
        ) from error
    architecture = metadata.get("architecture")
    if architecture not in ARCHITECTURES:
        return SafeFile(tensors)
    return SafeFile(tensors, architecture, _arguments(path, metadata.get("arguments", "{}")))


def _arguments(path: Path, text: str) -> Arguments:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InputError(f"{path}: the entry `arguments` of the file's metadata is not a JSON object.")
    return arguments
