"""Convolutions as functions of a value, each computed the way that the processor does fastest.

Values are (batch, channels, height, width), channels-last in memory. What depends on the weights alone is
worked out once, when the function is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.onednn import convolve_onto
from dlgenome.attribution.tiles.convolution import tiled
from dlgenome.attribution.tiles.kernels import ALL, ONE, TWO
from dlgenome.attribution.winograd import (
    WORTH_IT,
    cost_of_place,
    narrow_winograd,
    rounds_little,
    winograd,
)

Map = Callable[[Tensor], Tensor]
MapOnto = Callable[[Tensor, Tensor], bool]
"""Adds what it makes of the first to the second, in its place; False, and nothing done, where it cannot."""


class OwnPasses(Protocol):
    """A convolution that no library computes; values are channels-last."""

    def suits(self, value: Tensor) -> bool:
        """Whether a value is of a kind and a length that it knows and is fast with."""

    def __call__(self, value: Tensor) -> Tensor:
        """Convolved values."""

    def onto(self, value: Tensor, total: Tensor) -> None:
        """The same, added to ``total``."""


_ONE_PIECE_WORTH_IT = WORTH_IT / 2
"""The share WORTH_IT for one piece, of the library's time in float32: with bfloat16 it takes half of that."""
_LANES = 16
"""Outputs that the processor computes at once; libraries fill up with zeros what is missing."""
_FAR = 2**16
"""Dilation times channels from which a library's kernel finds nothing of one offset in the cache any more."""


@dataclass(frozen=True)
class Geometry:
    """How the kernel moves, for both axes."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def convolution(
    weight: Tensor, bias: Tensor | None, geometry: Geometry, *, n_pieces: int = ALL, is_kept: bool = True
) -> Map:
    """The convolution with weights (outputs, channels, height, width).

    Weights and values count with so many pieces at least: with one they are rounded to bfloat16, with two to
    sixteen binary digits where that is faster. Where it is not kept for many values, nothing is worked out
    that takes about as long as one of them.
    """
    own = _by_own_passes(weight, bias, geometry, n_pieces) if is_kept else None
    return _faster(own, weight, bias, geometry, n_pieces)


def _faster(
    own: OwnPasses | None, weight: Tensor, bias: Tensor | None, geometry: Geometry, n_pieces: int
) -> Map:
    """Our own passes for values that suit them, the library for all others."""
    plain = _of_rounded(weight, bias, geometry) if n_pieces == ONE else _plain(weight, bias, geometry)
    return plain if own is None else lambda value: own(value) if own.suits(value) else plain(value)


def _of_rounded(weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Map:
    rounded = _plain(weight.bfloat16(), None, geometry)

    def run(value: Tensor) -> Tensor:
        made = rounded(value.bfloat16()).to(value.dtype)
        return made if bias is None else made.add_(bias.view(-1, 1, 1))

    return run


def _by_own_passes(
    weight: Tensor, bias: Tensor | None, geometry: Geometry, n_pieces: int
) -> OwnPasses | None:
    """One that is faster than the library's; None where there is none."""
    if not _is_along_width(weight, geometry):
        return None
    padding, dilation = geometry.padding[1], geometry.dilation[1]
    made: OwnPasses | None
    if n_pieces == ONE:
        made = tiled(weight, bias, padding, dilation, n_pieces, at_most=_ONE_PIECE_WORTH_IT * weight.numel())
        return made or narrow_winograd(weight, bias, padding, dilation)
    fewest = min(WORTH_IT * weight.numel(), cost_of_place(weight))
    made = tiled(weight, bias, padding, dilation, n_pieces, at_most=fewest)
    if made is None and n_pieces == TWO and rounds_little(weight):
        made = narrow_winograd(weight, bias, padding, dilation)
    return made or winograd(weight, bias, padding, dilation)


def _is_along_width(weight: Tensor, geometry: Geometry) -> bool:
    """Whether every output looks at one line of the value, and outputs at neighbouring places."""
    in_line = weight.shape[2] == 1 and geometry.padding[0] == 0
    return in_line and geometry.stride == (1, 1) and geometry.groups == 1


