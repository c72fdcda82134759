"""Operations that pick: the larger of two values, or values at constant places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dlgenome.attribution.layout import unflatten
from dlgenome.attribution.rules.base import (
    Backward,
    Call,
    Multipliers,
    Ref,
    Rule,
    aten,
    same_axis,
    unbroadcast,
)
from dlgenome.attribution.rules.elementwise import RELU
from dlgenome.attribution.rules.linear import LINEAR, Linear


class Extremum(Rule):
    """``max(a, b) = b + max(a - b, 0)``: a gets the secant p of ReLU at ``a - b``, b gets ``1 - p``.

    Both lie in [0, 1] and sum to 1. The smaller of two values is likewise, with the roles swapped.
    """

    title = "rescale (maximum of two)"
    steady = True
    keeps = "inputs"

    def __init__(self, largest: bool) -> None:
        self.largest = largest

    def refusal(self, call: Call) -> str | None:
        """Refused where the two have the batch in different places."""
        batches = {info.batch for info in call.input_infos}
        return None if batches == {call.batch} else "its inputs have the batch in different places"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Each side's share of the multiplier."""
        batch, step = call.batch, saved.step
        gap_x = self._side(call, saved, 0, True) - self._side(call, saved, 1, True)
        gap_r = self._side(call, saved, 0, False) - self._side(call, saved, 1, False)
        share = RELU.secant(call, gap_x, gap_r, saved)
        first = share if self.largest else 1 - share
        m = step.pair_part(multiplier, batch)
        parts = {0: m * first, 1: m * (1 - first)}
        shapes = {
            ref: info.shape(step.pairs) for ref, info in zip(call.inputs, call.input_infos, strict=True)
        }
        result: list[Tensor | None] = []
        for ref in call.inputs:
            sides = [step.flat_pairs(parts[side], batch) for side in (0, 1) if call.args[side] == ref]
            result.append(
                sum(
                    (unbroadcast(side, shapes[ref]) for side in sides[1:]), unbroadcast(sides[0], shapes[ref])
                )
            )
        return result

    @staticmethod
    def _side(call: Call, saved: Backward, side: int, of_sequence: bool) -> Tensor:
        argument = call.args[side]
        if not call.depends(argument):
            return _unfolded(saved.args[side], call, saved)
        index = call.inputs.index(argument)
        batch = call.input_batch(index)
        return saved.sequence(index, batch) if of_sequence else saved.reference(index, batch)


def _unfolded(constant: Tensor, call: Call, saved: Backward) -> Tensor:
    """A constant whose batch axis, where it has one, is split as that of the values is."""
    axis = call.batch.axis - (len(call.output.dims) - constant.dim())
    if axis < 0:
        return constant
    batch = replace(call.batch, axis=axis)
    if constant.shape[axis] == 1:
        return unflatten(constant, axis, (1, 1, 1, 1))
    return saved.step.pair_part(constant, batch)


class Place(Linear):
    """Values at constant places along one axis, which must not be the batch."""

    def __init__(self, position: int = 1, keyword: str = "dim") -> None:
        self.position, self.keyword = position, keyword

    def refusal(self, call: Call) -> str | None:
        """Refused where the places depend on the sequence, or rows of the batch are picked."""
        if call.inputs != (call.args[0],):
            return "the places it picks depend on the sequence"
        axis, dims = call.argument(self.position, self.keyword, 0), len(call.input_infos[0].dims)
        return "it picks rows of the batch" if same_axis(axis, call.input_batch(0).axis, dims) else None


class Roll(Linear):
    """Values moved round in a circle along axes other than the batch."""

    def refusal(self, call: Call) -> str | None:
        """Refused where rows of the batch change places."""
        axes, dims = call.argument(2, "dims", []), len(call.input_infos[0].dims)
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        along = not axes or any(same_axis(axis, call.input_batch(0).axis, dims) for axis in axes)
        return "it moves rows of the batch" if along else None


class Index(Linear):
    """Indexing with constant index tensors, along axes other than the batch."""

    def refusal(self, call: Call) -> str | None:
        """Refused where an index depends on the sequence or runs along the batch."""
        if call.inputs != (call.args[0],):
            return "the places it picks depend on the sequence"
        indices, axis = call.args[1], call.input_batch(0).axis
        return "it picks rows of the batch" if axis < len(indices) and indices[axis] is not None else None


