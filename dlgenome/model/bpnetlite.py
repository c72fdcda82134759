"""bpnet-lite's whole-module files: from recorded objects to a named architecture and its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlgenome.errors import InputError
from dlgenome.model.architectures import bpnet
from dlgenome.model.architectures.definition import Arguments, Tensors
from dlgenome.model.pickle_machine import Recorded

_DEEPEST = 20
_MOST_MODULES = 10_000
_WRAPPERS = ("ControlWrapper", "CountWrapper", "ProfileWrapper")


@dataclass(frozen=True)
class BpnetLiteModel:
    """What a bpnet-lite file says: which architecture, built how, and its tensors."""

    architecture: str
    arguments: Arguments
    tensors: Tensors


def read_bpnetlite(path: Path, root: Recorded) -> BpnetLiteModel:
    """The model that a bpnet-lite pickle holds; wrappers around it are left off.

    Raises InputError where the file departs from the architecture that bpnet-lite gives it.
    """
    root = _unwrap(root)
    _refuse_tangle(path, root)
    if root.class_name in ("BPNet", "BasePairNet"):
        tensors = dict(_tensors(root))
        return BpnetLiteModel(root.class_name.lower(), _bpnet_arguments(path, root, tensors), tensors)
    if root.class_name != "ChromBPNet":
        raise InputError(
            f"{path} holds a {root.origin}; of bpnet-lite's models"
            " BPNet, BasePairNet and ChromBPNet are read."
        )
    arguments: Arguments = {}
    all_tensors: dict[str, Tensor] = {}
    for part in ("bias", "accessibility"):
        child = _modules(root).get(part)
        if not isinstance(child, Recorded) or (child := _unwrap(child)).class_name != "BPNet":
            raise InputError(
                f"{path} holds a ChromBPNet whose {part} model is not a BPNet; it cannot be read."
            )
        tensors = dict(_tensors(child))
        arguments[part] = _bpnet_arguments(path, child, tensors)
        all_tensors |= {f"{part}.{key}": tensor for key, tensor in tensors.items()}
    return BpnetLiteModel("chrombpnet", arguments, all_tensors)


def _unwrap(node: Recorded) -> Recorded:
    for _ in range(_DEEPEST):
        if node.class_name in _WRAPPERS and isinstance(inner := _modules(node).get("model"), Recorded):
            node = inner
    return node


def _modules(node: Recorded) -> Mapping[str, Any]:
    return _group(node, "_modules")


def _group(node: Recorded, name: str) -> Mapping[str, Any]:
    found = node.attributes.get(name)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _refuse_tangle(path: Path, root: Recorded) -> None:
    """Refuse modules that hold themselves, or share so many others that there is no end of names for them."""
    waiting, seen = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_MODULES:
            raise InputError(f"{path} holds modules without end inside each other; it cannot be read.")
        waiting += [(child, depth + 1) for child in _modules(node).values() if isinstance(child, Recorded)]


def _tensors(node: Recorded, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for group in ("_parameters", "_buffers"):
        for name, tensor in _group(node, group).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor.detach()
    for name, child in _modules(node).items():
        if isinstance(child, Recorded):
            yield from _tensors(child, f"{prefix}{name}.")


def _bpnet_arguments(path: Path, node: Recorded, tensors: Tensors) -> Arguments:
    arguments = bpnet.infer(tensors)
    trimming = node.attributes.get("trimming")
    if isinstance(trimming, int):
        arguments["trimming"] = trimming
    _check_layers(path, node, arguments)
    return arguments


def _check_layers(path: Path, node: Recorded, arguments: Arguments) -> None:
    """Weights fit many networks; what shapes do not show must be as bpnet-lite builds it."""
    with torch.device("meta"):  # layers without memory: shapes are compared later
        expected = bpnet.BPNet(**arguments)  # type: ignore[arg-type]
    for name, layer in expected.named_modules():
        found = _descendant(node, name)
        if not name or found is None:
            continue
        if found.class_name != type(layer).__name__:
            raise InputError(
                f"{path}: layer {name} is a {found.class_name} where BPNet has a {type(layer).__name__};"
                " this is not bpnet-lite's BPNet."
            )
        for setting in ("stride", "padding", "dilation", "groups", "padding_mode"):
            value, due = found.attributes.get(setting), getattr(layer, setting, None)
            if value is not None and _as_tuple(value) != _as_tuple(due):
                raise InputError(
                    f"{path}: layer {name} has {setting} {value} where BPNet has {due};"
                    " this is not bpnet-lite's BPNet."
                )


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """The numbers of a setting; what is none of plain values is told by its type alone."""
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(part if isinstance(part, int | float | str | None) else type(part) for part in parts)


def _descendant(node: Recorded, path: str) -> Recorded | None:
    found: Any = node
    for part in path.split(".") if path else ():
        found = _modules(found).get(part)
        if not isinstance(found, Recorded):
            return None
    return found if isinstance(found, Recorded) else None