def _plain(weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Map:
    outputs, channels, _, width = weight.shape
    if weight.device.type == "cpu" and _is_along_width(weight, geometry):
        padding, dilation = geometry.padding[1], geometry.dilation[1]
        if outputs <= _LANES // 2 and width >= 8 and dilation == 1:
            return _several_places_at_once(weight, bias, padding)
        if channels <= 2 and width >= 16 and dilation == 1:
            return _inputs_of_several_places(weight, bias, padding)
        if dilation * channels >= _FAR:
            return _offset_by_offset(weight, bias, padding, dilation)
    arguments = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    laid_out = channels_last(weight)
    return lambda value: F.conv2d(channels_last(value), laid_out, bias, *arguments)


def adjoint(weight: Tensor, geometry: Geometry, size: tuple[int, int], *, is_kept: bool = True) -> Map:
    """The adjoint of a convolution of values of height and width ``size``.

    With stride 1 it is a convolution with flipped, transposed weights: processors' libraries are several
    times faster at those than at transposed convolutions.
    """
    return ways_back(weight, geometry, size, is_kept=is_kept)[0]


def adjoint_onto(
    weight: Tensor, geometry: Geometry, size: tuple[int, int], *, n_pieces: int = ALL
) -> MapOnto | None:
    """The adjoint, added to a value on the way; None where that is no faster than one after the other."""
    return ways_back(weight, geometry, size, n_pieces=n_pieces)[1]


def ways_back(
    weight: Tensor, geometry: Geometry, size: tuple[int, int], *, n_pieces: int = ALL, is_kept: bool = True
) -> tuple[Map, MapOnto | None]:
    """:func:`adjoint` and :func:`adjoint_onto`, which share what is worked out for them."""
    as_convolution = _adjoint_as_convolution(weight, geometry)
    if as_convolution is None:
        return _transposed(weight, geometry, size, n_pieces), None
    flipped, back = as_convolution
    own = _by_own_passes(flipped, None, back, n_pieces) if is_kept else None
    alone = _faster(own, flipped, None, back, n_pieces)
    # with one output the order of memory is anybody's, and what comes out is not channels-last
    return lambda multiplier: channels_last(alone(multiplier)), _onto(own, flipped, back, size, n_pieces)


def _transposed(weight: Tensor, geometry: Geometry, size: tuple[int, int], n_pieces: int) -> Map:
    reach = _reach(weight, geometry)
    used = weight.bfloat16() if n_pieces == ONE else weight

    def transposed(multiplier: Tensor) -> Tensor:
        sizes = zip(size, multiplier.shape[2:], geometry.stride, geometry.padding, reach, strict=True)
        extra = [n - ((o - 1) * s - 2 * p + r + 1) for n, o, s, p, r in sizes]
        made = F.conv_transpose2d(
            channels_last(multiplier.to(used.dtype)), used, None, geometry.stride, geometry.padding,
            extra, geometry.groups, geometry.dilation,
        )  # fmt: skip
        return made.to(multiplier.dtype)

    return transposed


def _onto(
    own: OwnPasses | None, flipped: Tensor, back: Geometry, size: tuple[int, int], n_pieces: int
) -> MapOnto | None:
    if flipped.device.type != "cpu":
        return None
    made, given = flipped.shape[:2]
    few_or_far = min(made, given) < _LANES or back.dilation[1] * given >= _FAR
    by_library = n_pieces != ONE and not few_or_far

    def fits(multiplier: Tensor) -> bool:
        sides = zip(multiplier.shape[2:], back.padding, _reach(flipped, back), size, strict=True)
        return all(there + 2 * padding - reach == wanted for there, padding, reach, wanted in sides)

    def run(multiplier: Tensor, total: Tensor) -> bool:
        shape = (len(multiplier), made, *size)
        rows = total.permute(0, 2, 3, 1)
        if total.shape != shape or not rows[0].is_contiguous() or not fits(multiplier):
            return False
        if own is not None and total.dtype is torch.float32 and own.suits(multiplier):
            own.onto(channels_last(multiplier), total)
            return True
        if not by_library or not rows.is_contiguous():
            return False
        return convolve_onto(total, channels_last(multiplier), flipped, back.padding, back.dilation)

    return run if own is not None or by_library else None


def _adjoint_as_convolution(weight: Tensor, geometry: Geometry) -> tuple[Tensor, Geometry] | None:
    """Flipped, transposed weights and how they move; None where the adjoint is no such convolution."""
    reach = _reach(weight, geometry)
    before = (reach[0] - geometry.padding[0], reach[1] - geometry.padding[1])
    if geometry.stride != (1, 1) or geometry.groups != 1 or min(before) < 0:
        return None
    flipped = channels_last(weight.flip(2, 3).transpose(0, 1))
    return flipped, Geometry((1, 1), before, geometry.dilation, 1)


def _reach(weight: Tensor, geometry: Geometry) -> tuple[int, int]:
    """Places between the first and the last that one output looks at."""
    down, along = geometry.dilation
    return down * (weight.shape[2] - 1), along * (weight.shape[3] - 1)


def _several_places_at_once(weight: Tensor, bias: Tensor | None, padding: int) -> Map:
    """Few outputs: as many neighbouring places as fill the processor's lanes are outputs of one place.

    A kernel of so many places more holds the weights once for each of them, one place further on, and moves
    by all of them. Channels-last, its outputs lie in memory as those of the convolution itself.
    """
    outputs, channels, _, width = weight.shape
    places = _LANES // outputs
    wide = weight.new_zeros(places, outputs, channels, 1, width + places - 1)
    for place in range(places):
        wide[place, ..., place : place + width] = weight
    wide = channels_last(wide.flatten(0, 1))
    biases = None if bias is None else bias.repeat(places)

    def run(value: Tensor) -> Tensor:
        size = value.shape[3] + 2 * padding - width + 1
        extra = -size % places
        groups = (size + extra) // places
        made = F.conv2d(channels_last(value), wide, biases, (1, places), (0, padding + extra))
        by_place = channels_last(made[..., :groups]).permute(0, 2, 3, 1)
        by_place = by_place.reshape(*by_place.shape[:2], groups * places, outputs)
        return by_place[:, :, extra : extra + size].permute(0, 3, 1, 2)

    return run


def _inputs_of_several_places(weight: Tensor, bias: Tensor | None, padding: int) -> Map:
    """One or two inputs: those of four neighbouring places count as inputs of one, and so do the outputs.

    A library's kernel takes inputs several at a time, too, and finds no more than these.
    """
    outputs, channels, _, width = weight.shape
    places = 4
    blocks = -(-(width + places - 1) // places)
    wide = weight.new_zeros(places, outputs, blocks * places, channels)
    for place in range(places):
        wide[place, :, place : place + width] = weight[:, :, 0].transpose(1, 2)
    wide = wide.reshape(places * outputs, blocks, places * channels).transpose(1, 2).unsqueeze(2)
    wide = channels_last(wide.contiguous())
    biases = None if bias is None else bias.repeat(places)

    def run(value: Tensor) -> Tensor:
        batch, _, height, length = value.shape
        size = length + 2 * padding - width + 1
        groups = -(-size // places)
        rows = value.new_zeros(batch, height, (groups + blocks - 1) * places, channels)
        rows[:, :, padding : padding + length] = value.permute(0, 2, 3, 1)
        grouped = rows.view(batch, height, -1, places * channels).permute(0, 3, 1, 2)
        by_place = F.conv2d(grouped, wide, biases).permute(0, 2, 3, 1)
        by_place = by_place.reshape(batch, height, groups * places, outputs)
        return by_place[:, :, :size].permute(0, 3, 1, 2)

    return run


def _offset_by_offset(weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Map:
    """A sum of products of matrices, one for each offset; offsets that look beyond the value are left out."""
    outputs, _, _, width = weight.shape
    kernels = [weight[:, :, 0, place].T.contiguous() for place in range(width)]
    offsets = [place * dilation - padding for place in range(width)]
    start = weight.new_zeros(outputs) if bias is None else bias

    def run(value: Tensor) -> Tensor:
        rows = channels_last(value).permute(0, 2, 3, 1).flatten(0, 1)
        length = rows.shape[1]
        size = length + 2 * padding - dilation * (width - 1)
        made = start.repeat(len(rows), size, 1)
        for offset, kernel in zip(offsets, kernels, strict=True):
            first, last = max(0, -offset), min(size, length - offset)
            if first < last:
                seen = rows[:, first + offset : last + offset]
                made[:, first:last].baddbmm_(seen, kernel.expand(len(rows), -1, -1))
        return made.view(len(value), -1, size, outputs).permute(0, 3, 1, 2)

    return run


def channels_last(value: Tensor) -> Tensor:
    """Value of shape (batch, channels, height, width) lying in memory as (batch, height, width, channels)."""
    return value.contiguous(memory_format=torch.channels_last)
