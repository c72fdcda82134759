"""From the description of a Keras model and its weights to a module."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError, first_line
from dlgenome.model.keras.activations import LINK_FUNCTIONS, Activation, Softmax
from dlgenome.model.keras.kinds import build_activation, find_kind, has_known_activation
from dlgenome.model.keras.module import KerasModel, Step, sequence_axes
from dlgenome.model.keras.topology import NONSENSE, Call, Config, Layer, Topology, read_topology
from dlgenome.model.keras.weights import Weights

_LARGEST_VALUE = 2**31
_LONGEST_REASON = 150
_LONGEST_NAMES = 400  # a published model has 25 layers that hold code
_LONGEST_LIST = 700


@dataclass(frozen=True)
class AssembledKeras:
    """A module, the tensors that went into it, and what the user should know."""

    module: KerasModel
    tensors: dict[str, Tensor]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    """Names of all layers, each under the names of the models around it."""


def assemble_keras(path: Path, model: Config, weights: Weights, keras_major: int) -> AssembledKeras:
    """The module of a model's JSON with the weights in it.

    Raises UnsupportedModelError that names every layer that cannot be read, InputError where description
    and weights do not fit each other.
    """
    try:
        topology = read_topology(model)
    except NONSENSE as error:
        raise InputError(
            f"The description of the Keras model in {path} makes no sense ({_short(error)});"
            " save the model again."
        ) from error
    _refuse_unknown(path, topology.calls)
    module = KerasModel(topology.inputs)
    tensors = _add_layers(path, module, topology, weights, keras_major)
    notes = [*_left_off(module, topology), *_input_notes(module), *_sum_notes(topology)]
    shapes = _check_shapes(path, module.eval())
    names = topology.output_names
    if _is_profile_and_counts(names, shapes):
        module.profile_first = len(shapes[0]) == 2
        names = ["profile", "counts"]
    layers = tuple(call.layer.place.names for call in topology.calls)
    return AssembledKeras(module, tensors, tuple(names), tuple(notes), layers)


def _refuse_unknown(path: Path, calls: Iterable[Call]) -> None:
    """Name every layer that cannot be read, by class."""
    unknown: dict[str, dict[str, None]] = {}
    for call in calls:
        if reason := _why_unknown(call.layer):
            unknown.setdefault(reason, {})[call.layer.place.text] = None
    if unknown:
        lists = "; ".join(
            f"{_cut(reason, _LONGEST_REASON)}: {_cut(', '.join(names), _LONGEST_NAMES)}"
            for reason, names in unknown.items()
        )
        raise UnsupportedModelError(
            f"{path} has Keras layers that dlgenome cannot rebuild ({_cut(lists, _LONGEST_LIST)});"
            " build the model in PyTorch with code of your own and give that with --architecture."
        )


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _why_unknown(layer: Layer) -> str | None:
    if find_kind(layer) is None:
        stored = "Lambda, stored code that is never run"
        return stored if layer.class_name == "Lambda" else layer.class_name
    activation = layer.config.get("activation")
    return None if has_known_activation(layer.config) else f"{layer.class_name} with activation {activation}"


def _add_layers(
    path: Path, module: KerasModel, topology: Topology, weights: Weights, keras_major: int
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    built: dict[tuple[str, ...], list[str]] = {}
    steps: list[Step] = []
    for call in topology.calls:
        layer = call.layer
        if layer.place.names not in built:
            kind = find_kind(layer)
            assert kind is not None
            try:
                parts = weights.of(layer.place, kind.tensors(layer.config))
                made = [kind.build(layer.config, parts), build_activation(layer.config, keras_major)]
            except NONSENSE as error:
                raise InputError(
                    f"{path}: layer {layer.place.text} ({layer.class_name}) is described in a way that makes"
                    f" no sense ({_short(error)})."
                ) from error
            tensors |= {f"{layer.place.text}/{name}": value for name, value in parts.items()}
            wanted = made[1:] if layer.class_name == "Activation" and made[1] is not None else made
            built[layer.place.names] = _register(module, layer.place.names, wanted)
        steps += _steps(call, built[layer.place.names], topology)
    module.steps, module.outputs = tuple(steps), tuple(topology.outputs)
    return tensors


def _steps(call: Call, paths: list[str], topology: Topology) -> list[Step]:
    """The layer, and its activation where it has one."""
    if len(paths) == 1:
        return [Step(paths[0], call.inputs, call.output)]
    between = topology.new_value()
    return [Step(paths[0], call.inputs, between), Step(paths[1], (between,), call.output)]


def _register(module: nn.Module, names: tuple[str, ...], made: list[nn.Module | None]) -> list[str]:
    """Paths of the new modules, which stand under the layer's name."""
    parent, folders = module, list[str]()
    for name in names[:-1]:
        folder = _safe(name)
        if folder not in parent._modules:
            folder = _free(parent, folder)
            parent.add_module(folder, nn.Module())
        folders.append(folder)
        parent = parent.get_submodule(folder)
    paths = []
    for part, ending in zip(made, ("", "_activation"), strict=False):
        if part is not None:
            name = _free(parent, _safe(names[-1]) + ending)
            parent.add_module(name, part)
            paths.append(".".join((*folders, name)))
    return paths


