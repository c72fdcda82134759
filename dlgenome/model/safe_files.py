"""Safetensors files: tensors, and a header that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dlgenome.errors import InputError, first_line
from dlgenome.model.architectures.definition import Arguments, Tensors
from dlgenome.model.architectures.registry import ARCHITECTURES
from dlgenome.model.exported import LARGEST_JSON


@dataclass(frozen=True)
class SafeFile:
    """Tensors of a safetensors file, and its own description where it has one."""

    tensors: Tensors
    architecture: str | None = None
    arguments: Arguments = field(default_factory=dict)
    alphabet: str | None = None
    targets: tuple[str, ...] = ()
    program: Mapping[str, Any] | None = None
    """The operations themselves, of networks that are no built-in architecture."""
    title: str = ""
    outputs: tuple[str, ...] = ()


PROGRAM = "program"
"""Stands for the name of an architecture where the file holds the operations themselves."""


def save_program(
    program: Mapping[str, Any],
    tensors: Tensors,
    path: Path,
    *,
    title: str,
    outputs: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> None:
    """Write the operations of a network and their tensors to one file that needs no flags to load."""
    metadata = {
        "format": "pt",
        "architecture": PROGRAM,
        "program": json.dumps(program, separators=(",", ":")),
        "title": title,
        "outputs": json.dumps(list(outputs)),
        "targets": json.dumps(list(targets)),
    }
    _save(tensors, path, metadata)


def save_safetensors(
    module: nn.Module,
    path: Path,
    *,
    architecture: str,
    arguments: Mapping[str, object],
    input_length: int | None = None,
    alphabet: str = "ACGT",
    targets: Sequence[str] = (),
) -> None:
    """Write weights and description of a built-in architecture to one file that needs no flags to load.

    The file appears under its name only when it is complete.
    """
    arguments = dict(arguments) | ({} if input_length is None else {"input_length": input_length})
    metadata = {
        "format": "pt",
        "architecture": architecture,
        "arguments": json.dumps(arguments),
        "alphabet": alphabet,
        "targets": json.dumps(list(targets)),
    }
    _save(module.state_dict(), path, metadata)


def _save(tensors: Tensors, path: Path, metadata: dict[str, str]) -> None:
    # clones, because safetensors refuse tensors that share memory
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        save_file(dict(tensors), unfinished, metadata=metadata)
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
            f"The model file {path} is a damaged or cut safetensors file ({first_line(error)});"
            " copy it again."
        ) from error
    said = described(
        path, metadata | {key: _json(path, key, metadata[key]) for key in _IN_JSON if key in metadata}
    )
    architecture = metadata.get("architecture")
    if architecture == PROGRAM:
        return _with_program(path, tensors, metadata, said)
    if architecture not in ARCHITECTURES:
        return SafeFile(tensors, **said)
    arguments = _json(path, "arguments", metadata.get("arguments", "{}"))
    if not isinstance(arguments, dict):
        raise InputError(f"{path}: the entry `arguments` of the file's metadata is not a JSON object.")
    return SafeFile(tensors, architecture, arguments, **said)


_IN_JSON = ("targets",)


def _with_program(
    path: Path, tensors: Tensors, metadata: Mapping[str, str], said: dict[str, Any]
) -> SafeFile:
    program = _json(path, "program", metadata.get("program", "null"))
    outputs = _json(path, "outputs", metadata.get("outputs", "[]"))
    if not isinstance(program, dict) or not isinstance(outputs, list):
        raise InputError(
            f"{path} says that it holds a program, but its metadata has none that can be read;"
            " write it again with `dlgenome convert`."
        )
    title, names = metadata.get("title", ""), tuple(map(str, outputs))
    return SafeFile(tensors, program=program, title=title, outputs=names, **said)


def _json(path: Path, entry: str, text: str) -> Any:
    if len(text) > LARGEST_JSON:
        raise InputError(
            f"{path}: the entry `{entry}` of the file's metadata has {len(text):,} characters, more than any"
            " network needs; the file is damaged."
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: the entry `{entry}` of the file's metadata is not JSON.") from None


def described(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """``alphabet`` and ``targets`` of a model's own description, checked; what is absent is left out."""
    said: dict[str, Any] = {}
    alphabet, targets = description.get("alphabet"), description.get("targets")
    if alphabet is not None:
        if not isinstance(alphabet, str) or sorted(alphabet) != sorted("ACGT"):
            raise InputError(
                f"{path} says that its bases are in the order {str(alphabet)[:60]}; write the four of them."
            )
        said["alphabet"] = alphabet
    if targets is not None:
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise InputError(f"{path} says that its targets are {str(targets)[:60]}; write a list of words.")
        said["targets"] = tuple(targets)
    return said
