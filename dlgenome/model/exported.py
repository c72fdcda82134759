"""torch.export's ``.pt2`` files: a graph of operations as JSON, and tensors as bare bytes.

`torch.export.load` is not safe on a file from a stranger: it unpickles sample inputs and some tensors,
evaluates the expressions of shapes, and compiles names and guards as Python. So it is not called here. The
JSON is read, and every node of it must be one of PyTorch's own mathematical operations, which are called one
by one.
"""

from __future__ import annotations

import json
import math
import operator
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError

DESCRIPTION = "dlgenome.json"
"""Name of the extra file in which ``dlgenome convert`` describes the model."""

_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_ATEN = re.compile(r"torch\.ops\.aten\.(?!(?:from_file|save)\b)([a-z_]\w*)\.(\w+)")
_NUMBERS: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow")
} | {"math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": math.trunc}
_PLAIN = {
    "as_int",
    "as_ints",
    "as_float",
    "as_floats",
    "as_bool",
    "as_bools",
    "as_string",
    "as_strings",
}
_ONE_NAME = {"as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"}
_NAMES = {"as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools", "as_optional_tensors"}


@dataclass(frozen=True)
class ExportedFile:
    """The network of a ``.pt2`` file, and what the file says about it."""

    module: nn.Module
    input_length: int | None
    """Length that it was exported for; None where it takes any."""
    n_outputs: int = 1
    description: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """One operation: what to call, with which arguments, and the names of what it returns."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[str | None, ...]
    is_list: bool


@dataclass(frozen=True)
class _Name:
    """Stands in a step's arguments for the value of that name."""

    name: str


