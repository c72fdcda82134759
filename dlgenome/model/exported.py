"""torch.export's ``.pt2`` files: a graph of operations as JSON, and tensors as bare bytes.

`torch.export.load` is not safe on a file from a stranger: it unpickles sample inputs and some tensors,
evaluates the expressions of shapes, and compiles names and guards as Python. So it is not called here. The
JSON is read, and every node of it must be one of PyTorch's own mathematical operations, which are called one
by one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.errors import DlgenomeError, InputError, UnsupportedModelError, first_line
from dlgenome.guards.archives import open_archive, read_member
from dlgenome.model.exported_network import DTYPES, ExportedNetwork, read_step
from dlgenome.model.limits import check_length, check_tensors

DESCRIPTION = "dlgenome.json"
"""Name of the extra file in which ``dlgenome convert`` describes the model."""

LARGEST_JSON = 32 * 2**20
"""Bytes of a program as text: a thousand times that of a usual network."""
_MOST_NODES = 100_000


@dataclass(frozen=True)
class ExportedFile:
    """The network of a ``.pt2`` file, and what the file says about it."""

    module: nn.Module
    input_length: int | None
    """Length that it was exported for; None where it takes any."""
    n_outputs: int = 1
    description: Mapping[str, Any] = field(default_factory=dict)


def read_exported(path: Path) -> ExportedFile:
    """The network of a ``.pt2`` file; nothing in the file is unpickled, evaluated or compiled.

    Raises InputError for a damaged file and for one with parts that would have to be run, and
    UnsupportedModelError for a program that fixes its batch size or has other operations than PyTorch's own.
    """
    with _reading(path, "torch.export file", "export it again with torch 2.8 or later"):
        with open_archive(path) as archive:
            program, tensors, description = open_exported(path, archive)
        return _build(path, program, tensors, description)


def read_program(path: Path, program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ExportedFile:
    """The network of a program whose tensors stand in another file; as harmless as `read_exported`."""
    with _reading(path, "program", "write it again with `dlgenome convert`"):
        return _build(path, program, tensors, {})


@contextmanager
def _reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except DlgenomeError:
        raise
    except Exception as error:  # any, for whatever the graph says is called
        raise InputError(
            f"The model file {path} is a damaged {what}, or of a form that is not known"
            f" ({type(error).__name__}: {first_line(error)}); {remedy}."
        ) from error


def open_exported(
    path: Path, archive: zipfile.ZipFile
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """The program as the archive's JSON has it, its tensors by path, and dlgenome's own description."""
    root = next(name for name in archive.namelist() if name.endswith("models/model.json"))
    root = root.removesuffix("models/model.json")
    program = _json(archive, f"{root}models/model.json")["graph_module"]
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        tensors |= _tensors(path, archive, f"{root}data/{kind}/", f"model_{kind}_config.json")
    extra = f"{root}extra/{DESCRIPTION}"
    description = _json(archive, extra) if extra in archive.namelist() else {}
    if not isinstance(description, dict):
        raise TypeError("its description is not a JSON object")
    return program, tensors, description


def _build(
    path: Path, program: Mapping[str, Any], tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> ExportedFile:
    graph, signature = program["graph"], program["signature"]
    held, inputs = _signature(signature["input_specs"])
    outputs = [
        spec["user_output"]["arg"]["as_tensor"]["name"]
        for spec in signature["output_specs"]
        if "user_output" in spec
    ]
    if missing := sorted(set(held.values()) - set(tensors)):
        raise ValueError(f"tensor {missing[0]} is missing")
    check_tensors(path, tensors)
    if len(graph["nodes"]) > _MOST_NODES:
        raise ValueError(f"it has {len(graph['nodes']):,} operations")
    length = _input_length(path, graph["tensor_values"][inputs[0]]["sizes"])
    check_length(path, length)
    steps = [read_step(path, node) for node in graph["nodes"]]
    module = ExportedNetwork(steps, tensors, held, inputs, outputs)
    module.refuse_huge([_example_shape(graph["tensor_values"][name]["sizes"]) for name in inputs])
    return ExportedFile(module, length, len(outputs), description)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    size = archive.getinfo(name).file_size
    if size > LARGEST_JSON:
        raise ValueError(f"{name} has {size:,} bytes")
    return json.loads(read_member(archive, name))


def _example_shape(sizes: Sequence[Mapping[str, Any]]) -> list[int]:
    """Sizes of an input; where one is left open, that of the example which the model was exported with."""
    return [int(size["as_int"] if "as_int" in size else size["as_expr"]["hint"]["as_int"]) for size in sizes]


def _tensors(path: Path, archive: zipfile.ZipFile, folder: str, config: str) -> dict[str, Tensor]:
    if folder + config not in archive.namelist():
        return {}
    found = {}
    for name, entry in _json(archive, folder + config)["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise InputError(
                f"{path} keeps {name} as a Python pickle, which can run any code when it is loaded, so it was"
                " not loaded; export the model again with plain dense tensors."
            )
        meta = entry["tensor_meta"]
        content = bytearray(read_member(archive, folder + entry["path_name"]))
        dtype = DTYPES[meta["dtype"]]
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        sizes, strides = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
        try:
            tensor = flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        except RuntimeError as error:
            raise ValueError(f"tensor {name} is cut short") from error
        found[name] = tensor
    return found


def _signature(specs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Paths of held tensors by the name that the graph has for them, and the names of the inputs."""
    held: dict[str, str] = {}
    inputs: list[str] = []
    for spec in specs:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            inputs.append(content["arg"]["as_tensor"]["name"])
            continue
        path = next(content[key] for key in content if key.endswith("_name"))
        held[content["arg"]["name"]] = path
    return held, inputs


def _input_length(path: Path, sizes: Sequence[Mapping[str, Any]]) -> int | None:
    if "as_int" in sizes[0]:
        raise UnsupportedModelError(
            f"{path} was exported for a fixed batch of {sizes[0]['as_int']} sequences; export it again with"
            " dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)."
        )
    lengths = [size["as_int"] for size in sizes[1:] if size.get("as_int", 4) not in (1, 4)]
    return lengths[0] if len(lengths) == 1 else None
