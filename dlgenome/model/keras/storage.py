"""Tensors out of HDF5, with every claim of the file checked before memory is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dlgenome.errors import InputError, first_line

_SMALLEST_COMPRESSION = 1 / 20
"""Compressed weights that claim to shrink further than this are taken for a trap."""
_ALWAYS_ALLOWED = 2**20
"""Bytes that compressed weights may claim: a bias is often all zeros."""
_LARGEST = 8 * 2**30


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever h5py raises on a damaged file, as one sentence."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"The Keras file {path} is damaged or cut short ({first_line(error)}); copy or download it again."
        ) from error


def child(group: h5py.Group, name: str) -> Any:
    """What the group has under the name; links to other files are not followed."""
    found: Any = group
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or part not in found:
            return None
        if isinstance(found.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{part} is a link to another file")
        found = found[part]
    return found


def read_tensor(path: Path, dataset: Any) -> Tensor:
    """The dataset's numbers, once their size is known to be what the file really holds."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ValueError(f"{getattr(dataset, 'name', 'an entry')} holds no array of numbers")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} keeps its numbers in another file")
    stored, claimed = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    compressed = dataset.id.get_create_plist().get_nfilters() > 0
    needed = (claimed - _ALWAYS_ALLOWED) * _SMALLEST_COMPRESSION if compressed else claimed
    if claimed > _LARGEST or stored < needed:
        raise InputError(
            f"{path}: {dataset.name} claims {claimed:,} bytes but the file holds {stored:,} of them;"
            " it is damaged or not made by Keras."
        )
    values = np.asarray(dataset[()])
    values = values.astype(np.float64) if values.dtype.kind in "iu" else values
    return torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))


def text_attribute(group: h5py.Group, name: str) -> str | None:
    """A string attribute, or None."""
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value if isinstance(value, str) else None


def text_list(group: h5py.Group, name: str) -> list[str]:
    """A list of strings, which Keras cuts into numbered attributes when it is long."""
    numbered = (f"{name}{number}" for number in count())
    chunks = [name] if name in group.attrs else takewhile(lambda chunk: chunk in group.attrs, numbered)
    return [
        value.decode("utf-8") if isinstance(value, bytes) else str(value)
        for chunk in chunks
        for value in np.atleast_1d(group.attrs[chunk])
    ]