def _safe(name: str) -> str:
    return name.replace(".", "_").replace("/", "_") or "layer"


def _free(parent: nn.Module, name: str) -> str:
    """The name, with underscores where torch uses it itself."""
    while hasattr(parent, name):
        name += "_"
    return name


def _left_off(module: KerasModel, topology: Topology) -> list[str]:
    """Outputs moved in front of a last sigmoid or softmax, one note each."""
    makers = {step.output: step for step in module.steps}
    notes, outputs = [], []
    for name, output in zip(topology.output_names, module.outputs, strict=True):
        step = makers.get(output)
        function = _link_function(module.get_submodule(step.path)) if step else None
        if step and function:
            output = step.inputs[0]
            notes.append(f"output {name}: the logits, without the {function} at the end")
        outputs.append(output)
    module.outputs = tuple(outputs)
    needed = set(outputs)
    for step in reversed(module.steps):
        needed |= set(step.inputs) if step.output in needed else set()
    module.steps = tuple(step for step in module.steps if step.output in needed)
    return notes


def _link_function(layer: nn.Module) -> str | None:
    if isinstance(layer, Softmax):
        return "softmax"
    name = layer.name if isinstance(layer, Activation) else None
    return name if name in LINK_FUNCTIONS else None


def _input_notes(module: KerasModel) -> list[str]:
    names = [f"{entry.name} {entry.shape}" for entry in module.inputs[1:]]
    return [f"further inputs, zeros unless given with --extra-input: {', '.join(names)}"] if names else []


def _sum_notes(topology: Topology) -> list[str]:
    lambdas = [call.layer for call in topology.calls if call.layer.class_name == "Lambda"]
    names = dict.fromkeys(layer.place.text for layer in lambdas)
    return [f"Lambda layer {name}: taken as the log of summed counts; its code is not run" for name in names]


def _check_shapes(path: Path, module: KerasModel) -> list[tuple[int, ...]]:
    """Output shapes for one item; InputError that names the layer where something does not fit.

    Nothing is computed: the tensors have shapes but no memory. Empty where the file leaves a size open.
    """
    first = module.inputs[0]
    if any(None in entry.shape for entry in module.inputs):
        return []
    axes = sequence_axes(first.shape)
    shape: Any = first.shape if axes is None else (4, first.shape[axes.index("length")])
    hollow = copy.deepcopy(module).to("meta")
    reached = ["the input"]
    for name, layer in hollow.named_modules():
        if name:
            layer.register_forward_pre_hook(_recorder(reached, name))
            layer.register_forward_hook(_refuse_huge(path, name))
    try:
        with torch.no_grad():
            value = hollow(torch.zeros(1, *shape, device="meta"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: layer {reached[-1]} does not fit what it is given ({_short(error)});"
            " weights and description do not belong together."
        ) from error
    return [tuple(part.shape) for part in (value if isinstance(value, tuple) else (value,))]


def _recorder(reached: list[str], name: str) -> Any:
    return lambda _layer, _inputs: reached.append(name)


def _refuse_huge(path: Path, name: str) -> Any:
    def check(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        if output.numel() > _LARGEST_VALUE:
            raise InputError(
                f"{path}: layer {name} makes {output.numel():,} numbers of one sequence; the file is damaged."
            )

    return check


def _is_profile_and_counts(names: list[str], shapes: list[tuple[int, ...]]) -> bool:
    """Whether these are the two heads of BPNet and its relatives, told by their layers' names."""
    if len(shapes) != 2 or shapes[1] != (1, 1) or len(shapes[0]) not in (2, 3):
        return False
    return ("profile" in names[0] or names[0].startswith("logits")) and "count" in names[1]


def _short(error: Exception) -> str:
    said = first_line(error)
    return said if said == type(error).__name__ else f"{type(error).__name__}: {said}"
