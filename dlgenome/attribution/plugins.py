"""Rules of the user's own: for custom operations, or instead of ours.

A plug-in is a Python file, or a package's entry point of the group ``dlgenome.rules``, that defines

    RULES: dict[operation, dlgenome.attribution.rules.base.Rule]

with operations as torch names them, such as ``torch.ops.mylab.squash.default``. docs/plugins.md has an
example.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Rule
from dlgenome.errors import UsageError

GROUP = "dlgenome.rules"


def rules_with_plugins(files: Iterable[Path] = ()) -> dict[Any, Rule]:
    """Our rules, those of installed entry points, and those of ``files``; later ones win."""
    rules = dict(RULES)
    for point in entry_points(group=GROUP):
        loaded = _loaded(point)
        found = getattr(loaded, "RULES", None) if isinstance(loaded, ModuleType) else loaded
        rules.update(_checked(found, f"entry point {point.name}"))
    for file in files:
        rules.update(_from_file(file))
    return rules


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise UsageError(
            f"The installed plug-in {point.value} stops with {type(error).__name__}: {error}; "
            "mend or uninstall it."
        ) from error


def _from_file(file: Path) -> Mapping[Any, Rule]:
    spec = importlib.util.spec_from_file_location(f"dlgenome_plugin_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"--plugin {file}: there is no such Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--plugin {file} stops with {type(error).__name__}: {error}.") from error
    if not hasattr(module, "RULES"):
        raise UsageError(f"--plugin {file} defines no RULES: a dictionary from operation to rule.")
    return _checked(module.RULES, f"--plugin {file}")


def _checked(rules: Any, origin: str) -> Mapping[Any, Rule]:
    if not isinstance(rules, Mapping) or not all(isinstance(rule, Rule) for rule in rules.values()):
        raise UsageError(f"{origin}: RULES must map operations to instances of Rule.")
    return rules
