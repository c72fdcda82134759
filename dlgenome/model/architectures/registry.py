"""The table of built-in architectures."""

from __future__ import annotations

import difflib

from dlgenome.errors import UsageError
from dlgenome.model.architectures.basset import BASSET
from dlgenome.model.architectures.bpnet import BPNET
from dlgenome.model.architectures.chrombpnet import CHROMBPNET
from dlgenome.model.architectures.definition import Architecture, Tensors

ARCHITECTURES = {architecture.name: architecture for architecture in (BASSET, BPNET, CHROMBPNET)}


def find_architecture(name: str) -> Architecture:
    """The built-in architecture of that name; UsageError names the nearest one otherwise."""
    if architecture := ARCHITECTURES.get(name.lower()):
        return architecture
    known = ", ".join(ARCHITECTURES)
    near = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"--architecture {name}: there is no built-in architecture of that name.{hint}"
        f" Built in are {known}; your own is given as pkg.mod:factory or FILE.py:factory."
    )


def recognise(tensors: Tensors) -> Architecture | None:
    """The one architecture that such a state_dict can belong to, if there is one."""
    return next((found for found in ARCHITECTURES.values() if found.recognises(tensors)), None)
