"""What becomes of a residual connection where each layer needs fewer positions than the one before.

On the way back the multiplier of such a sum is not put between zeros at every layer: from the last layer on
it has all positions of the first sum, those that do not count being zero, and every layer adds to it where
it lies. A value of the forward pass has its own positions and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from dlgenome.attribution.convolving import Geometry, MapOnto, adjoint_onto
from dlgenome.attribution.kernels import cropped_sum, pair_rows, relu_multiplier
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule
from dlgenome.attribution.rules.convolution import (
    AnyConvolution,
    Convolution,
    ConvolutionRule,
    pieces_of,
)
from dlgenome.attribution.rules.elementwise import RELU
from dlgenome.attribution.rules.linear import Linear, zeros_like_layout
from dlgenome.attribution.rules.residual import ResidualRelu


@dataclass(frozen=True, slots=True)
class Place:
    """Where the positions of a value lie among those of its multiplier, or of another value."""

    start: int
    length: int
    """Positions of the multiplier."""

    def cut(self, wide: Tensor, width: int) -> Tensor:
        """So many positions of the multiplier, from the first that counts."""
        return wide.narrow(-1, self.start, width)

    def between_zeros(self, multiplier: Tensor, call: Call, step: StepShape) -> Tensor:
        """A multiplier of the input of a call in its place, zeros elsewhere."""
        shape = call.input_infos[0].shape(step.pairs)
        full = zeros_like_layout(multiplier, (*shape[:-1], self.length))
        self.cut(full, shape[-1]).copy_(multiplier)
        return full


class Spread(Linear):
    """The value itself; its multiplier is put between zeros."""

    title = "identity"
    fresh = True

    def __init__(self, place: Place) -> None:
        self.place = place

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Input itself."""
        return args[0]

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier in its place, zeros elsewhere."""
        return [self.place.between_zeros(multiplier, call, saved.step)]


class CroppedResidualRelu(ResidualRelu):
    """``a + max(b, 0)`` at the positions of b, which are ``start`` and the next ones of a.

    The multiplier, of the sum and of a alike, has all positions of ``place``.
    """

    def __init__(self, start: int, place: Place) -> None:
        self.start, self.place = start, place

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The sum at the positions of b."""
        return self._sum(call, args, over=False)

    def forward_over(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The sum, at the beginning of the memory of a where both lie in memory alike."""
        return self._sum(call, args, over=True)

    def _sum(self, call: Call, args: tuple[Any, ...], over: bool) -> Tensor:
        made = cropped_sum(args[0], self.start, args[1], over)
        cut = args[0].narrow(-1, self.start, call.output.dims[-1])
        return super().forward(call, (cut, args[1]), {}) if made is None else made

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """The multiplier, and the product of what counts of it with the secant."""
        batch, start = call.input_batch(1), self.place.start
        kept = saved.sequences[0], saved.references[0]
        fused = relu_multiplier(pair_rows(*kept, multiplier, saved.step, batch, saved.spare, start))
        if fused is None:
            secant = RELU.secant(call, saved.sequence(0, batch), saved.reference(0, batch), saved)
            counting = saved.step.pair_part(self.place.cut(multiplier, call.output.dims[-1]), batch)
            fused = saved.step.flat_pairs(secant.mul_(counting), batch)
        return [multiplier, fused]


class SpreadConvolution(ConvolutionRule):
    """A convolution along positions whose input has a multiplier with more of them.

    ``padding`` is that of the same convolution of a value with all positions of ``place``, less than none
    where it would not see the outermost; None where its sides differ, or it is better computed apart.
    """

    def __init__(self, rule: Convolution | AnyConvolution, place: Place, padding: int | None) -> None:
        self.rule, self.place, self.padding = rule, place, padding

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for both ways."""
        inside = self.rule.bound(call, args)
        return _BoundSpread(inside, self.place, cache(lambda: self._onto(call, args)))

    def _onto(self, call: Call, args: tuple[Any, ...]) -> MapOnto | None:
        if self.padding is None:
            return None
        weight = args[1].unsqueeze(2)
        dilation = args[5] if len(args) > 5 else 1
        along = dilation if isinstance(dilation, int) else dilation[0]
        groups = call.input_infos[0].dims[1] // weight.shape[1]
        geometry = Geometry((1, 1), (0, self.padding), (1, along), groups)
        _, back = pieces_of(weight, narrow=self.rule.narrow)
        return adjoint_onto(weight, geometry, (1, self.place.length), n_pieces=back)


class _BoundSpread(ConvolutionRule):
    """A convolution of known weights; ``onto`` lays them out once more, where it is asked for at all."""

    def __init__(self, inside: Rule, place: Place, onto: Callable[[], MapOnto | None]) -> None:
        self.inside, self.place, self.onto = inside, place, onto

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Convolved values."""
        return self.inside.forward(call, args, kwargs)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution applied to the multiplier, between zeros."""
        return [self.place.between_zeros(self._back(call, multiplier, saved), call, saved.step)]

    def backward_onto(self, call: Call, multiplier: Tensor, saved: Backward, total: Tensor) -> bool:
        """The same, added to what counts of ``total``."""
        counting = self.place.cut(total, call.input_infos[0].dims[-1])
        if self.inside.backward_onto(call, multiplier, saved, counting):
            return True
        onto = self.onto()
        if onto is None or not onto(multiplier.unsqueeze(2), total.unsqueeze(2)):
            counting.add_(self._back(call, multiplier, saved))
        return True

    def _back(self, call: Call, multiplier: Tensor, saved: Backward) -> Tensor:
        (found,) = self.inside.backward(call, multiplier, saved)
        assert found is not None, "a convolution has a multiplier for its input"
        return found