class Written(Linear):
    """Values put over, or added to, constant places of another value, in every row of the batch alike."""

    def refusal(self, call: Call) -> str | None:
        """Refused where places depend on the sequence or are rows of the batch, or two batches lie apart."""
        if any(call.depends(argument) for argument in self._places(call)):
            return "the places it writes to depend on the sequence"
        if {info.batch for info in call.input_infos} != {call.batch}:
            return "its inputs have the batch in different places"
        return "it writes into rows of the batch" if self._along_batch(call) else None

    def _places(self, call: Call) -> list[Any]:
        raise NotImplementedError

    def _along_batch(self, call: Call) -> bool:
        raise NotImplementedError


class WrittenSlice(Written):
    """``slice_scatter(x, values, axis, start, stop, step)``."""

    def _places(self, call: Call) -> list[Any]:
        return []

    def _along_batch(self, call: Call) -> bool:
        axis, stop = call.argument(2, "dim", 0), call.argument(4, "end")
        whole = call.argument(3, "start") in (None, 0) and (
            stop is None or isinstance(stop, Ref) or stop > 2**62
        )
        return same_axis(axis or 0, call.batch.axis, len(call.output.dims)) and not whole


class WrittenIndices(Written):
    """``index_put(x, indices, values, accumulate)``."""

    def _places(self, call: Call) -> list[Any]:
        return list(call.args[1])

    def _along_batch(self, call: Call) -> bool:
        indices, axis = call.args[1], call.batch.axis
        return axis < len(indices) and indices[axis] is not None


class Scattered(Written):
    """``scatter(x, axis, places, values)`` and ``scatter_add``."""

    def _places(self, call: Call) -> list[Any]:
        return [call.args[2]]

    def _along_batch(self, call: Call) -> bool:
        return same_axis(call.args[1], call.batch.axis, len(call.output.dims))


class LastTwoAxes(Linear):
    """A choice by the places on the last two axes, such as a triangle."""

    def refusal(self, call: Call) -> str | None:
        """Refused where one of the two is the batch."""
        info = call.input_infos[0]
        return "it picks rows of the batch" if call.input_batch(0).axis >= len(info.dims) - 2 else None


class Diagonal(Linear):
    """The diagonal between two axes, neither of them the batch."""

    def refusal(self, call: Call) -> str | None:
        """Refused where one of the two is the batch."""
        dims, axis = len(call.input_infos[0].dims), call.input_batch(0).axis
        pair = (call.argument(2, "dim1", 0), call.argument(3, "dim2", 1))
        return "it picks rows of the batch" if any(same_axis(one, axis, dims) for one in pair) else None


class Where(Linear):
    """One of two values by a constant condition."""

    gradient_may_stand_in = True

    def refusal(self, call: Call) -> str | None:
        """Refused where the condition depends on the sequence."""
        if isinstance(call.args[0], Ref) and call.depends(call.args[0]):
            return (
                "its condition depends on the sequence and its branches on more than that value; "
                "write it with relu, clamp, maximum or a product"
            )
        return None


class Cast(Linear):
    """The same numbers in another precision."""

    title = "identity"
    keeps = "inputs"

    def refusal(self, call: Call) -> str | None:
        """Refused where yes-or-no values become numbers, which is a jump and not a cast."""
        return None

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier in the precision of the input."""
        return [multiplier.to(saved.references[0].dtype)]


RULES: dict[Any, Rule] = {
    aten.maximum.default: Extremum(largest=True),
    aten.minimum.default: Extremum(largest=False),
    aten.gather.default: Place(),
    aten.index_select.default: Place(),
    aten.index.Tensor: Index(),
    aten.where.self: Where(),
    aten.masked_fill.Scalar: LINEAR,
    aten.tril.default: LastTwoAxes(),
    aten.triu.default: LastTwoAxes(),
    aten.diagonal.default: Diagonal(),
    aten.slice_scatter.default: WrittenSlice(),
    aten.index_put.default: WrittenIndices(),
    aten.scatter.src: Scattered(),
    aten.scatter_add.default: Scattered(),
    aten.repeat.default: LINEAR,
    aten.unfold.default: Place(1, "dimension"),
    aten.roll.default: Roll(),
    aten._to_copy.default: Cast(),
}
