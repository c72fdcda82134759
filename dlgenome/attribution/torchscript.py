"""TorchScript made into ordinary modules, which torch.export can capture; experimental.

torch's own converter writes a TorchScript graph as a graph of torch calls. It needs inputs of every part that
it converts, so the model is run once with a recorder in each part's place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._export.converter import TS2EPConverter

NOTE = "the model's TorchScript was converted (experimental); its operations have no source lines"


class _Recorder(nn.Module):
    """Calls a TorchScript module and remembers its inputs."""

    def __init__(self, script: Any) -> None:
        super().__init__()
        self.script = script
        self.inputs: tuple[Any, ...] = ()

    def forward(self, *inputs: Any) -> Any:
        self.inputs = inputs
        return self.script(*inputs)


def is_torchscript(module: nn.Module) -> bool:
    """Whether any part of a module is TorchScript."""
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def converted(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the module, in prediction mode, whose TorchScript parts are ordinary modules.

    Raises what torch's converter raises where a part has control flow or operations that it does not know.
    """
    holder = nn.Sequential(copy.deepcopy(module))
    recorders: list[_Recorder] = []

    def record(script: Any) -> nn.Module:
        recorders.append(_Recorder(script))
        return recorders[-1]

    _replace(holder, torch.jit.ScriptModule, record)
    holder(example)
    _replace(holder, _Recorder, lambda part: TS2EPConverter(part.script, part.inputs).convert().module())
    return holder[0]


def _replace(module: nn.Module, kind: type, make: Callable[[Any], nn.Module]) -> None:
    """Put ``make(part)`` in the place of every outermost part of a kind."""
    for name, part in list(module.named_children()):
        if isinstance(part, kind):
            module._modules[name] = make(part)
        else:
            _replace(part, kind, make)
