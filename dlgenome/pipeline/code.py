"""Checksums of the user's own code that scores depend on."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlgenome.config import RunConfig
from dlgenome.model.targets import Target
from dlgenome.provenance import file_sha256


@dataclass(frozen=True)
class CodeDigests:
    """SHA-256 of the files that were named; what these import is not looked at."""

    run: Mapping[str, str]
    """By attribute of the scores files: of the network's code or description, and of plug-ins."""
    targets: Mapping[str, str]
    """By name of the target: of the file with its function."""


def digest_code(config: RunConfig, targets: Iterable[Target]) -> CodeDigests:
    """Checksums of all code and descriptions that a run was given, once its modules are imported."""
    run = {
        "architecture_sha256": _digests([_file(config.architecture)] if config.architecture else []),
        "plugin_sha256": _digests(config.plugins),
    }
    functions = {
        target.name: _digests([_file(target.text)]) for target in targets if target.kind == "callable"
    }
    return CodeDigests(_known(run), _known(functions))


def _known(digests: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in digests.items() if digest}


def _digests(paths: Iterable[Path | None]) -> str:
    return ",".join(file_sha256(path) for path in paths if path is not None)


def _file(text: str) -> Path | None:
    """The file of ``FILE.json``, ``FILE.py:function`` or ``package.module:function``, if there is one."""
    if text.endswith(".json"):
        return Path(text)
    source = text.rpartition(":")[0]
    if source.endswith(".py"):
        return Path(source)
    found = getattr(sys.modules.get(source), "__file__", None)
    return Path(found) if found else None
