"""How the process takes memory from the system and gives it back."""

from __future__ import annotations

import ctypes
import os
import sys

_MALLOPT_MMAP_THRESHOLD, _MALLOPT_TRIM_THRESHOLD, _MALLOPT_ARENA_MAX = -3, -1, -8


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the kernel.

    Every step frees and takes the same large values; without this each one is mapped and zeroed anew, which
    costs about as much as the arithmetic. All threads share what is kept, those that took memory before this
    was called excepted: a program calls it first of all. Does nothing on other systems, or where the user
    tuned malloc.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MALLOPT_MMAP_THRESHOLD, 2**30)
        mallopt(_MALLOPT_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MALLOPT_ARENA_MAX, 1)
