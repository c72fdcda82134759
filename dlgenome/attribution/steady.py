"""The same bits for the same number, wherever in memory it lies.

On the CPU torch computes functions such as sigmoid in vectors, and what is left over at the end of each
thread's share one by one, by another formula that can differ in the last bit. A sequence's scores would then
depend on its place in the batch. Here such functions run on buffers padded until nothing is left over.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_VECTOR = 64
"""Numbers that the widest vector loop of any processor takes at once, or a multiple of it."""
_FEWEST_OUTPUTS = 16
_GROUP = 8
"""Rows, and inputs, that libraries multiply at once, or a multiple of it."""
_SHARE = 32768
"""Fewest numbers for which torch starts another thread."""
_FUNCTIONS: tuple[Any, ...] = (
    aten.sigmoid, aten.silu, aten.mish, aten.gelu, aten.softplus, aten.elu, aten.tanh, aten.exp, aten.exp2,
    aten.expm1, aten.log, aten.log1p, aten.log2, aten.log10, aten.erf, aten.erfc, aten.erfinv, aten.sin,
    aten.cos, aten.tan, aten.sinh, aten.cosh, aten.asinh, aten.acosh, aten.atanh, aten.asin, aten.acos,
    aten.atan, aten.pow, aten.xlogy, aten.logaddexp, aten.rsqrt, aten.reciprocal,
)  # fmt: skip
_GRADIENTS: tuple[Any, ...] = (
    aten.sigmoid_backward, aten.silu_backward, aten.mish_backward, aten.gelu_backward, aten.tanh_backward,
    aten.softplus_backward, aten.elu_backward,
)  # fmt: skip
_UNSTEADY = frozenset(
    getattr(packet, name)
    for packet in (*_FUNCTIONS, *_GRADIENTS)
    for name in ("default", "Tensor_Scalar", "Tensor_Tensor", "Tensor")
    if name in packet.overloads()
)


def steady_linear(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``value weight^T + bias``; what is left of groups is computed beside zeros.

    Libraries take rows and inputs in groups, on some processors for any number of outputs and on others for a
    few, and those left over by another formula.
    """
    if value.device.type != "cpu":
        return F.linear(value, weight, bias)
    outputs, channels = weight.shape
    rows = value.reshape(-1, channels)
    count, more = len(rows), -channels % _GROUP
    wide = F.pad(weight, (0, more, 0, max(0, _FEWEST_OUTPUTS - outputs)))
    product = F.linear(F.pad(rows, (0, more, 0, -count % _GROUP)), wide)[:count, :outputs]
    product = product.reshape(*value.shape[:-1], outputs)
    return product if bias is None else product + bias


def steady_bits(device: torch.device) -> AbstractContextManager[object]:
    """Context in which every function of single numbers gives bits that do not depend on the place."""
    return _SteadyBits() if device.type == "cpu" else nullcontext()  # type: ignore[no-untyped-call]


class _SteadyBits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _UNSTEADY:
            return func(*args, **(kwargs or {}))
        return _without_remainder(func, args, kwargs or {})


def _without_remainder(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Function of tensors of one shape, on flat copies padded to whole vectors for every thread."""
    places = [index for index, value in enumerate(args) if isinstance(value, Tensor) and value.dim()]
    if not places:
        single: Tensor = function(*args, **kwargs)
        return single
    values = torch.broadcast_tensors(*(args[index] for index in places))  # type: ignore[no-untyped-call]
    shape, count = values[0].shape, values[0].numel()
    order = sorted(range(len(shape)), key=lambda axis: (-values[0].stride(axis), axis))
    filled = list(args)
    for index, value in zip(places, values, strict=True):
        filled[index] = _padded(value.permute(order).reshape(-1), padded_size(count))
    result: Tensor = function(*filled, **kwargs)[:count]
    back = [order.index(axis) for axis in range(len(shape))]
    return result.view([shape[axis] for axis in order]).permute(back)


def _padded(flat: Tensor, size: int) -> Tensor:
    if len(flat) == size:
        return flat
    wide = flat.new_empty(size)
    wide[: len(flat)] = flat
    wide[len(flat) :] = 1
    return wide


def padded_size(count: int) -> int:
    """Smallest size from ``count`` on that torch deals to its threads in whole vectors."""
    size, threads = count, 0
    while threads != (threads := min(torch.get_num_threads(), max(1, -(-size // _SHARE)))):
        whole = _VECTOR * threads
        size = -(-size // whole) * whole
    return size
