"""Follows a pickle without importing, calling or hashing anything that the file chooses.

A pickle is a program for a small stack machine (its instructions are described in Python's ``pickletools``).
Here lists, dictionaries and plain values are made as the program says. Where it imports, calls or fills
objects, `Recorded` objects take note of that, unless the caller knows better what to do.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MOST_INSTRUCTIONS = 5_000_000
"""A checkpoint with ten thousand tensors and the state of its optimizer has a tenth of these."""


class Readable(Protocol):
    """Bytes that are read one after the other: a file, a buffer, or a file mapped into memory."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer at the end."""

    def readline(self) -> bytes:
        """The bytes up to the next line end."""


@dataclass(frozen=True)
class Global:
    """Something that the pickle imports, by its name."""

    name: str


class Recorded:
    """Stands for an object of the pickle; ``origin`` is the class or function that would have made it."""

    def __init__(self, origin: str = "") -> None:
        self.origin = origin
        self.attributes: dict[str, Any] = {}

    @property
    def class_name(self) -> str:
        """Last part of ``origin``."""
        return self.origin.rpartition(".")[2]

    def remember(self, state: Any) -> None:
        """Keep the attributes of a state: a dictionary, or one of them and another for the slots."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.attributes |= {name: value for name, value in part.items() if isinstance(name, str)}


Call = Callable[[str, tuple[Any, ...]], Any]
"""What becomes of a call of the global of this name with these arguments."""


def recorded(name: str, arguments: tuple[Any, ...]) -> Any:
    """A call of which only the name is kept."""
    del arguments
    return Recorded(name)


class PickleMachine:
    """Runs pickles one after the other; ``names`` collects what they import, in order of appearance."""

    def __init__(self, call: Call = recorded, persistent: Callable[[Any], Any] | None = None) -> None:
        self.names: dict[str, None] = {}
        self._call = call
        self._persistent = persistent or (lambda _: Recorded())
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """Stacks under the marks; a mark begins a new one."""
        self._memo: dict[int, Any] = {}

    def run(self, stream: Readable) -> Any:
        """What the next pickle of the stream stands for; UnpicklingError, or any other, for a bad one."""
        self._stack, self._below, self._memo = [], [], {}
        instructions = pickletools.genops(stream)  # type: ignore[arg-type]  # it needs no whole file
        for count, (instruction, argument, _) in enumerate(instructions):
            if count > MOST_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            name = instruction.name
            if name in _PLAIN:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif not (self._container(name) or self._memory(name, argument) or self._object(name, argument)):
                raise pickle.UnpicklingError(f"it has the instruction {name}")
        return self._stack.pop()

    def _container(self, name: str) -> bool:
        """Carry out an instruction about lists, tuples, dictionaries and sets; False for another."""
        match name:
            case "EMPTY_LIST":
                self._stack.append([])
            case "EMPTY_DICT":
                self._stack.append({})
            case "EMPTY_TUPLE":
                self._stack.append(())
            case "EMPTY_SET":
                self._stack.append(Recorded("builtins.set"))
            case "LIST" | "TUPLE" | "DICT" | "FROZENSET":
                made = _MAKERS[name](self._marked())
                self._stack.append(made)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._top(int(name[-1]))))
            case "APPEND" | "APPENDS":
                self._append(self._marked() if name == "APPENDS" else self._top(1))
            case "SETITEM" | "SETITEMS":
                self._set_items(self._marked() if name == "SETITEMS" else self._top(2))
            case "ADDITEMS":
                self._marked()
            case _:
                return False
        return True

    def _memory(self, name: str, argument: Any) -> bool:
        """Carry out an instruction about the stack and the memo; False for another."""
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._below.append(self._stack)
                self._stack = []
            case "POP_MARK":
                self._marked()
            case "POP" if self._stack:
                self._stack.pop()
            case "POP":
                self._marked()
            case "DUP":
                self._stack.append(self._stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case _:
                return False
        return True

    def _object(self, name: str, argument: Any) -> bool:
        """Carry out an instruction about imports, calls and objects; False for another."""
        match name:
            case "GLOBAL":
                self._import(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                self._import(".".join(self._top(2)))
            case "INST":
                arguments = self._marked()
                self._import(argument.replace(" ", "."))
                self._make(self._stack.pop(), arguments)
            case "OBJ":
                function, *arguments = self._marked()
                self._make(function, arguments)
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                function, arguments = self._top(3 if name == "NEWOBJ_EX" else 2)[:2]
                self._make(function, arguments)
            case "BUILD":
                (state,) = self._top(1)
                if isinstance(self._stack[-1], Recorded):
                    self._stack[-1].remember(state)
            case "PERSID" | "BINPERSID":
                (identifier,) = [argument] if name == "PERSID" else self._top(1)
                self._stack.append(self._persistent(identifier))
            case _:
                return False
        return True

    def _top(self, count: int) -> list[Any]:
        """The uppermost values, which go."""
        if len(self._stack) < count:
            raise pickle.UnpicklingError("it takes more from its stack than it has put there")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        """Everything above the last mark, which goes."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _import(self, name: str) -> None:
        self.names[name] = None
        self._stack.append(Global(name))

    def _make(self, function: Any, arguments: Any) -> None:
        known = isinstance(function, Global) and isinstance(arguments, (tuple, list))
        self._stack.append(self._call(function.name, tuple(arguments)) if known else Recorded())

    def _append(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1] += items
        elif not isinstance(self._stack[-1], Recorded):
            raise pickle.UnpicklingError("it appends to something else than a list")

    def _set_items(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(dictionary(items))
        elif not isinstance(self._stack[-1], Recorded):
            raise pickle.UnpicklingError("it sets items of something else than a dictionary")


def dictionary(items: list[Any]) -> dict[Any, Any]:
    """Keys and values by turns as a dictionary.

    Tuples inside tuples are refused as keys: a few of them can take years to hash.
    """
    keys, values = items[::2], items[1::2]
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, str | bytes | int | float | None | Global | Recorded) for part in parts):
            raise pickle.UnpicklingError("it has a dictionary with keys that are no plain values")
    return dict(zip(keys, values, strict=True))


_PLAIN = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
"""Instructions that push their argument."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": dictionary,
    "FROZENSET": lambda _: Recorded("builtins.frozenset"),
}
"""What becomes of everything above a mark."""