class ExportedNetwork(nn.Module):
    """Calls the operations of an exported program in their order; tensors keep their paths."""

    def __init__(
        self,
        steps: Sequence[_Step],
        tensors: Mapping[str, Tensor],
        held: Mapping[str, str],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self._steps, self._inputs, self._outputs = tuple(steps), tuple(inputs), tuple(outputs)
        self._held = dict(held)
        for path, tensor in tensors.items():
            _hold(self, path, tensor)

    def forward(self, *sequences: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the program returns for its inputs."""
        if len(sequences) != len(self._inputs):
            raise TypeError(f"the program has {len(self._inputs)} inputs, not {len(sequences)}")
        values: dict[str, Any] = dict(zip(self._inputs, sequences, strict=True))
        for name, path in self._held.items():
            parent, _, leaf = path.rpartition(".")
            values[name] = getattr(self.get_submodule(parent), leaf)
        for step in self._steps:
            result = step.function(*_filled(step.arguments, values), **_filled(step.keywords, values))
            results = result if step.is_list else (result,)
            values |= {name: value for name, value in zip(step.results, results, strict=True) if name}
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found


def _hold(module: nn.Module, path: str, tensor: Tensor) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        if parent not in module._modules:
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    if tensor.is_floating_point():
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        module.register_buffer(leaf, tensor)


def _filled(item: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(item, _Name):
        return values[item.name]
    if isinstance(item, (list, tuple)):
        return type(item)(_filled(part, values) for part in item)
    return {key: _filled(part, values) for key, part in item.items()} if isinstance(item, dict) else item


def read_exported(path: Path) -> ExportedFile:
    """The network of a ``.pt2`` file; nothing in the file is unpickled, evaluated or compiled.

    Raises InputError for a damaged file and for one with parts that would have to be run, and
    UnsupportedModelError for a program that fixes its batch size or has other operations than PyTorch's own.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"The model file {path} is a damaged torch.export file, or of a form that dlgenome does not know"
            f" ({type(error).__name__}: {error}); export it again with torch 2.8 or later."
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> ExportedFile:
    root = next(name for name in archive.namelist() if name.endswith("models/model.json"))
    root = root.removesuffix("models/model.json")
    program = json.loads(archive.read(f"{root}models/model.json"))["graph_module"]
    graph, signature = program["graph"], program["signature"]
    tensors: dict[str, Tensor] = {}
    for kind in ("weights", "constants"):
        tensors |= _tensors(path, archive, f"{root}data/{kind}/", f"model_{kind}_config.json")
    held, inputs = _signature(signature["input_specs"])
    outputs = [
        spec["user_output"]["arg"]["as_tensor"]["name"]
        for spec in signature["output_specs"]
        if "user_output" in spec
    ]
    if missing := sorted(set(held.values()) - set(tensors)):
        raise ValueError(f"tensor {missing[0]} is missing")
    steps = [_step(path, node) for node in graph["nodes"]]
    module = ExportedNetwork(steps, tensors, held, inputs, outputs)
    extra = f"{root}extra/{DESCRIPTION}"
    description = json.loads(archive.read(extra)) if extra in archive.namelist() else {}
    if not isinstance(description, dict):
        raise TypeError("its description is not a JSON object")
    length = _input_length(path, graph["tensor_values"][inputs[0]]["sizes"])
    return ExportedFile(module, length, len(outputs), description)


def _tensors(path: Path, archive: zipfile.ZipFile, folder: str, config: str) -> dict[str, Tensor]:
    if folder + config not in archive.namelist():
        return {}
    found = {}
    for name, entry in json.loads(archive.read(folder + config))["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise InputError(
                f"{path} keeps {name} as a Python pickle, which can run any code when it is loaded, so it was"
                " not loaded; export the model again with plain dense tensors."
            )
        meta = entry["tensor_meta"]
        content = bytearray(archive.read(folder + entry["path_name"]))
        flat = torch.frombuffer(content, dtype=_DTYPES[meta["dtype"]]) if content else torch.zeros(0)
        sizes, strides = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
        try:
            tensor = flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        except RuntimeError as error:
            raise ValueError(f"tensor {name} is cut short") from error
        found[name] = tensor.clone()
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


def _step(path: Path, node: Mapping[str, Any]) -> _Step:
    target = node["target"]
    match = _ATEN.fullmatch(target)
    function = getattr(getattr(torch.ops.aten, match[1]), match[2]) if match else _NUMBERS.get(target)
    if function is None:
        raise UnsupportedModelError(
            f"{path} has the operation {target}, which is not one of PyTorch's own mathematical operations;"
            " give the model's weights with --architecture FILE.py:factory instead."
        )
    arguments, keywords = [], {}
    for entry in node["inputs"]:
        value = _argument(path, target, entry["arg"])
        if entry["name"] in ("training", "train") and value is True:
            raise InputError(
                f"{path} was exported in training mode ({target}); call model.eval() and export it again."
            )
        if entry.get("kind") == 2:
            keywords[entry["name"]] = value
        else:
            arguments.append(value)
    results, is_list = _results(node["outputs"])
    return _Step(function, tuple(arguments), keywords, results, is_list)


def _argument(path: Path, target: str, argument: Mapping[str, Any]) -> Any:
    ((kind, value),) = argument.items()
    if kind in _PLAIN:
        return value
    if kind in _ONE_NAME:
        return _named(value)
    if kind in _NAMES:
        return [_named(part) for part in value]
    if kind == "as_none":
        return None
    if kind == "as_scalar_type":
        return _DTYPES[value]
    if kind == "as_device":
        return torch.device("cpu")
    if kind in ("as_memory_format", "as_layout"):
        return torch.contiguous_format if kind == "as_memory_format" else torch.strided
    raise UnsupportedModelError(
        f"{path}: the operation {target} takes an argument of kind {kind.removeprefix('as_')}, which dlgenome"
        " does not read; give the model's weights with --architecture FILE.py:factory instead."
    )


def _named(value: Mapping[str, Any]) -> Any:
    """A reference to an earlier value, or the number itself."""
    value = value.get("as_tensor", value)
    for key in ("as_int", "as_float", "as_bool"):
        if key in value:
            return value[key]
    if "as_none" in value:
        return None
    return _Name(value["as_name"] if "as_name" in value else value["name"])


def _results(outputs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str | None, ...], bool]:
    if len(outputs) == 1:
        ((kind, value),) = outputs[0].items()
        if kind in _NAMES:
            return tuple(_result({"as_tensor": part}) for part in value), True
        return (_result(outputs[0]),), False
    return tuple(_result(output) for output in outputs), True


def _result(output: Mapping[str, Any]) -> str | None:
    ((kind, value),) = output.items()
    if kind == "as_none":
        return None
    return str(value["as_name"] if "as_name" in value else value["name"])


def _input_length(path: Path, sizes: Sequence[Mapping[str, Any]]) -> int | None:
    if "as_int" in sizes[0]:
        raise UnsupportedModelError(
            f"{path} was exported for a fixed batch of {sizes[0]['as_int']} sequences; export it again with"
            " dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)."
        )
    lengths = [size["as_int"] for size in sizes[1:] if size.get("as_int", 4) not in (1, 4)]
    return lengths[0] if len(lengths) == 1 else None
