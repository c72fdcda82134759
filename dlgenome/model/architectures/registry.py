"""The table of built-in architectures."""

from __future__ import annotations

import difflib

from dlgenome.errors import UsageError
from dlgenome.model.architectures.basepairnet import BASEPAIRNET
from dlgenome.model.architectures.basset import BASSET
from dlgenome.model.architectures.beluga import BELUGA
from dlgenome.model.architectures.bpnet import BPNET
from dlgenome.model.architectures.chrombpnet import CHROMBPNET
from dlgenome.model.architectures.danq import DANQ
from dlgenome.model.architectures.deepsea import DEEPSEA
from dlgenome.model.architectures.deepstarr import DEEPSTARR
from dlgenome.model.architectures.definition import Architecture, Tensors
from dlgenome.model.architectures.pangolin import PANGOLIN

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        BPNET,
        CHROMBPNET,
        BASEPAIRNET,
        BASSET,
        DEEPSEA,
        BELUGA,
        DANQ,
        DEEPSTARR,
        PANGOLIN,
    )
}


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


def recognise(tensors: Tensors) -> list[Architecture]:
    """The architectures that such a state_dict can belong to; several where it is ambiguous."""
    return [found for found in ARCHITECTURES.values() if found.recognises(found.translate(tensors))]
