"""Whether the processor has tile registers, and the system lets us use them."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from dlgenome.attribution.vectors.processor import compiles_for

_ARCH_PRCTL, _ASK_FOR_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Of Linux on x86-64 (Documentation/arch/x86/xstate.rst): programs have to ask before they use tiles."""
_NEEDED = ("+amx-tile", "+amx-bf16", "+avx512f", "+avx512bf16")


@cache
def has_tiles() -> bool:
    """Whether compiled functions may use tile registers in this process.

    numba must be compiling for them, too: without, LLVM would stop the process at the first instruction.
    """
    return sys.platform.startswith("linux") and compiles_for(*_NEEDED) and _is_permitted()


def _is_permitted() -> bool:
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_PERMISSION, _TILE_DATA) == 0)
