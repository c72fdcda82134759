"""The program of a ``.pt2`` file: PyTorch's own mathematical operations, called one by one.

What a file may call is a list of what is known to be harmless. PyTorch also has operations that read and
write files, others that work on words and lists, and internal ones that trust their arguments.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dlgenome.errors import InputError, UnsupportedModelError

DTYPES = {
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
"""Types of numbers by the number that the file has for them."""

_ATEN = re.compile(r"torch\.ops\.aten\.([a-z_]\w*)\.(\w+)")
_REFUSED = {
    "as_strided_", "from_file", "pin_memory", "record_stream", "resize", "resize_", "resize_as", "resize_as_",
    "save", "set", "set_", "to_mkldnn",
}  # fmt: skip
"""Operations that read files, or lay hands on the memory of a tensor."""
_INTERNAL = {
    "_adaptive_avg_pool2d", "_assert_tensor_metadata", "_convolution", "_log_softmax",
    "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_safe_softmax",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu", "_softmax",
    "_to_copy", "_trilinear", "_unsafe_view", "_upsample_nearest_exact1d", "_weight_norm",
    "_weight_norm_interface",
}  # fmt: skip
"""Internal operations that models come down to; others may crash on arguments of a stranger."""
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg")
_LARGEST_NUMBER = 2**62
_LARGEST_VALUE = 2**31
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
class Step:
    """One operation: what to call, with which arguments, and the names of what it returns."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[str | None, ...]
    is_list: bool

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What it returns for these values, by name."""
        result = self.function(*_filled(self.arguments, values), **_filled(self.keywords, values))
        results = result if self.is_list else (result,)
        return {name: value for name, value in zip(self.results, results, strict=True) if name}


@dataclass(frozen=True)
class _Name:
    """Stands in a step's arguments for the value of that name."""

    name: str


class ExportedNetwork(nn.Module):
    """Calls the operations of an exported program in their order; tensors keep their paths."""

    def __init__(
        self,
        steps: Sequence[Step],
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
        values = self._start(sequences)
        for step in self._steps:
            values |= step.run(values)
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found

    def refuse_huge(self, shapes: Sequence[Sequence[int]]) -> None:
        """Raise ValueError where a value of the program has more numbers than any model needs.

        The program runs on inputs of these shapes, all of them and its tensors without memory; raises
        whatever comes of it where it does not run.
        """
        with FakeTensorMode() as fake:
            values = self._start([torch.zeros(*shape) for shape in shapes])
            values |= {name: fake.from_tensor(values[name]) for name in self._held}
            for step in self._steps:
                made = step.run(values)
                for name, value in made.items():
                    if isinstance(value, Tensor) and value.numel() > _LARGEST_VALUE:
                        raise ValueError(f"its value {name} has {value.numel():,} numbers")
                values |= made

    def _start(self, sequences: Sequence[Tensor]) -> dict[str, Any]:
        """The values that there are before the first step."""
        if len(sequences) != len(self._inputs):
            raise TypeError(f"the program has {len(self._inputs)} inputs, not {len(sequences)}")
        values: dict[str, Any] = dict(zip(self._inputs, sequences, strict=True))
        for name, path in self._held.items():
            parent, _, leaf = path.rpartition(".")
            values[name] = getattr(self.get_submodule(parent), leaf)
        return values


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


def _operation(target: str) -> Callable[..., Any] | None:
    """What a node of the graph calls; None where that may do other things than mathematics."""
    match = _ATEN.fullmatch(target)
    if match is None:
        return _NUMBERS.get(target)
    name, overload = match.groups()
    if name in _REFUSED or (name.startswith("_") and name not in _INTERNAL):
        return None
    function = getattr(getattr(torch.ops.aten, name), overload)
    if not isinstance(function, torch._ops.OpOverload):
        return None
    returned = {str(result.type) for result in function._schema.returns}
    return function if name.startswith("sym_") or returned <= {"Tensor", "List[Tensor]"} else None


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of numbers alone: words and lists can be multiplied until the memory is full."""

    def checked(*arguments: Any) -> Any:
        if not all(isinstance(argument, _KINDS_OF_NUMBER) for argument in arguments):
            raise TypeError("it computes sizes of something else than numbers")
        result = function(*arguments)
        if isinstance(result, int | float) and abs(result) > _LARGEST_NUMBER:
            raise ValueError("it computes a size beyond any memory")
        return result

    return checked


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int) and abs(exponent) > 62:
        raise ValueError("it computes a size beyond any memory")
    return base**exponent


def _item(values: Any, place: Any) -> Any:
    if not isinstance(values, (list, tuple)):
        raise TypeError("it takes an item of something else than a list")
    return values[place]


_KINDS_OF_NUMBER = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
_NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": _on_numbers(getattr(operator, name)) for name in _ARITHMETIC},
    **{f"math.{name}": _on_numbers(getattr(math, name)) for name in ("ceil", "floor", "trunc")},
    "_operator.pow": _on_numbers(_power),
    "_operator.getitem": _item,
}


def read_step(path: Path, node: Mapping[str, Any]) -> Step:
    target = node["target"]
    function = _operation(target)
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
    return Step(function, tuple(arguments), keywords, results, is_list)


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
        return DTYPES[value]
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
