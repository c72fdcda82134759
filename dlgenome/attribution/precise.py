"""The last linear operations before the output, which are computed in float64 whatever the rest is.

A prediction is often a hundred times larger than the difference from its references that is explained, so
that rounding it to float32 alone would cost 1e-5 of the difference. From the last mean or dense layer on,
numbers are few, and float64 costs next to nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rules.base import Call, aten

_REDUCING = frozenset({aten.mean.dim, aten.sum.dim_IntList, aten.linear.default})
_PASSING = frozenset(
    {
        *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints),
        *(aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.permute.default),
        *(aten.transpose.int, aten.slice.Tensor, aten.select.int, aten.cat.default, aten.alias.default),
        *(aten.add.Tensor, aten.sub.Tensor, aten.neg.default, aten.expand.default, aten.clone.default),
    }
)


def precise_steps(program: Program) -> frozenset[str]:
    """Names of the operations whose results reach only the output, by linear operations on few values."""
    readers: dict[str, set[str]] = {}
    for step in program.steps:
        for ref in step.call.inputs:
            readers.setdefault(ref.name, set()).add(step.call.name)
    last: set[str] = set()
    for step in reversed(program.steps):
        name = step.call.name
        ends = name == program.output or readers.get(name, {""}) <= last
        if ends and (step.call.op in _REDUCING | _PASSING or _scales(step.call)):
            last.add(name)
    precise: set[str] = set()
    for step in program.steps:
        after_one = any(ref.name in precise for ref in step.call.inputs)
        if step.call.name in last and (after_one or step.call.op in _REDUCING):
            precise.add(step.call.name)
    return frozenset(precise)


def _scales(call: Call) -> bool:
    """Whether a value is multiplied or divided by a constant."""
    if call.op not in (aten.mul.Tensor, aten.div.Tensor):
        return False
    return len(call.inputs) == 1 and call.args[0] == call.inputs[0] != call.args[1]


def widened(arguments: Any) -> Any:
    """Arguments with every float32 tensor in them as float64, where the device knows it."""
    if isinstance(arguments, Tensor):
        wide = arguments.dtype is torch.float32 and arguments.device.type != "mps"
        return arguments.double() if wide else arguments
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(widened(part) for part in arguments)
    if isinstance(arguments, dict):
        return {key: widened(part) for key, part in arguments.items()}
    return arguments
