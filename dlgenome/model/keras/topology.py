"""The layers of a Keras model in the order that they run, models inside models laid out flat."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlgenome.model.keras.weights import LayerPlace

NONSENSE = (
    KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError, RuntimeError,
)  # fmt: skip
"""What comes of a description that says something else than it should."""

_MOST_CALLS = 20_000
"""A model inside a model inside a model can stand for any number of layers in a few lines."""
_DEEPEST = 20
_LARGEST_INPUT = 2**24

Config = Mapping[str, Any]
Reference = tuple[str, int, int]
"""A value inside a model: layer, which of its calls, which of its outputs."""


@dataclass(frozen=True)
class Layer:
    """A layer as the file describes it."""

    place: LayerPlace
    class_name: str
    config: Config


@dataclass(frozen=True)
class Call:
    """One use of a layer: values by number, the result takes the number ``output``."""

    layer: Layer
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class ModelInput:
    """A value that comes from outside."""

    name: str
    shape: tuple[int | None, ...]
    """Without the batch, in the order of Keras."""
    value: int


@dataclass
class Topology:
    """All calls of a model in running order."""

    inputs: list[ModelInput] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    size: int = 0
    calls_in_all: int = 0
    """Of models inside, too."""

    def new_value(self) -> int:
        """The next free number."""
        self.size += 1
        return self.size - 1


def read_topology(model: Config) -> Topology:
    """The topology of a model's JSON; one of NONSENSE where it makes no sense."""
    found = _read(model)
    if not found.inputs or not found.outputs or len(found.outputs) != len(found.output_names):
        raise ValueError(f"{len(found.inputs)} inputs and {len(found.outputs)} outputs")
    return found


def _read(model: Config) -> Topology:
    found = Topology()
    if _is_sequential(model):
        first = ModelInput("input", _sequential_shape(model), found.new_value())
        found.inputs.append(first)
        found.outputs = _sequential(found, model, (), (), [first.value])
        found.output_names = [_layers(model)[-1]["config"]["name"]]
        return found
    config = model["config"]
    layers = {_name(layer): layer for layer in config["layers"]}
    for name, _, _ in _references(config["input_layers"]):
        found.inputs.append(ModelInput(name, _input_shape(layers[name]["config"]), found.new_value()))
    found.outputs = _functional(found, model, (), (), [entry.value for entry in found.inputs])
    found.output_names = [name for name, _, _ in _references(config["output_layers"])]
    return found


def is_model(layer: Config) -> bool:
    """Whether a layer is a model of its own."""
    config = layer.get("config")
    return isinstance(config, list) or (
        isinstance(config, Mapping) and isinstance(config.get("layers"), list)
    )


def _is_sequential(model: Config) -> bool:
    return isinstance(model["config"], list) or "input_layers" not in model["config"]


def _layers(model: Config) -> Sequence[Config]:
    config = model["config"]
    layers: Sequence[Config] = config if isinstance(config, list) else config["layers"]
    if not layers:
        raise ValueError("a model without layers")
    return layers


def _name(layer: Config) -> str:
    return str(layer.get("name") or layer["config"]["name"])


def _input_shape(config: Config) -> tuple[int | None, ...]:
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if shape is None:
        raise ValueError("an input without a shape")
    sizes = tuple(None if size is None else int(size) for size in shape[1:])
    if any(size is not None and size < 1 for size in sizes) or math.prod(map(_known, sizes)) > _LARGEST_INPUT:
        raise ValueError(f"an input of the shape {sizes}")
    return sizes


def _known(size: int | None) -> int:
    return 1 if size is None else size


def _sequential_shape(model: Config) -> tuple[int | None, ...]:
    first = _layers(model)[0]
    if is_model(first) and _is_sequential(first):
        return _sequential_shape(first)
    if is_model(first):
        name = _references(first["config"]["input_layers"])[0][0]
        inner = next(layer for layer in _layers(first) if _name(layer) == name)
        return _input_shape(inner["config"])
    config = dict(first["config"])
    if not config.get("batch_shape") and not config.get("batch_input_shape"):
        outer = model["config"]
        config["batch_shape"] = outer.get("build_input_shape") if isinstance(outer, Mapping) else None
    return _input_shape(config)


def _places(
    layers: Sequence[Config], names: tuple[str, ...], slots: tuple[str, ...]
) -> Iterator[tuple[Config, LayerPlace]]:
    """Every layer with its place; slots are numbered within a class, in order."""
    seen: Counter[str] = Counter()
    for layer in layers:
        slot = _snake_case(str(layer["class_name"]))
        number = seen[slot]
        seen[slot] += 1
        slot = f"{slot}_{number}" if number else slot
        yield layer, LayerPlace((*names, _name(layer)), (*slots, slot))


