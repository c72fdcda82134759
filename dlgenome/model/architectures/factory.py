"""A user's own network: ``pkg.mod:factory`` or ``FILE.py:factory``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dlgenome.errors import UsageError


def is_factory(text: str) -> bool:
    """True for ``pkg.mod:factory`` and ``FILE.py:factory``, false for the name of an architecture."""
    return ":" in text


def build_from_factory(text: str, arguments: Mapping[str, object]) -> nn.Module:
    """The module that the factory returns; UsageError when it cannot be found, called or used."""
    factory = find_factory(text)
    try:
        built = factory(**arguments)
    except Exception as error:
        given = f"arguments {', '.join(arguments)}" if arguments else "no arguments"
        raise UsageError(
            f"--architecture {text}: calling it with {given} failed ({_short(error)});"
            " --architecture-args gives it keyword arguments as JSON."
        ) from error
    if not isinstance(built, nn.Module):
        raise UsageError(
            f"--architecture {text}: it returned a {type(built).__name__}, but must return a torch.nn.Module."
        )
    return built


def find_factory(text: str, flag: str = "--architecture") -> Callable[..., Any]:
    """The callable that ``text`` names, which the user gave with ``flag``."""
    given = f"{flag} {text}"
    source, _, name = text.rpartition(":")
    if not source or not name:
        raise UsageError(f"{given}: give pkg.mod:function or FILE.py:function.")
    module = _load_file(given, Path(source)) if source.endswith(".py") else _import(given, source)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"{given}: {source} has no function or class called {name}.")
    factory: Callable[..., Any] = found
    return factory


def _import(given: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(
            f"{given}: {name} cannot be imported ({_short(error)});"
            " install it in this environment, or give the path of a file as FILE.py:function."
        ) from error


def _load_file(given: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{given}: there is no file {path}.")
    # the whole path in the name: two files called model.py must not replace each other
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"dlgenome_architecture_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{given}: {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as `python FILE.py` would, so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{given}: {path} fails when it is run ({_short(error)}).") from error
    finally:
        sys.path.remove(folder)
    return module


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
