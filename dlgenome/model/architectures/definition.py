"""What the loader needs to know about an architecture that has a name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
"""A state_dict: tensors by the path of the parameter or buffer they belong to."""

Arguments = dict[str, object]
"""Keyword arguments of an architecture; only values that JSON can hold."""


def as_published(tensors: Tensors) -> Tensors:
    """The tensors as they are: for architectures whose own names are the published ones."""
    return tensors


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
    translate: Callable[[Tensors], Tensors] = as_published
    """The same tensors under the architecture's own names, where others published them under theirs."""
    title: str = ""
    """What the network is, in words a biologist knows."""
    alphabet: str = "ACGT"
    """Order of the bases that the published weights were trained on."""
    notes: tuple[str, ...] = ()
    """What to know where the architecture was recognised by its weights alone."""


def shape_of(tensors: Tensors, key: str, dimensions: int) -> tuple[int, ...] | None:
    """Shape of a tensor, or None when it is absent or has another number of dimensions."""
    tensor = tensors.get(key)
    if tensor is None or tensor.dim() != dimensions:
        return None
    return tuple(tensor.shape)


def renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """The tensors with the published module paths in ``names`` replaced by ours.

    A state_dict that holds any other path, or none of these, is returned as it is.
    """
    published = sorted(names, key=len, reverse=True)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path = next((path for path in published if key == path or key.startswith(f"{path}.")), None)
        if path is None:
            return tensors
        found[names[path] + key.removeprefix(path)] = tensor
    return found


def fits(build: Callable[..., nn.Module], arguments: Arguments, tensors: Tensors) -> bool:
    """Whether the network of these arguments has exactly these tensors, by name and shape."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without a single weight, which then do not fit
            expected = build(**arguments).state_dict()
    except Exception:  # whatever odd shapes lead to: an index, a division, an overflow
        return False
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    if set(expected) - counters != set(tensors) - counters:
        return False
    return all(expected[key].shape == tensors[key].shape for key in tensors if key not in counters)
