"""Keras files: .h5 of Keras 2 and 3, .keras, and weights alone with the model's JSON beside them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from torch import Tensor, nn

from dlgenome.errors import InputError, UsageError, first_line
from dlgenome.guards.archives import open_archive, read_member
from dlgenome.guards.hdf5 import check_hdf5
from dlgenome.model.keras.assemble import assemble_keras
from dlgenome.model.keras.families import name_family, rebuild_description
from dlgenome.model.keras.module import input_length, sequence_axes
from dlgenome.model.keras.storage import child, reading, text_attribute
from dlgenome.model.keras.weights import Weights

_LARGEST_JSON = 64 * 2**20
_LARGEST_WEIGHTS = 8 * 2**30
_SHRINKS_TO = 1 / 200


@dataclass(frozen=True)
class KerasFile:
    """A Keras model and what its file says about it."""

    module: nn.Module
    """Takes (batch, 4, length); see :class:`dlgenome.model.keras.module.KerasModel`."""
    tensors: Mapping[str, Tensor]
    """Every tensor that was read, by layer and name."""
    title: str
    """What the model is, in words."""
    input_length: int | None
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    takes: str = ""
    """What the model takes where that is no DNA sequence."""


@dataclass(frozen=True)
class _Opened:
    root: h5py.Group
    description: str | None
    version: str


def read_keras(
    path: Path, *, description: Path | None = None, arguments: Mapping[str, object] | None = None
) -> KerasFile:
    """The model of a Keras file; ``description`` is the model's JSON for weights alone.

    ``arguments`` (input_length, output_length) are for weights alone of ChromBPNet, chrombpnet-lite and
    BPNet, whose layers need no JSON. Raises InputError, UnsupportedModelError or UsageError.
    """
    with _open(path) as opened:
        with reading(path):
            weights = Weights(path, opened.root)
        text = opened.description if description is None else _read_text(description)
        source = path if description is None else description
        if text is not None and arguments:
            raise UsageError(
                f"--architecture-args: {source} describes its layers itself; leave the arguments out."
            )
        if text is not None:
            model = _parse(source, text)
        else:
            model = rebuild_description(path, weights, arguments or {})
        version = str(model.get("keras_version") or opened.version)
        if version.startswith(("0.", "1.")):
            raise InputError(
                f"{path} was written by Keras {version}; load and save it again with Keras 2 or 3."
            )
        found = assemble_keras(path, model, weights, 2 if version.startswith("2") else 3)
    first = found.module.inputs[0].shape
    return KerasFile(
        module=found.module,
        tensors=found.tensors,
        title=name_family(found.layers),
        input_length=input_length(first),
        outputs=found.outputs,
        notes=found.notes,
        takes="" if sequence_axes(first) else f"values of shape {' x '.join(str(n or 'any') for n in first)}",
    )


@contextmanager
def _open(path: Path) -> Iterator[_Opened]:
    with path.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    if is_archive:
        with _open_archive(path) as opened:
            yield opened
        return
    check_hdf5(path)
    with reading(path):
        stream = h5py.File(path, "r", locking="best-effort")
    with stream:
        with reading(path):
            group = child(stream, "model_weights")
            root = group if isinstance(group, h5py.Group) else stream
            text = text_attribute(stream, "model_config")
            version = text_attribute(stream, "keras_version") or text_attribute(root, "keras_version")
        # files of weights alone name their version only in the old layout
        old = "layer_names" in root.attrs or "layer_names0" in root.attrs
        yield _Opened(root, text, version or ("2" if old else "3"))


@contextmanager
def _open_archive(path: Path) -> Iterator[_Opened]:
    with open_archive(path) as archive:
        text = _as_text(path, _member(path, archive, "config.json", _LARGEST_JSON))
        has_metadata = "metadata.json" in archive.namelist()
        metadata = _member(path, archive, "metadata.json", _LARGEST_JSON) if has_metadata else b"{}"
        data = _member(path, archive, "model.weights.h5", _LARGEST_WEIGHTS)
        version = str(_parse(path, _as_text(path, metadata)).get("keras_version", "3"))
    check_hdf5(path, member="model.weights.h5", size=len(data))
    with reading(path):
        stream = h5py.File(io.BytesIO(data), "r")
    with stream:
        yield _Opened(stream, text, version)


def _member(path: Path, archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """A file of the archive, once its size is known to be believable."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{path} is not a whole Keras file: it holds no {name}.") from None
    if info.file_size > largest or info.compress_size < info.file_size * _SHRINKS_TO:
        raise InputError(
            f"{path}: {name} claims {info.file_size:,} bytes out of {info.compress_size:,};"
            " the file is damaged or not made by Keras."
        )
    return read_member(archive, name)


def _as_text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: the description of the Keras model is no text ({first_line(error)})."
        ) from error


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise InputError(f"--architecture {path}: too large for a model's JSON.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"--architecture {path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--architecture {path}: the file cannot be read ({first_line(error)}).") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: the description of the Keras model is not JSON ({first_line(error)})."
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: the description of the Keras model is not a JSON object.")
    return value
