"""Weights into the module that they belong to."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dlgenome.errors import DlgenomeError, InputError, UsageError, first_line
from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors
from dlgenome.model.architectures.factory import build_from_factory, find_factory, is_factory
from dlgenome.model.architectures.registry import ARCHITECTURES, find_architecture, recognise
from dlgenome.model.limits import has_long_list
from dlgenome.model.prefixes import best_reading, readings

_LISTED = 5
_LONGEST_SHOWN = 120


@dataclass(frozen=True)
class Assembled:
    """A module with its weights, and how it was built."""

    module: nn.Module
    architecture: str
    arguments: Arguments
    input_length: int | None
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    title: str = ""
    alphabet: str = "ACGT"


def assemble(
    path: Path,
    tensors: Tensors,
    architecture: str | None,
    said_by_file: Mapping[str, object],
    said_by_user: Mapping[str, object],
) -> Assembled:
    """The module of the named, or recognised, architecture with the tensors of ``path`` loaded into it.

    Arguments come from the tensor shapes, then from the file, then from the user: the last one wins.
    """
    if architecture is not None and is_factory(architecture):
        return _assemble_factory(path, tensors, architecture, said_by_file, said_by_user)
    if architecture is not None:
        found = find_architecture(architecture)
        tensors = _read_as(found, tensors)
        return _assemble_known(path, tensors, found, said_by_file, said_by_user)
    for reading in readings(tensors):
        candidates = recognise(reading)
        if len(candidates) > 1:
            names = " or ".join(candidate.name for candidate in candidates)
            raise UsageError(f"The weights of {path} can belong to {names}; say which with --architecture.")
        if candidates:
            (found,) = candidates
            assembled = _assemble_known(path, found.translate(reading), found, said_by_file, said_by_user)
            return replace(assembled, notes=(*assembled.notes, *found.notes))
    raise UsageError(_unknown(path, tensors))


def _assemble_factory(
    path: Path,
    tensors: Tensors,
    factory: str,
    said_by_file: Mapping[str, object],
    said_by_user: Mapping[str, object],
) -> Assembled:
    parameters = _parameters(find_factory(factory))
    taken = {name: value for name, value in said_by_file.items() if name in parameters}
    arguments = taken | dict(said_by_user)
    module = build_from_factory(factory, arguments)
    tensors = best_reading(tensors, module.state_dict())
    _compare(path, module.state_dict(), tensors, factory)
    module.load_state_dict(dict(tensors), strict=False)
    length = getattr(module, "input_length", None)
    length = length if isinstance(length, int) else None
    told = ", ".join(f"{name}={value}" for name, value in taken.items() if name not in said_by_user)
    notes = (f"arguments from the file: {told}",) if told else ()
    return Assembled(module, factory, arguments, length, (), notes)


def _parameters(function: Callable[..., object]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


def _read_as(architecture: Architecture, tensors: Tensors) -> Tensors:
    """The reading of the file that has most of the architecture's own first words, under its names."""
    with torch.device("meta"):
        words = {key.partition(".")[0] for key in architecture.build().state_dict()}
    translated = (architecture.translate(reading) for reading in readings(tensors))
    return max(translated, key=lambda reading: sum(key.partition(".")[0] in words for key in reading))


def _assemble_known(
    path: Path,
    tensors: Tensors,
    architecture: Architecture,
    said_by_file: Mapping[str, object],
    said_by_user: Mapping[str, object],
) -> Assembled:
    allowed = inspect.signature(architecture.build).parameters
    for name in said_by_user:
        if name not in allowed:
            raise UsageError(
                f"--architecture-args: {architecture.name} has no argument {name};"
                f" it takes {', '.join(allowed)}."
            )
    usable = {name: value for name, value in said_by_file.items() if name in allowed}
    arguments = _merged(_merged(architecture.infer(tensors), usable), said_by_user)
    module = _build(path, architecture, arguments, tensors)
    module.load_state_dict(dict(tensors), strict=False)
    length = getattr(module, "input_length", None)
    if not isinstance(length, int) or length < 1:
        raise UsageError(
            f"--architecture-args: input_length is {length!r}, but must be a whole number of bases."
        )
    notes = list(_control_notes(module))
    if "input_length" not in arguments:
        notes.append(
            f"the file does not say its input length; {length} is the default of {architecture.name}"
        )
    return Assembled(
        module,
        architecture.name,
        arguments,
        length,
        architecture.outputs,
        tuple(notes),
        architecture.title,
        architecture.alphabet,
    )


def _build(path: Path, architecture: Architecture, arguments: Arguments, tensors: Tensors) -> nn.Module:
    """The network of these arguments, built without memory first, to see whether the tensors are its own."""
    told = _listed([f"{name}={str(value)[:80]}" for name, value in arguments.items()])
    if has_long_list(arguments):
        raise UsageError(
            f"The architecture {architecture.name} takes no lists as long as in {path} with {told}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without a single weight, which then do not fit
            with torch.device("meta"):
                expected = architecture.build(**arguments).state_dict()
            _compare(path, expected, tensors, architecture.name)
            return architecture.build(**arguments)
    except DlgenomeError:
        raise
    except Exception as error:
        raise UsageError(
            f"The architecture {architecture.name} cannot be built for {path} with {told}"
            f": {first_line(error)}."
        ) from error


def _merged(first: Mapping[str, object], second: Mapping[str, object]) -> Arguments:
    merged = dict(first)
    for name, value in second.items():
        before = merged.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = dict(before) | dict(value) if both else value  # type: ignore[call-overload]
    return merged


def _control_notes(module: nn.Module) -> list[str]:
    counts = {count for part in module.modules() if (count := getattr(part, "n_control_tracks", 0))}
    return [f"{count} control tracks: taken as zeros" for count in sorted(counts)]


def _compare(path: Path, expected: Tensors, tensors: Tensors, architecture: str) -> None:
    """Raise InputError unless these are the tensors of the network, by name and shape."""
    missing = [key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in expected]
    wrong = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    problems = [
        f"{title} {_listed(entries)}"
        for title, entries in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
        if entries
    ]
    if problems:
        raise InputError(
            f"The weights of {path} do not fit the architecture {architecture}: {'; '.join(problems)}."
        )


def _listed(entries: list[str]) -> str:
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return ", ".join(entry[:_LONGEST_SHOWN] for entry in entries[:_LISTED]) + more


def _unknown(path: Path, tensors: Tensors) -> str:
    shapes = [f"{key} {tuple(tensor.shape)}" for key, tensor in tensors.items()]
    return (
        f"{path} holds bare weights ({_listed(shapes)}) of an architecture that is not recognised;"
        f" say which with --architecture: {', '.join(ARCHITECTURES)}, pkg.mod:factory or FILE.py:factory."
    )
