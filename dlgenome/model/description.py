"""The facts that ``dlgenome inspect`` shows of a model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.outputs import OutputFact, find_outputs, flatten_outputs, run_once
from dlgenome.model.reach import Reach, measure_reach
from dlgenome.model.targets import suggest_targets


@dataclass(frozen=True)
class LayerFact:
    """One module of the model that holds no other modules."""

    path: str
    class_name: str
    n_parameters: int
    output_shape: tuple[int, ...] | None
    """Without the batch axis, of the first call; None where the module is never called itself."""
    n_calls: int


@dataclass(frozen=True)
class ModelDescription:
    """Layers in the order of the file, outputs, and the targets that they offer."""

    input_length: int
    layers: tuple[LayerFact, ...]
    outputs: tuple[OutputFact, ...]
    output_names: tuple[str, ...]
    targets: tuple[str, ...]
    reaches: tuple[Reach | None, ...] = ()
    """What each output sees of the input."""


def describe(loaded: LoadedModel, input_length: int | None = None) -> ModelDescription:
    """Everything about the model that running it shows; the loaded module stays untouched."""
    length = loaded.length(input_length)
    outputs = find_outputs(loaded.module, length, model_length=loaded.input_length)
    return ModelDescription(
        input_length=length,
        layers=tuple(layers(loaded, length)),
        outputs=tuple(outputs),
        output_names=loaded.outputs,
        targets=loaded.targets or suggest_targets(outputs),
        reaches=measure_reach(loaded.module, length),
    )


def layers(loaded: LoadedModel, input_length: int | None = None) -> list[LayerFact]:
    """Path, class, parameters and output shape of every innermost module, found on a copy."""
    length = loaded.length(input_length)
    module = copy.deepcopy(loaded.module)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    innermost = {
        name: layer for name, layer in module.named_modules() if not any(True for _ in layer.children())
    }
    for name, layer in innermost.items():
        seen = shapes.setdefault(name, [])
        if not isinstance(layer, torch.jit.ScriptModule):  # these take no hooks
            layer.register_forward_hook(_recorder(seen))
    run_once(module, length, model_length=loaded.input_length)
    return [
        LayerFact(
            path=name.removeprefix(loaded.root).lstrip(".") or "(the model)",
            class_name=str(getattr(layer, "original_name", type(layer).__name__)),
            n_parameters=sum(parameter.numel() for parameter in layer.parameters()),
            output_shape=shapes[name][0] if shapes[name] else None,
            n_calls=len(shapes[name]),
        )
        for name, layer in innermost.items()
    ]


def _recorder(shapes: list[tuple[int, ...]]) -> Any:
    def record(_layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        while isinstance(output, (tuple, list)) and output:  # a recurrent layer also returns its state
            output = output[0]
        first = output if isinstance(output, torch.Tensor) else flatten_outputs(output)[0]
        shapes.append(tuple(first.shape[1:]))

    return record
