"""What the loader needs to know about an architecture that has a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
"""A state_dict: tensors by the path of the parameter or buffer they belong to."""

Arguments = dict[str, object]
"""Keyword arguments of an architecture; only values that JSON can hold."""


@dataclass(frozen=True)
class Architecture:
    """A network with a name, and how to read its arguments off a state_dict."""

    name: str
    outputs: tuple[str, ...]
    """Names of what ``forward`` returns, in order."""
    build: Callable[..., nn.Module]
    infer: Callable[[Tensors], Arguments]
    """Arguments that the tensor shapes settle; the builder's defaults stand for the rest."""
    recognises: Callable[[Tensors], bool]
    """True for a state_dict that can belong to no other known architecture."""


def shape_of(tensors: Tensors, key: str, dimensions: int) -> tuple[int, ...] | None:
    """Shape of a tensor, or None when it is absent or has another number of dimensions."""
    tensor = tensors.get(key)
    if tensor is None or tensor.dim() != dimensions:
        return None
    return tuple(tensor.shape)
