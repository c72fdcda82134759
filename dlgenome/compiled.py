"""The decorator of every function that numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function, compiled at its first call; releases the GIL.

    The machine code is kept on disk where numba finds a folder that it may write to (beside the module,
    else the user's cache). Where it finds none, in a read-only container say, numba refuses to decorate
    at all; then the function is compiled anew by every process instead. Divisions follow numpy: a check for
    zero in every step would keep loops from being vectorised.
    """
    return _compiled(function, fastmath=False)


def compiled_in_place(function: F) -> F:
    """As :func:`compiled`, for small functions: their code is written where they are called."""
    return _compiled(function, fastmath=False, forceinline=True)


def compiled_in_any_order(function: F) -> F:
    """As :func:`compiled`, for functions whose sums may be added in any order: only such are vectorised."""
    return _compiled(function, fastmath={"reassoc"})


def _compiled(function: F, **options: Any) -> F:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:
        return cast(F, numba.njit(**options)(function))
