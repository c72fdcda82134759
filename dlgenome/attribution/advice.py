"""What to write instead of operations that have no exact rule."""

from __future__ import annotations

import inspect
from typing import Any

_INSTEAD: dict[str, str] = {
    "argmax": "an index carries no contribution; use a softmax or a maximum",
    "argmin": "an index carries no contribution; use a softmax or a minimum",
    "bernoulli": "leave random numbers out of the forward pass at prediction time",
    "cond": "a branch on the sequence has no exact rule; write it with relu, clamp, maximum or a product",
    "cumprod": "write it as the exponential of a cumulative sum of logarithms, where values are positive",
    "embedding": "multiply the one-hot sequence with the embedding matrix instead of looking rows up",
    "max": "name the axes, as in x.amax(dim=(1, 2))",
    "mean": "name the axes, as in x.mean(dim=(1, 2))",
    "min": "name the axes, as in x.amin(dim=(1, 2))",
    "prod": "write it as the exponential of a sum of logarithms, where values are positive",
    "rand_like": "leave random numbers out of the forward pass at prediction time",
    "randn_like": "leave random numbers out of the forward pass at prediction time",
    "sort": "use a maximum, or a softmax that weights the values",
    "sum": "name the axes, as in x.sum(dim=(1, 2))",
    "vmap": "write the operation for the whole batch at once, by broadcasting",
    "topk": "use a maximum, or a softmax that weights the values",
}
_GENERAL = "write it with operations that have rules (docs/operations.md), or give it one with --plugin"


def operation_name(operation: Any) -> str:
    """How a user knows an operation; torch writes functions of its own, as in vmap, with their addresses."""
    if not inspect.isroutine(operation):
        return str(operation)
    return "torch.vmap" if operation.__name__.endswith("_batch_dim") else str(operation.__name__)


def instead_of(operation: str) -> str:
    """A sentence on what to write instead of ``aten.<operation>...``."""
    name = operation.split(".")[1] if "." in operation else operation
    return _INSTEAD.get(name, _GENERAL)
