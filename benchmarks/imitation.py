"""How CUDA devices round products of float32, imitated on the processor.

Their tensor cores take operands of float32 as tf32, with ten binary digits after the first, and add up in
float32. Here every such operand is rounded when torch is about to multiply by it. Our own products are
switched off, for those that torch does not compute would go unrounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlgenome.attribution import convolving, towers
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.rules import dense

Products = Literal["convolutions", "all"]
"""Which products take tf32: those of ``--precision bfloat16`` on CUDA, or of ``tf32``."""

aten = torch.ops.aten
_DROPPED = 13
"""Binary digits of float32 that tf32 does not have."""
Operands = dict[Any, tuple[int, ...]]
"""Operations that round, and the places of their operands among the arguments."""
_CONVOLUTIONS: Operands = {
    **dict.fromkeys((aten.convolution, aten._convolution, aten.conv1d, aten.conv2d, aten.conv3d), (0, 1)),
    **dict.fromkeys((aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), (0, 1)),
    aten.convolution_backward: (0, 1, 2),
}
_OTHERS: Operands = {
    **dict.fromkeys((aten.linear, aten.matmul, aten.mm, aten.bmm), (0, 1)),
    **dict.fromkeys(
        (aten.addmm, aten.addmm_, aten.baddbmm, aten.baddbmm_, aten.addbmm, aten.addbmm_), (1, 2)
    ),
}
_OWN_PRODUCTS: tuple[tuple[Any, str, Callable[..., bool]], ...] = (
    (convolving, "_is_along_width", lambda *_: False),
    (convolving, "convolve_onto", lambda *_: False),
    (towers, "has_tiles", lambda: False),
    (towers, "has_vectors", lambda: False),
    (dense, "has_vectors", lambda: False),
)
"""What says whether they are worth it, and that they are not: without, torch computes all products."""


def as_tf32(value: Tensor) -> Tensor:
    """The nearest numbers of tf32, of two the one farther from zero; infinities and no numbers stay.

    Numbers of other types stay, too: neither float64 nor bfloat16 is ever taken as tf32.
    """
    if value.dtype is not torch.float32:
        return value
    bits = (value.view(torch.int32) + (1 << (_DROPPED - 1))) & -(1 << _DROPPED)
    return torch.where(value.isfinite(), bits.view(torch.float32), value)


@contextmanager
def imitated(products: Products) -> Iterator[None]:
    """Context in which engines multiply as on a CUDA device, and torch computes all their products.

    Engines have to be made in it, too.
    """
    operands = _CONVOLUTIONS if products == "convolutions" else _CONVOLUTIONS | _OTHERS
    with ExitStack() as stack:
        for name in ("__init__", "forward_sequences", "run_pairs"):
            stack.enter_context(patch.object(Engine, name, _rounding(getattr(Engine, name), operands)))
        for room, name, answer in _OWN_PRODUCTS:
            stack.enter_context(patch.object(room, name, answer))
        yield


def _rounding(function: Callable[..., Any], operands: Operands) -> Callable[..., Any]:
    """The function in a mode of its own: modes are those of a thread, and steps run in several."""

    @wraps(function)
    def rounded(*args: Any, **kwargs: Any) -> Any:
        with _Rounding(operands):
            return function(*args, **kwargs)

    return rounded


class _Rounding(TorchDispatchMode):
    """Rounds the operands of some operations; refuses a convolution that it does not know."""

    def __init__(self, operands: Operands) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operands = operands

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        places = self._operands.get(func.overloadpacket, ())
        assert places or "conv" not in func.name(), f"{func} would go unrounded: say where its operands are"
        rounded = [as_tf32(value) if place in places else value for place, value in enumerate(args)]
        return func(*rounded, **(kwargs or {}))
