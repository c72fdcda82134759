"""Convolutions, lowered to two-dimensional ones whose values lie channels-last in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.convolving import Geometry, Map, MapOnto, adjoint, convolution, ways_back
from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten
from dlgenome.attribution.rules.linear import Linear
from dlgenome.attribution.tiles.kernels import ALL, ONE, TWO

_FEWEST_CHANNELS = 16
"""Narrow convolutions from or to fewer are as any: the first and those of profiles. They cost little, and the
weights of a profile's logits cancel, which rounded ones do not. On CUDA they may be rounded to tf32."""


class ConvolutionRule(Rule):
    """What is true of every convolution."""

    title = "linear (convolution)"
    owns_output = True
    steady = True
    linear = True
    fresh = True


class Convolution(ConvolutionRule):
    """Convolution over one or two axes, with any stride, padding, dilation and grouping.

    A ``narrow`` one takes fewer binary digits than the 24 of float32, where it has many channels: sixteen of
    values, the eight of bfloat16 of multipliers, and of the weights that they meet.
    """

    def __init__(self, axes: int, *, narrow: bool = False) -> None:
        self.axes, self.narrow = axes, narrow

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they run over the batch."""
        return _refused(call)

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """The rule with the weights laid out for both ways."""
        weight, geometry = self._two_axes(args[1]), self._geometry(args)
        there, back = pieces_of(weight, narrow=self.narrow)
        onward = convolution(weight, _bias(args), geometry, n_pieces=there)
        alone, onto = ways_back(weight, geometry, self._size(call), n_pieces=back)
        own = self._on_own_axes
        return BoundConvolution(own(onward), own(alone), self._onto_own_axes(onto))

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values, channels-last in memory."""
        run = convolution(self._two_axes(args[1]), _bias(args), self._geometry(args), is_kept=False)
        return self._on_own_axes(run)(args[0])

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution applied to the multiplier."""
        weight, geometry = self._two_axes(saved.args[1]), self._geometry(saved.args)
        back = adjoint(weight, geometry, self._size(call), is_kept=False)
        return [self._on_own_axes(back)(multiplier)]

    def _size(self, call: Call) -> tuple[int, int]:
        """Height and width of the input."""
        height, width = call.input_infos[0].dims[2:] if self.axes == 2 else (1, call.input_infos[0].dims[2])
        return height, width

    def _two_axes(self, value: Tensor) -> Tensor:
        return value if self.axes == 2 else value.unsqueeze(2)

    def _on_own_axes(self, on_two: Map) -> Map:
        return on_two if self.axes == 2 else lambda value: on_two(value.unsqueeze(2)).squeeze(2)

    def _onto_own_axes(self, onto: MapOnto | None) -> MapOnto | None:
        axes = self._two_axes
        return onto and (lambda multiplier, total: onto(axes(multiplier), axes(total)))

    def _geometry(self, args: tuple[Any, ...]) -> Geometry:
        given = args[3:]
        return Geometry(
            self._pair(given[0] if len(given) > 0 else 1, 1),
            self._pair(given[1] if len(given) > 1 else 0, 0),
            self._pair(given[2] if len(given) > 2 else 1, 1),
            given[3] if len(given) > 3 else 1,
        )

    def _pair(self, value: int | list[int], neutral: int) -> tuple[int, int]:
        values = [value] if isinstance(value, int) else list(value)
        if self.axes == 2:
            return values[0], values[-1]
        return neutral, values[0]


def pieces_of(weight: Tensor, *, narrow: bool) -> tuple[int, int]:
    """Pieces of bfloat16 that values, and multipliers, of a convolution are to count with."""
    return (TWO, ONE) if narrow and min(weight.shape[:2]) >= _FEWEST_CHANNELS else (ALL, ALL)


def _bias(args: tuple[Any, ...]) -> Tensor | None:
    return args[2] if len(args) > 2 else None


class BoundConvolution(ConvolutionRule):
    """A convolution of known weights: its map, the adjoint, and the adjoint added to what is there."""

    def __init__(self, onward: Map, back: Map, back_onto: MapOnto | None) -> None:
        self.onward, self.back, self.back_onto = onward, back, back_onto

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values, channels-last in memory."""
        return self.onward(args[0])

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution applied to the multiplier."""
        return [self.back(multiplier)]

    def backward_onto(self, call: Call, multiplier: Tensor, saved: Backward, total: Tensor) -> bool:
        """The same, added to ``total`` in one pass over memory."""
        return self.back_onto is not None and self.back_onto(multiplier, total)


def _refused(call: Call) -> str | None:
    if call.inputs != (call.args[0],):
        return "its weights depend on the sequence"
    return None if call.input_batch(0).axis == 0 else "it works across the batch; the batch must come first"


class AnyConvolution(Linear):
    """The general operation ``(x, w, b, stride, padding, dilation, transposed, output padding, groups)``."""

    title = "linear (convolution)"

    def __init__(self, *, narrow: bool = False) -> None:
        self.narrow = narrow

    def refusal(self, call: Call) -> str | None:
        """Refused where the weights depend on the sequence, or where they run over the batch."""
        return _refused(call)

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """That of conv1d or conv2d where the call is one of these."""
        plain = self._plain(args)
        return self if plain is None else plain[0].bound(call, plain[1])

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Convolved values; channels-last in memory unless the convolution is transposed."""
        plain = self._plain(args)
        return super().forward(call, args, kwargs) if plain is None else plain[0].forward(call, plain[1], {})

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Adjoint of the convolution; a transposed one through automatic differentiation."""
        plain = self._plain(saved.args)
        if plain is None:
            return super().backward(call, multiplier, saved)
        return plain[0].backward(call, multiplier, replace(saved, args=plain[1]))

    def _plain(self, args: tuple[Any, ...]) -> tuple[Convolution, tuple[Any, ...]] | None:
        """The same convolution as rule and arguments of conv1d or conv2d; None where it is neither."""
        transposed, groups, axes = args[6], args[8], args[1].dim() - 2
        if transposed or axes not in (1, 2):
            return None
        return Convolution(axes, narrow=self.narrow), (*args[:6], groups)


class SamePadding(Convolution):
    """Convolution with ``padding="same"`` or ``"valid"``: padded first where the two sides differ."""

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """That of the convolution with padding in numbers, where both sides are alike."""
        left, right = self._sides(args)
        return super().bound(call, self._with_numbers(args, args[0], left)) if left == right else self

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Convolved values."""
        left, right = self._sides(args)
        padded = args[0] if left == right else F.pad(args[0], self._pads(left, right))
        return super().forward(call, self._with_numbers(args, padded, left), kwargs)

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Adjoint of the convolution, the extra padding cut off."""
        left, right = self._sides(saved.args)
        info = call.input_infos[0]
        extra = [r - n for n, r in zip(left, right, strict=True)]
        dims = (*info.dims[:2], *[d + e for d, e in zip(info.dims[2:], extra, strict=True)])
        widened = _replace_input(call, dims)
        numbers = replace(saved, args=self._with_numbers(saved.args, saved.args[0], left), kwargs={})
        (result,) = super().backward(widened, multiplier, numbers)
        assert result is not None
        for axis, size in enumerate(info.dims[2:], start=2):
            result = result.narrow(axis, 0, size)
        return [result]

    def _sides(self, args: tuple[Any, ...]) -> tuple[list[int], list[int]]:
        weight, mode = args[1], args[4] if len(args) > 4 else "valid"
        dilation = args[5] if len(args) > 5 else [1] * self.axes
        dilation = (
            [dilation] * self.axes
            if isinstance(dilation, int)
            else list(dilation) * (self.axes // len(dilation))
        )
        total = [
            0 if mode == "valid" else d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)
        ]
        return [t // 2 for t in total], [t - t // 2 for t in total]

    @staticmethod
    def _pads(left: list[int], right: list[int]) -> list[int]:
        return [side for n, r in reversed(list(zip(left, right, strict=True))) for side in (0, r - n)]

    @staticmethod
    def _with_numbers(args: tuple[Any, ...], value: Any, left: list[int]) -> tuple[Any, ...]:
        return (
            value,
            args[1],
            args[2] if len(args) > 2 else None,
            args[3] if len(args) > 3 else 1,
            left,
            *args[5:],
        )


def _replace_input(call: Call, dims: tuple[int, ...]) -> Call:
    return replace(call, input_infos=(replace(call.input_infos[0], dims=dims),))


RULES: dict[Any, Rule] = {
    aten.conv1d.default: Convolution(1),
    aten.conv2d.default: Convolution(2),
    aten.convolution.default: AnyConvolution(),
    aten._convolution.default: AnyConvolution(),
    aten.conv1d.padding: SamePadding(1),
    aten.conv2d.padding: SamePadding(2),
}
