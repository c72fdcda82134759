"""What no checkpoint needs, and what none may hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlgenome.errors import InputError

LONGEST_INPUT = 2**21
"""Bases; twice as many as the longest input of any published model."""
_LONGEST_NAME, _DEEPEST_NAME = 1000, 50
_ALWAYS_ALLOWED = 64 * 2**20
_LARGEST_RATIO = 20
"""Tensors may share their numbers, but not so many times over."""
_MOST_VALUES = 10_000
_LONGEST_LIST = 1000


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError for names beyond reason, for more numbers than the file can hold, and for NaN."""
    for name in tensors:
        if len(name) > _LONGEST_NAME or name.count(".") > _DEEPEST_NAME:
            raise InputError(f"{path}: a tensor has the name {name[:60]!r}..., which no network gives.")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    size = path.stat().st_size
    if claimed > _ALWAYS_ALLOWED + _LARGEST_RATIO * size:
        raise InputError(
            f"{path}: its tensors claim {claimed:,} bytes in {size:,}; it is damaged, or made to fill memory."
        )
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise InputError(f"{path}: tensor {name} holds complex numbers, which cannot be explained.")
        if tensor.is_floating_point():
            _check_finite(path, name, tensor if tensor.element_size() > 1 else tensor.float())


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    finite = torch.isfinite(tensor)
    bad = tensor.numel() - int(finite.sum())
    if bad:
        raise InputError(
            f"{path}: tensor {name} has {bad} NaN or infinite values out of {tensor.numel()};"
            " the training probably diverged, use another checkpoint."
        )


def check_length(path: Path, length: int | None) -> None:
    """Raise InputError for an input length that no model has."""
    if length is not None and not 0 < length <= LONGEST_INPUT:
        raise InputError(f"{path} says that its input has {length:,} bases; it is damaged.")


def is_plain(value: Any) -> bool:
    """Whether this is a number, a word, or a list or dictionary of them, and not too many.

    Settings of a pickle may hold themselves, or the same list again and again.
    """
    waiting = [value]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return True
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, Mapping):
            if not all(isinstance(key, str) for key in item):
                return False
            waiting += item.values()
        elif not isinstance(item, (bool, int, float, str)):
            return False
    return False


def has_long_list(arguments: Mapping[str, object]) -> bool:
    """Whether an argument of an architecture has more entries than any network has layers."""
    parts = [part for value in arguments.values() for part in (_values(value))]
    return any(isinstance(part, (list, tuple, str)) and len(part) > _LONGEST_LIST for part in parts)


def _values(value: object) -> list[object]:
    return [value, *value.values()] if isinstance(value, Mapping) else [value]
