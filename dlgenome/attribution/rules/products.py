"""Products and quotients of values that may both depend on the sequence.

``a b`` changes by ``(b_x + b_r)/2 (a_x - a_r) + (a_x + a_r)/2 (b_x - b_r)``, exactly: each factor gets the
mean of the other. This is the Shapley value of a two-player product.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten, unbroadcast
from dlgenome.attribution.rules.composed import Logarithm
from dlgenome.attribution.rules.elementwise import Exp, Square
from dlgenome.attribution.rules.linear import LINEAR


def midpoint(saved: Backward, index: int, call: Call) -> Tensor:
    """Mean of a kept input over sequence and reference, on the pair rows."""
    batch = call.input_batch(index)
    middle = (saved.sequence(index, batch) + saved.reference(index, batch)).div_(2)
    return saved.step.flat_pairs(middle, batch)


class Product(Rule):
    """Elementwise product; with a constant factor it is linear."""

    title = "product"
    steady = True
    keeps = "inputs"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier times the mean of the other factor."""
        shapes = [info.shape(saved.step.pairs) for info in call.input_infos]
        if len(call.inputs) == 1 and call.args[0] == call.args[1]:
            batch = call.input_batch(0)
            secant = Square().secant(call, saved.sequence(0, batch), saved.reference(0, batch), saved)
            return [saved.step.flat_pairs(secant.mul_(saved.step.pair_part(multiplier, batch)), batch)]
        if len(call.inputs) == 1:
            constant = saved.args[1] if call.depends(call.args[0]) else saved.args[0]
            return [unbroadcast(multiplier * constant, shapes[0])]
        return [unbroadcast(multiplier * midpoint(saved, 1 - index, call), shapes[index]) for index in (0, 1)]


class Quotient(Rule):
    """Elementwise quotient ``a / b``: the product of a with the reciprocal of b."""

    title = "product (quotient)"
    keeps = "inputs"

    def refusal(self, call: Call) -> str | None:
        """Refused with a rounding mode, which is no quotient any more."""
        return "it rounds the quotient" if call.kwargs.get("rounding_mode") else None

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Numerator: mean of 1/b; denominator: mean of a times the secant -1/(b_x b_r)."""
        shapes = [info.shape(saved.step.pairs) for info in call.input_infos]
        if not call.depends(call.args[1]):
            return [unbroadcast(multiplier / saved.args[1], shapes[0])]
        last = len(call.inputs) - 1
        batch = call.input_batch(last)
        x, r = saved.sequence(last, batch), saved.reference(last, batch)
        secant = saved.step.flat_pairs((x * r).reciprocal_().neg_(), batch)
        if call.args[0] == call.args[1]:
            return [multiplier.new_zeros(()).expand(shapes[0])]
        if not call.depends(call.args[0]):
            return [unbroadcast(multiplier * saved.args[0] * secant, shapes[0])]
        inverse = saved.step.flat_pairs((x.reciprocal() + r.reciprocal()).div_(2), batch)
        return [
            unbroadcast(multiplier * inverse, shapes[0]),
            unbroadcast(multiplier * midpoint(saved, 0, call) * secant, shapes[1]),
        ]


class MatrixProduct(Rule):
    """Matrix product of two values, or of a value and a constant."""

    title = "product (matrix)"
    keeps = "inputs"

    def refusal(self, call: Call) -> str | None:
        """Refused where two values are multiplied across the batch, or one of them is a vector."""
        if len(call.inputs) == 1 and call.args[0] != call.args[1]:
            return "it multiplies across the batch" if self._sums_rows(call) else None
        if any(len(info.dims) < 2 for info in (*call.input_infos, call.output)):
            return "a factor is a vector; write it as a matrix"
        if any(i.batch and i.batch.axis >= len(i.dims) - 2 for i in call.input_infos):
            return "it multiplies across the batch"
        return None

    @staticmethod
    def _sums_rows(call: Call) -> bool:
        """Whether the axis summed over is the batch: the last of the left factor, the last but one else."""
        dims, axis = len(call.input_infos[0].dims), call.input_batch(0).axis
        return axis == (dims - 1 if call.depends(call.args[0]) else max(dims - 2, 0))

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Left: multiplier times the mean right factor, transposed; right: likewise."""
        if len(call.inputs) == 1 and call.args[0] != call.args[1]:
            return LINEAR.backward(call, multiplier, saved)
        shapes = [info.shape(saved.step.pairs) for info in call.input_infos]
        left, right = call.args[:2]
        square = len(call.inputs) == 1 and left == right
        values = [
            midpoint(saved, 0 if square else call.inputs.index(ref), call) if call.depends(ref) else value
            for ref, value in zip((left, right), saved.args[:2], strict=True)
        ]
        to_left = multiplier @ values[1].transpose(-1, -2) if call.depends(left) else None
        to_right = values[0].transpose(-1, -2) @ multiplier if call.depends(right) else None
        if square:
            assert to_left is not None
            assert to_right is not None
            return [unbroadcast(to_left, shapes[0]) + unbroadcast(to_right, shapes[0])]
        parts = [part for part in (to_left, to_right) if part is not None]
        return [unbroadcast(part, shape) for part, shape in zip(parts, shapes, strict=True)]


class PowerOfTwo(Rule):
    """``a^b`` with both from the sequence, a positive: a secant of exp times the parts of ``b ln a``.

    With E the secant of exp between the two values of ``b ln a`` and L that of ln between those of a, the
    base gets ``E mean(b) L`` and the exponent ``E mean(ln a)``.
    """

    title = "product (power)"
    keeps = "inputs"

    def refusal(self, call: Call) -> str | None:
        """Refused with a constant base or exponent: that is a function of one value."""
        return None if len(call.inputs) == 2 else "write it with a number as exponent or base"

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multipliers of base and exponent."""
        shapes = [info.shape(saved.step.pairs) for info in call.input_infos]
        (a_x, a_r), (b_x, b_r) = (_on_pairs(saved, index, call) for index in (0, 1))
        log_x, log_r = a_x.log(), a_r.log()
        along = multiplier * Exp().secant(call, b_x * log_x, b_r * log_r, saved)
        to_base = along * (b_x + b_r) / 2 * Logarithm().secant(call, a_x, a_r, saved)
        to_exponent = along * (log_x + log_r) / 2
        return [unbroadcast(to_base, shapes[0]), unbroadcast(to_exponent, shapes[1])]


def _on_pairs(saved: Backward, index: int, call: Call) -> tuple[Tensor, Tensor]:
    """A kept input of sequence and of reference, both on the pair rows."""
    batch = call.input_batch(index)
    x, r = saved.sequence(index, batch), saved.reference(index, batch)
    return saved.step.flat_pairs(x.expand_as(r), batch), saved.step.flat_pairs(r, batch)


RULES: dict[Any, Rule] = {
    aten.mul.Tensor: Product(),
    aten.mul.Scalar: Product(),
    aten.div.Tensor: Quotient(),
    aten.div.Scalar: Quotient(),
    aten.pow.Tensor_Tensor: PowerOfTwo(),
    aten.matmul.default: MatrixProduct(),
    aten.bmm.default: MatrixProduct(),
    aten.mm.default: MatrixProduct(),
}
