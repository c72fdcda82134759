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


def evaluate_constants(program: Program, batch_size: int) -> dict[str, Any]:
    """Every value that does not depend on the sequence, for ``batch_size`` rows."""
    values: dict[str, Any] = dict(program.parameters)
    for node in program.constants:
        meta = node.meta.get("val")
        if isinstance(meta, torch.SymInt):
            values[node.name] = int(meta.node.expr.subs(program.symbol, batch_size))
            continue
        args = torch.fx.map_arg(node.args, lambda n: values[n.name])
        kwargs = torch.fx.map_arg(node.kwargs, lambda n: values[n.name])
        if meta is not None:
            values[node.name] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def require_equal_rows(program: Program, rows: int) -> None:
    """Raise UnsupportedModelError where an operation meets a constant that is not the same in every row.

    A positional encoding that runs along the batch is one: a sequence's prediction, and its scores, would
    depend on its place in the batch.
    """
    growing = {node.name: axes for node in program.constants if (axes := _growing(node))}
    values = evaluate_constants(program, rows) if growing else {}
    for step in program.steps:
        for ref in refs_in((step.call.args, step.call.kwargs)):
            axes = growing.get(ref.name, [])
            if axes and not _is_alike(values[ref.name], axes, step, rows):
                raise UnsupportedModelError(_sentence(step))


def _growing(node: fx.Node) -> list[int]:
    """Axes of a constant tensor whose size grows with the batch."""
    value = node.meta.get("val")
    return [a for a, size in enumerate(value.shape) if is_open(size)] if isinstance(value, Tensor) else []


def _is_alike(value: Tensor, axes: list[int], step: Step, rows: int) -> bool:
    if len(axes) > 1:
        return False
    (axis,) = axes
    batch, size = step.call.batch, value.shape[axis]
    same = size == batch.outer * batch.inner * rows
    place = BatchAxis(axis, batch.outer, batch.inner) if same else BatchAxis(axis, 1, size // rows)
    unfolded = unfold(value, place, rows)
    return bool((unfolded == unfolded.narrow(axis + 1, 0, 1)).all())


def _sentence(step: Step) -> str:
    source = step.call.source
    place = f"module {source.module}" if source.module else "the model's forward"
    line = f" ({source.line})" if source.line else ""
    return (
        f"{step.call.op} in {place}{line} meets a constant that differs from row to row of the batch, so a "
        "sequence's scores would depend on its place; is it a positional encoding along the wrong axis?"
    )
