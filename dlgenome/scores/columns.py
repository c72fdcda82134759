"""Columns of a file that are read when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray


class Columns(Mapping[str, NDArray[Any]]):
    """Field -> one value a region; whoever asks for one column does not pay for the others."""

    def __init__(self, fields: tuple[str, ...], read: Callable[[str], NDArray[Any]]) -> None:
        self._fields, self._read = fields, read
        self._kept: dict[str, NDArray[Any]] = {}

    def __getitem__(self, field: str) -> NDArray[Any]:
        if field not in self._fields:
            raise KeyError(field)
        if field not in self._kept:
            self._kept[field] = self._read(field)
        return self._kept[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)
