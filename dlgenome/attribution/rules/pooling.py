"""Maximum over windows: the whole output difference goes to the position that made it.

Per window let i be where the sequence has its maximum and j where the reference has its own. If
``max x >= max r`` the difference is credited to i, otherwise to j; there ``x - r`` is at least as large as
the output difference and has its sign, so every multiplier lies in [0, 1] and windows sum to their difference
exactly. At a tie the multiplier is 1 if i = j and 0 otherwise. The split is that of captum and tangermeme,
but divided per window before windows are added, which keeps overlapping windows exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.pool_kernels import pool_multiplier, pooled
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.elementwise import RELU
from dlgenome.attribution.vectors.pools import Windows


class Maxima(NamedTuple):
    """Values, the maximum of each window and its place; windows lie on the last axis."""

    values: Tensor
    largest: Tensor
    positions: Tensor


class MaxPool(Rule):
    """Max-pooling over the last ``axes`` axes, overlapping, dilated, padded or adaptive."""

    title = "rescale (max-pool)"
    steady = True
    keeps = "inputs"

    def __init__(self, axes: int, adaptive: bool = False) -> None:
        self.axes, self.adaptive = axes, adaptive

    def refusal(self, call: Call) -> str | None:
        """Refused where the batch is pooled over."""
        dims = len(call.input_infos[0].dims)
        return "it pools across the batch" if call.input_batch(0).axis >= dims - self.axes else None

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pooled values; positions too where the operation returns them."""
        windows = self.windows(call, args, kwargs)
        if windows is not None and call.op is aten.max_pool1d.default:
            made = pooled(args[0], windows, call.output.dims[-1])
            if made is not None:
                return made
        return call.op(args[0].contiguous(), *args[1:], **kwargs)

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier scattered to the position that made each difference."""
        m = multiplier[0] if isinstance(multiplier, list) else multiplier
        windows = self.windows(call, saved.args, saved.kwargs)
        if windows is not None:
            kept = saved.sequences[0], saved.references[0]
            made = pool_multiplier(*kept, m, saved.step, windows, saved.spare)
            if made is not None:
                return [made]
        x, r = (self._maxima(kept[0].contiguous(), saved) for kept in (saved.sequences, saved.references))
        spread = _scatter(x, r, m.flatten(-self.axes), saved.step, call.input_batch(0))
        return [spread.reshape(call.input_infos[0].shape(saved.step.pairs))]

    def windows(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Windows | None:
        """The windows of a pool over positions, for the kernels; None where they do not know the call."""
        if self.axes != 1 or self.adaptive or call.input_batch(0) != BatchAxis():
            return None
        width = _number(args[1])
        stride = _argument(args, kwargs, 2, "stride", width)
        padding = _argument(args, kwargs, 3, "padding", 0)
        return Windows(width, stride, padding, _argument(args, kwargs, 4, "dilation", 1))

    def _maxima(self, value: Tensor, saved: Backward) -> Maxima:
        if self.adaptive:
            pool = F.adaptive_max_pool1d if self.axes == 1 else F.adaptive_max_pool2d
            pooled, positions = pool(value, saved.args[1], return_indices=True)
        else:
            operation = aten.max_pool1d_with_indices if self.axes == 1 else aten.max_pool2d_with_indices
            pooled, positions = operation(value, *saved.args[1:], **saved.kwargs)
        return Maxima(*(part.flatten(-self.axes) for part in (value, pooled, positions)))


def _number(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: int) -> int:
    given = args[place] if len(args) > place else kwargs.get(name)
    return default if given is None or given == [] else _number(given)


class PooledRelu(Rule):
    """``max(x, 0)`` and then its maximum over windows of positions, in one pass over memory.

    Stands for two operations of a program; `rewriting.py` puts it in their place.
    """

    title = "rescale (piecewise linear), rescale (max-pool)"
    owns_output = True
    steady = True
    fresh = True
    keeps = "inputs"

    def __init__(self, relu: Call, pool: Call) -> None:
        self._relu, self._pool = relu, pool
        windows = POOL.windows(pool, pool.args, pool.kwargs)
        self._windows = None if windows is None else windows._replace(after_relu=True)

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pooled values of what is positive."""
        value = args[0]
        made = None
        if self._windows is not None:
            made = pooled(value, self._windows, call.output.dims[-1])
        return made if made is not None else POOL.forward(self._pool, (value.relu(), *args[1:]), kwargs)

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier at the position that made each difference, times the secant there."""
        x, r = saved.sequences[0], saved.references[0]
        if self._windows is not None:
            made = pool_multiplier(x, r, multiplier, saved.step, self._windows, saved.spare)
            if made is not None:
                return [made]
        positive = replace(saved, sequences=(x.relu(),), references=(r.relu(),), spare=False)
        (below,) = POOL.backward(self._pool, multiplier, positive)
        assert below is not None
        return RELU.backward(self._relu, below, replace(saved, sequences=(x,), references=(r,), spare=False))


class AxisMax(Rule):
    """Maximum (or minimum, sign -1) over one axis or several: one window as large as the axes."""

    title = "rescale (maximum)"
    steady = True
    keeps = "inputs"

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def refusal(self, call: Call) -> str | None:
        """Refused where the maximum is taken over the batch."""
        axes, dims = self.axes(call), len(call.input_infos[0].dims)
        return "it takes the maximum over the batch" if call.input_batch(0).axis in axes or not dims else None

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier scattered to the position that made the difference."""
        m = multiplier[0] if isinstance(multiplier, list) else multiplier
        info, axes = call.input_infos[0], self.axes(call)
        kept = [axis for axis in range(len(info.dims)) if axis not in axes]
        batch = call.input_batch(0)
        moved = BatchAxis(kept.index(batch.axis), batch.outer, batch.inner)

        def maxima(of: tuple[Tensor, ...]) -> Maxima:
            value = (of[0] * self.sign).permute(*kept, *axes).flatten(len(kept))
            return Maxima(value, *value.max(-1, keepdim=True))

        spread = _scatter(
            maxima(saved.sequences),
            maxima(saved.references),
            m.reshape(*_kept_shape(info.shape(saved.step.pairs), kept), 1),
            saved.step,
            moved,
        )
        shape = info.shape(saved.step.pairs)
        spread = spread.reshape([shape[axis] for axis in (*kept, *axes)])
        order = [*kept, *axes]
        return [spread.permute([order.index(axis) for axis in range(len(order))])]

    @staticmethod
    def axes(call: Call) -> list[int]:
        """Axes of the input that the maximum runs over, in order."""
        dims = len(call.input_infos[0].dims)
        axes = call.argument(1, "dim", None)
        axes = list(range(dims)) if axes in (None, []) else axes if isinstance(axes, list) else [axes]
        return sorted(axis % dims for axis in axes)


