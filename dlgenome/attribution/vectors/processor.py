"""Whether the processor computes with vectors of sixteen numbers, and numba for it."""

from __future__ import annotations

import platform
from functools import cache

from llvmlite.binding import llvm_version_info
from numba import config
from numba.core.registry import cpu_target

_OLDEST_LLVM = 20
"""Of those that were tried."""


@cache
def has_vectors() -> bool:
    """Whether compiled functions may use vectors of sixteen float32 numbers."""
    return compiles_for("+avx512f")


@cache
def has_narrow_vectors() -> bool:
    """Whether they may also multiply pairs of whole numbers of sixteen bits."""
    return compiles_for("+avx512f", "+avx512bw", "+avx512vnni")


def compiles_for(*features: str) -> bool:
    """Whether numba compiles for a processor with all of them.

    Where it does not, though the processor has them, LLVM would stop the process at the first instruction.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or llvm_version_info[0] < _OLDEST_LLVM:
        return False
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False
    known = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return all(feature in known for feature in features)