def _snake_case(name: str) -> str:
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name.rpartition(">")[2]))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def _call(found: Topology, layer: Config, place: LayerPlace, inputs: list[int]) -> list[int]:
    """Values that the layer gives: one, or as many as the model inside has outputs."""
    found.calls_in_all += 1
    if found.calls_in_all > _MOST_CALLS or len(place.names) > _DEEPEST:
        raise ValueError(f"more than {_MOST_CALLS:,} layers, or models {_DEEPEST} deep inside each other")
    if is_model(layer):
        run = _sequential if _is_sequential(layer) else _functional
        return run(found, layer, place.names, place.slots, inputs)
    if not isinstance(layer["config"], Mapping) or not inputs:
        raise TypeError(f"layer {place.text} without settings or without anything to work on")
    output = found.new_value()
    found.calls.append(Call(Layer(place, str(layer["class_name"]), layer["config"]), tuple(inputs), output))
    return [output]


def _sequential(
    found: Topology, model: Config, names: tuple[str, ...], slots: tuple[str, ...], inputs: list[int]
) -> list[int]:
    values = inputs
    for layer, place in _places(_layers(model), names, slots):
        if layer["class_name"] != "InputLayer":
            values = _call(found, layer, place, values)
    return values


def _functional(
    found: Topology, model: Config, names: tuple[str, ...], slots: tuple[str, ...], inputs: list[int]
) -> list[int]:
    config, values = model["config"], dict[Reference, int]()
    entries = _references(config["input_layers"])
    if len(entries) != len(inputs):
        raise ValueError(f"{len(inputs)} values for a model with {len(entries)} inputs")
    values.update(zip(entries, inputs, strict=True))
    outputs = _references(config["output_layers"])
    nodes = list(_nodes(config, outputs, names, slots))
    lacking = {node: sum(reference not in values for reference in node.inputs) for node in nodes}
    waiting: defaultdict[Reference, list[_Node]] = defaultdict(list)
    for node in nodes:
        for reference in node.inputs:
            waiting[reference].append(node)
    ready = deque(node for node in nodes if not lacking[node])
    while ready:
        node = ready.popleft()
        del lacking[node]
        results = _call(found, node.layer, node.place, [values[reference] for reference in node.inputs])
        for number, value in enumerate(results):
            reference = _name(node.layer), node.index, number
            values[reference] = value
            for follower in waiting.pop(reference, ()):
                lacking[follower] -= 1
                ready += [] if lacking[follower] else [follower]
    if lacking:
        raise ValueError(f"layer {next(iter(lacking)).place.text} waits for values that never come")
    return [values[reference] for reference in outputs]


@dataclass(frozen=True, eq=False)
class _Node:
    layer: Config
    place: LayerPlace
    index: int
    inputs: tuple[Reference, ...]


def _nodes(
    config: Config, outputs: Sequence[Reference], names: tuple[str, ...], slots: tuple[str, ...]
) -> Iterator[_Node]:
    """Calls of layers. Calls of a model count from 1 in Keras 2, since making it was a call, too."""
    placed = list(_places(config["layers"], names, slots))
    inputs = {id(layer): [_sources(node) for node in layer["inbound_nodes"]] for layer, _ in placed}
    highest: Counter[str] = Counter()
    for name, index, _ in [
        *outputs,
        *(source for calls in inputs.values() for call in calls for source in call),
    ]:
        highest[name] = max(highest[name], index)
    for layer, place in placed:
        calls = inputs[id(layer)]
        first = 1 if is_model(layer) and highest[_name(layer)] >= len(calls) else 0
        for index, sources in enumerate(calls):
            yield _Node(layer, place, index + first, sources)


def _sources(node: Any) -> tuple[Reference, ...]:
    """Values that one call takes, as Keras 2 or Keras 3 writes them."""
    if isinstance(node, Mapping):
        return tuple(_keras_tensors([node.get("args", ()), node.get("kwargs", {})]))
    if node and isinstance(node[0], str):
        node = [node]
    return tuple((str(entry[0]), int(entry[1]), int(entry[2])) for entry in node)


def _keras_tensors(value: Any) -> Iterator[Reference]:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            name, index, number = value["config"]["keras_history"]
            yield str(name), int(index), int(number)
            return
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _keras_tensors(part)


def _references(value: Any) -> list[Reference]:
    """Values in order, from a list, a nested list, a dictionary or one value alone."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if len(value) == 3 and isinstance(value[0], str):
        return [(value[0], int(value[1]), int(value[2]))]
    return [reference for part in value for reference in _references(part)]