def _kept_shape(shape: tuple[int, ...], kept: list[int]) -> list[int]:
    """Sizes of the axes that a reduction keeps."""
    return [shape[axis] for axis in kept]


def _scatter(x: Maxima, r: Maxima, multiplier: Tensor, step: StepShape, batch: BatchAxis) -> Tensor:
    """Multiplier of the input from maxima of sequences and references."""
    value_x, top_x, at_x = (step.sequence_part(part, batch) for part in x)
    value_r, top_r, at_r = (step.pair_part(part, batch) for part in r)
    winner = torch.where(top_x >= top_r, at_x.expand_as(at_r), at_r)
    run = torch.gather(value_x.expand_as(value_r), -1, winner) - torch.gather(value_r, -1, winner)
    rise = top_x - top_r
    tie = rise == 0
    share = torch.where(tie, (at_x == at_r).to(rise.dtype), rise / run.masked_fill_(tie, 1))
    spread = torch.zeros_like(value_r, memory_format=torch.contiguous_format)
    spread.scatter_add_(-1, winner, share * step.pair_part(multiplier, batch))
    return step.flat_pairs(spread, batch)


POOL = MaxPool(1)

RULES: dict[Any, Rule] = {
    aten.max_pool1d.default: POOL,
    aten.max_pool1d_with_indices.default: MaxPool(1),
    aten.max_pool2d.default: MaxPool(2),
    aten.max_pool2d_with_indices.default: MaxPool(2),
    aten.adaptive_max_pool1d.default: MaxPool(1, adaptive=True),
    aten.adaptive_max_pool2d.default: MaxPool(2, adaptive=True),
    aten.amax.default: AxisMax(),
    aten.max.dim: AxisMax(),
    aten.amin.default: AxisMax(-1),
    aten.min.dim: AxisMax(-1),
}
