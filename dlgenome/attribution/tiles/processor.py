"""Whether the processor has tile registers, and the system lets us use them."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

from llvmlite.binding import llvm_version_info
from numba.core.registry import cpu_target

_OLDEST_LLVM = 20
"""Of those that were tried."""
_ARCH_PRCTL, _ASK_FOR_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Of Linux on x86-64 (Documentation/arch/x86/xstate.rst): programs have to ask before they use tiles."""
_NEEDED = ("+amx-tile", "+amx-bf16", "+avx512f", "+avx512bf16")


@cache
def has_tiles() -> bool:
    """Whether compiled functions may use tile registers in this process.

    numba must be compiling for them, too: without, LLVM would stop the process at the first instruction.
    """
    on_linux = sys.platform.startswith("linux") and platform.machine() == "x86_64"
    if not on_linux or llvm_version_info[0] < _OLDEST_LLVM:
        return False
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return all(feature in features for feature in _NEEDED) and _is_permitted()


def _is_permitted() -> bool:
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_PERMISSION, _TILE_DATA) == 0)
