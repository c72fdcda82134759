"""Values that do not depend on the sequence: evaluated once, and alike for every row of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dlgenome.attribution.layout import BatchAxis, unfold
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.base import refs_in
from dlgenome.attribution.tracking import is_open
from dlgenome.errors import UnsupportedModelError

_FEW = 2
"""Rows that stand for any number of them: the fewest that a captured graph is made for."""


def evaluate_constants(program: Program, rows: int) -> dict[str, Any]:
    """Every value that does not depend on the sequence, for ``rows`` rows.

    What an operation meets has the same bits in every row, whatever ``rows`` is: those of a batch of two.
    A convolution of equal rows would give each of them other last bits.

    Raises UnsupportedModelError where an operation meets a constant whose rows differ by more than rounding.
    A positional encoding that runs along the batch is one: a sequence's prediction, and its scores, would
    depend on its place in the batch.
    """
    values = _evaluated(program, rows)
    growing = {node.name: axes for node in program.constants if (axes := _growing(node))}
    few = _evaluated(program, _FEW) if growing else {}
    alike = {
        ref.name: _alike(values[ref.name], few[ref.name], growing[ref.name], step, rows)
        for step in program.steps
        for ref in refs_in((step.call.args, step.call.kwargs))
        if ref.name in growing
    }
    return {**values, **alike}


def _evaluated(program: Program, rows: int) -> dict[str, Any]:
    values: dict[str, Any] = dict(program.parameters)
    for node in program.constants:
        meta = node.meta.get("val")
        if isinstance(meta, torch.SymInt):
            values[node.name] = int(meta.node.expr.subs(program.symbol, rows))
            continue
        args = torch.fx.map_arg(node.args, lambda n: values[n.name])
        kwargs = torch.fx.map_arg(node.kwargs, lambda n: values[n.name])
        if meta is not None:
            values[node.name] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def _growing(node: fx.Node) -> list[int]:
    """Axes of a constant tensor whose size grows with the batch."""
    value = node.meta.get("val")
    return [a for a, size in enumerate(value.shape) if is_open(size)] if isinstance(value, Tensor) else []


def _alike(value: Tensor, few: Tensor, axes: list[int], step: Step, rows: int) -> Tensor:
    """The first row of ``few`` in the place of every row of ``value``."""
    if len(axes) > 1:
        raise UnsupportedModelError(_sentence(step))
    (axis,) = axes
    unfolded, unfolded_few = _rows(value, axis, step, rows), _rows(few, axis, step, _FEW)
    first = unfolded_few.narrow(axis + 1, 0, 1)
    if not (_is_close(unfolded, first) and _is_close(unfolded_few, first)):
        raise UnsupportedModelError(_sentence(step))
    return first.expand_as(unfolded).reshape(value.shape)


def _rows(value: Tensor, axis: int, step: Step, rows: int) -> Tensor:
    """The batch axis of a constant unfolded, as that of the values that it meets."""
    batch, size = step.call.batch, value.shape[axis]
    same = size == batch.outer * batch.inner * rows
    place = BatchAxis(axis, batch.outer, batch.inner) if same else BatchAxis(axis, 1, size // rows)
    return unfold(value, place, rows)


def _is_close(value: Tensor, first: Tensor) -> bool:
    """Whether all rows are the first one, but for half of the digits that rounding leaves uncertain."""
    same = value == first
    if value.is_floating_point():
        finite = first[torch.isfinite(first)]
        largest = float(finite.abs().max()) if finite.numel() else 0.0
        same |= (value - first).abs() <= torch.finfo(value.dtype).eps ** 0.5 * largest
    return bool(same.all())


def _sentence(step: Step) -> str:
    source = step.call.source
    place = f"module {source.module}" if source.module else "the model's forward"
    line = f" ({source.line})" if source.line else ""
    return (
        f"{step.call.op} in {place}{line} meets a constant that differs from row to row of the batch, so a "
        "sequence's scores would depend on its place; is it a positional encoding along the wrong axis?"
    )
