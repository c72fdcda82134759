"""Multipliers on their way back, each waiting for the operation that made its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Waiting:
    """Multipliers by the name of their value, summed where several operations read the value.

    Knows which of them nothing else holds: these may be added to where they lie.
    """

    def __init__(self, multipliers: Mapping[str, Any]) -> None:
        self.multipliers: dict[str, Any] = dict(multipliers)
        self._own: set[str] = set()

    def take(self, name: str) -> tuple[Any, bool]:
        """The multiplier of a value, which waits no longer, and whether nothing else holds it; else None."""
        own = name in self._own
        self._own.discard(name)
        return self.multipliers.pop(name, None), own

    def add(self, name: str, part: Tensor, own: bool) -> None:
        """One more part of the multiplier of a value; ``own`` where nothing else holds the part."""
        first = self.multipliers.get(name)
        if first is None:
            self.multipliers[name] = part
        elif own:
            self.multipliers[name] = part.add_(first)
        else:
            self.multipliers[name] = first + part
            own = True
        if own:
            self._own.add(name)

    def may_grow(self, name: str) -> Tensor | None:
        """The multiplier so far, where it may be added to."""
        return self.multipliers[name] if name in self._own else None

    def add_to(self, name: str, place: int, count: int, part: Tensor) -> None:
        """A part of the multiplier of one of several outputs, ``count`` at least."""
        parts = self.multipliers.setdefault(name, [None] * count)
        parts[place] = part if parts[place] is None else parts[place] + part
