"""Which tensors of a Keras file belong to which layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
from torch import Tensor

from dlgenome.errors import InputError
from dlgenome.model.keras.storage import child, read_tensor, reading, text_list


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer stands: its name in the model, under the names of the models around it."""

    names: tuple[str, ...]
    slots: tuple[str, ...]
    """Class names with numbers, which newer files use instead of the layers' names."""

    @property
    def text(self) -> str:
        """The names with a slash between them."""
        return "/".join(self.names)


_ALWAYS_ALLOWED = 256 * 2**20
"""Bytes of weights that may be taken from any file."""
_LARGEST_RATIO = 20
"""And beyond that, how many times the whole file: one array may have many names."""


class Weights:
    """Tensors by layer. ``root`` is the open file, or its group ``model_weights``."""

    def __init__(self, path: Path, root: h5py.Group) -> None:
        self.path, self.root = path, root
        self._left = _ALWAYS_ALLOWED + _LARGEST_RATIO * root.file.id.get_filesize()
        self.numbered = "layer_names" not in root.attrs and "layer_names0" not in root.attrs
        if self.numbered and _numbered_root(root) is None:
            raise InputError(f"{path} is an HDF5 file without the weights of a Keras model.")

    def layer_names(self) -> list[str]:
        """Names of the outermost layers; empty in newer files, which do not keep them."""
        return text_list(self.root, "layer_names")

    def of(self, place: LayerPlace, names: Sequence[str]) -> dict[str, Tensor]:
        """The layer's tensors by what they are, such as kernel and bias; InputError where one is missing."""
        with reading(self.path):
            found = list(self._numbered(place) if self.numbered else self._named(place))
            by_name = {_leaf(name): dataset for name, dataset in found}
            if set(by_name) != set(names) and len(found) == len(names):
                by_name = dict(zip(names, (dataset for _, dataset in found), strict=True))
            if set(by_name) != set(names):
                raise InputError(
                    f"{self.path}: layer {place.text} needs {' and '.join(names) or 'no weights'} but has"
                    f" {' and '.join(by_name) or 'no weights'}; the weights belong to another model."
                )
            return {name: self._tensor(by_name[name]) for name in names}

    def _tensor(self, dataset: h5py.Dataset) -> Tensor:
        self._left -= dataset.nbytes if isinstance(dataset, h5py.Dataset) else 0
        if self._left < 0:
            raise InputError(f"{self.path} names the same weights over and over; it was not made by Keras.")
        return read_tensor(self.path, dataset)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors by their path, of files that keep names."""
        with reading(self.path):
            return {
                f"{layer}/{name}": tuple(dataset.shape)
                for layer in self.layer_names()
                for name, dataset in self._entries(layer)
            }

    def _entries(self, layer: str) -> Iterator[tuple[str, h5py.Dataset]]:
        group = child(self.root, layer)
        if not isinstance(group, h5py.Group):
            return
        for name in text_list(group, "weight_names"):
            dataset = child(group, name)
            if not isinstance(dataset, h5py.Dataset):
                raise KeyError(f"{layer}/{name} is listed but missing")
            yield name, dataset

    def _named(self, place: LayerPlace) -> Iterator[tuple[str, h5py.Dataset]]:
        """Entries of the outermost layer; of a layer inside it, those whose own folder has its name."""
        entries = list(self._entries(place.names[0]))
        if len(place.names) == 1:
            yield from entries
            return
        folders = dict.fromkeys(_folder(name) for name, _ in entries)
        wanted = place.names[-1]
        numbered = [folder for folder in folders if re.fullmatch(rf"{re.escape(wanted)}_\d+", folder)]
        chosen = wanted if wanted in folders else numbered[0] if len(numbered) == 1 else None
        yield from ((name, dataset) for name, dataset in entries if _folder(name) == chosen)

    def _numbered(self, place: LayerPlace) -> Iterator[tuple[str, h5py.Dataset]]:
        group = _numbered_root(self.root)
        for depth, slot in enumerate(place.slots):
            group = child(group, slot if depth == 0 else f"layers/{slot}") if group is not None else None
        variables = child(group, "vars") if group is not None else None
        if isinstance(variables, h5py.Group):
            for number in range(len(variables)):
                yield str(number), child(variables, str(number))


def _numbered_root(root: h5py.Group) -> h5py.Group | None:
    found = child(root, "layers")
    found = found if found is not None else child(root, "_layer_checkpoint_dependencies")
    return found if isinstance(found, h5py.Group) else None


def _leaf(name: str) -> str:
    return name.rpartition("/")[2].split(":")[0]


def _folder(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]
