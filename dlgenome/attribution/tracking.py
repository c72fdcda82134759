"""Where the batch is in every value of a captured graph, from its symbolic sizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from dlgenome.attribution.capture import CapturedGraph
from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules.base import Call, same_axis
from dlgenome.errors import UnsupportedModelError

VIEWS = (
    *("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default"),
    *("aten.flatten.using_ints", "aten.unflatten.int"),
)
Info = ValueInfo | tuple[ValueInfo, ...]


class LostBatchError(Exception):
    """A sequence-dependent value in which the rows of the batch are mixed."""


def batch_symbol(captured: CapturedGraph) -> Any:
    """The symbol that stands for the batch size; UnsupportedModelError where the model fixes it."""
    size = captured.sequences.meta["val"].shape[0]
    if not is_open(size):
        raise UnsupportedModelError(
            "The model fixes the batch size; use x.shape[0] in its forward instead of a number."
        )
    return size.node.expr


def first_info(info: Info) -> ValueInfo:
    """The shape of a value, or of the first of several."""
    return info[0] if isinstance(info, tuple) else info


def value_info(node: fx.Node, parents: list[Info], symbol: Any) -> Info:
    """Shape and batch axis of what a node makes from its sequence-dependent ``parents``.

    Raises LostBatchError where the rows of the batch cannot be told apart any more.
    """
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        return tuple(_single(v, node, parents, symbol) for v in value if isinstance(v, Tensor))
    return _single(value, node, parents, symbol)


def _single(value: Tensor, node: fx.Node, parents: list[Info], symbol: Any) -> ValueInfo:
    """The batch axis is the one whose size grows with it; its layout inside that axis is inherited."""
    growing = [axis for axis, size in enumerate(value.shape) if is_open(size)]
    if not growing and value.numel() == 0:
        return ValueInfo(tuple(int(size) for size in value.shape), None)
    sizes: list[Any] = [value.shape[axis] for axis in growing]
    if any(size.node.expr.free_symbols != symbol.free_symbols for size in sizes):
        raise LostBatchError(
            "the size of what it makes depends on values, as with a yes-or-no mask; pick places by number"
        )
    if len(growing) != 1:
        raise LostBatchError(
            "it mixes the rows of the batch, so one sequence's score would depend on its neighbours"
        )
    axis, size = growing[0], sizes[0]
    multiple = size.node.expr / symbol
    if not multiple.is_integer:
        raise LostBatchError(f"it makes an axis of size {size}, which is no multiple of the batch")
    dims = tuple(int(multiple) if a == axis else int(size) for a, size in enumerate(value.shape))
    return ValueInfo(dims, _batch_axis(axis, dims, node, parents))


def is_open(size: Any) -> bool:
    """Whether a size is not a number yet; tracing wraps known sizes, too."""
    return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols)


def _batch_axis(axis: int, dims: tuple[int, ...], node: fx.Node, parents: list[Info]) -> BatchAxis:
    batches = [info.batch for info in map(first_info, parents) if info.batch is not None]
    if len({(batch.outer, batch.inner) for batch in batches}) > 1:
        raise LostBatchError("its inputs hold the rows of the batch in different orders, so rows are mixed")
    parent = next((info for info in map(first_info, parents) if info.batch is not None), None)
    if parent is None or parent.batch is None:
        if dims[axis] == 1:
            return BatchAxis(axis)
        raise LostBatchError("the place of the batch cannot be followed through it")
    if str(node.target) in VIEWS:
        return _through_view(axis, dims, parent, parent.batch)
    if dims[axis] == 1:
        return BatchAxis(axis)
    if parent.dims[parent.batch.axis] != dims[axis]:
        raise LostBatchError("the place of the batch cannot be followed through it")
    return BatchAxis(axis, parent.batch.outer, parent.batch.inner)


def _through_view(axis: int, dims: tuple[int, ...], parent: ValueInfo, batch: BatchAxis) -> BatchAxis:
    """A view keeps the number of elements before the batch, wherever it draws the lines between axes."""
    before = math.prod(parent.dims[: batch.axis]) * batch.outer
    outer, rest = divmod(before, math.prod(dims[:axis]))
    if rest or dims[axis] % outer:
        raise LostBatchError("it reshapes across the batch, so rows of the batch are mixed")
    return BatchAxis(axis, outer, dims[axis] // outer)


def runs_along_batch(call: Call) -> bool:
    """Whether an operation without a rule is told to work along the batch, by an argument called ``dim``."""
    schema = getattr(call.op, "_schema", None)
    batch, dims = call.input_batch(0).axis, len(call.input_infos[0].dims)
    for place, argument in enumerate(() if schema is None else schema.arguments):
        if argument.name in ("dim", "dims"):
            given = call.argument(place, argument.name, argument.default_value)
            axes = given if isinstance(given, (list, tuple)) else [given]
            return any(isinstance(axis, int) and same_axis(axis, batch, dims) for axis in axes)
    return False
