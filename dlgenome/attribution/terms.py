"""What the arguments of an operation are to its differences: weights, factors, signed terms, constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.lowering import Step
from dlgenome.attribution.rules.base import aten
from dlgenome.attribution.rules.batch_norm import BatchNorm
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution
from dlgenome.attribution.rules.dense import Dense
from dlgenome.attribution.rules.linear import Add, Negate
from dlgenome.attribution.rules.products import MatrixProduct, Product, Quotient

_FILLERS = {aten.constant_pad_nd.default: 2, aten.pad.default: 3, aten.masked_fill.Scalar: 2}
"""Linear operations that put a number beside the values they carry, and its place among their arguments."""


def weight_position(step: Step) -> int | None:
    """Where the constant weights of a layer stand among its arguments; None for other operations."""
    rule, call = step.rule, step.call
    if isinstance(rule, (Convolution, AnyConvolution, Dense)):
        return 1
    if isinstance(rule, MatrixProduct) and len(call.inputs) == 1 and call.args[0] != call.args[1]:
        return 1 if call.depends(call.args[0]) else 0
    return None


def scales(step: Step) -> bool:
    """Whether an operation multiplies differences by factors: k x, x / k, a b, batch-norm."""
    by_constant = isinstance(step.rule, Quotient) and not step.call.depends(step.call.args[1])
    return by_constant or isinstance(step.rule, (BatchNorm, Product))


def signs(step: Step) -> list[float]:
    """+1 or -1 for every sequence-dependent input of a linear operation."""
    call = step.call
    if isinstance(step.rule, Negate):
        return [-1.0]
    if isinstance(step.rule, Add):
        alpha = step.rule.sign * call.kwargs.get("alpha", 1)
        return [float((call.args[0] == ref) + alpha * (call.args[1] == ref)) for ref in call.inputs]
    return [1.0] * len(call.inputs)


def without_constants(step: Step, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a linear operation with zeros for whatever adds nothing to a difference."""
    place = _FILLERS.get(step.call.op)
    if place is not None and len(args) > place and args[place] is not None:
        args = (*args[:place], 0, *args[place + 1 :])
    blank: tuple[Any, ...] = _blank(args, numbers=isinstance(step.rule, Add))
    return blank


def _blank(args: Any, numbers: bool) -> Any:
    """Arguments whose floating-point tensors are zero; plain numbers, too, where they are terms of a sum."""
    if numbers and isinstance(args, (int, float)):
        return 0
    if isinstance(args, Tensor):
        return torch.zeros_like(args) if args.is_floating_point() else args
    if isinstance(args, (list, tuple)):
        return type(args)(_blank(arg, numbers) for arg in args)
    return args
