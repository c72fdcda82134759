"""A residual connection: a value plus the ReLU of another, in one pass over memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlgenome.attribution.kernels import add_relu, pair_rows, relu_multiplier
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Ref, Rule
from dlgenome.attribution.rules.elementwise import RELU


class ResidualRelu(Rule):
    """``a + max(b, 0)``: a gets the multiplier of the sum, b that times the secant of ReLU.

    Stands for two operations of a program; `rewriting.py` puts it in their place.
    """

    title = "sum, rescale (piecewise linear)"
    owns_output = True
    steady = True

    def kept(self, call: Call) -> tuple[Ref, ...]:
        """The input of ReLU."""
        return call.inputs[1:]

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The sum, as wide as the wider of its terms."""
        first, second = args[0], args[1].relu()
        total: Tensor = second.add_(first) if first.dtype is second.dtype else first + second
        return total

    def forward_over(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The sum, in the place of its first term where both lie in memory alike."""
        return args[0] if add_relu(*args) else self.forward(call, args, kwargs)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """The multiplier, and its product with the secant."""
        batch = call.input_batch(1)
        kept = saved.sequences[0], saved.references[0]
        fused = relu_multiplier(pair_rows(*kept, multiplier, saved.step, batch, saved.spare))
        if fused is None:
            secant = RELU.secant(call, saved.sequence(0, batch), saved.reference(0, batch), saved)
            fused = saved.step.flat_pairs(secant.mul_(saved.step.pair_part(multiplier, batch)), batch)
        return [multiplier, fused]


RESIDUAL_RELU = ResidualRelu()
