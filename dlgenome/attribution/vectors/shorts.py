"""Rows of numbers as whole numbers of sixteen bits, each row with a step of its own, compiled.

A processor multiplies two pairs of such numbers, and adds both products up, in the time of one product of
float32. The sums are whole numbers of 32 bits, and exact as long as these hold them. They do: a sum of
products is no larger than the lengths of both factors, taken as vectors, multiplied (Cauchy and Schwarz), and
steps are so long that these stay below 2^15 and 2^16, for every part of a row that is summed up at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import types
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.vectors.choices import first_of, load_some
from dlgenome.attribution.vectors.numbers import (
    LANES,
    VECTOR,
    Numbers,
    all_of,
    at_least,
    call,
    in_llvm,
    register_of,
    size_of,
    store,
    times,
    times_plus,
)
from dlgenome.attribution.vectors.products import BYTES_AT_ONCE, Factor, multiply
from dlgenome.compiled import compiled, compiled_in_place

Shorts = NDArray[np.int16]
AT_ONCE = BYTES_AT_ONCE // 2
"""Numbers of a row that are summed up as whole ones."""
LONGEST = np.float32(2**15 - 8)
"""Of rows, in steps: rounding makes them longer by less than six, differences of rounded ones by twelve."""
_LONGEST_COLUMN = 2**16 - 16
_LARGEST = 2**15 - 1
_ZERO, _ONE, _FEW, _MANY = np.float32(0), np.float32(1), np.float32(1e-30), np.float32(1e30)
LEAST = np.float32(1e-33)
"""Length that still has a finite reciprocal in steps; shorter rows are taken for so long."""
GROUP = 2 * LANES
"""Whole numbers in a vector."""
_INT = ir.IntType(32)
_WORDS, _SHORTS = ir.VectorType(_INT, LANES), ir.VectorType(ir.IntType(16), GROUP)
_QUARTERS = ir.VectorType(ir.IntType(64), 8)


@in_llvm
def holds_shorts(typing: Any, array: Any) -> Any:
    """Whether an array is of whole numbers of sixteen bits: known when the function is compiled."""
    answer = array.dtype == types.int16
    return types.boolean(array), lambda *_: ir.Constant(ir.IntType(1), int(answer))


WHOLE = register_of("whole", _SHORTS)
"""Thirty-two whole numbers of sixteen bits."""


@in_llvm
def whole(typing: Any, low: Any, high: Any) -> Any:
    """The nearest whole numbers to those of two vectors; no number becomes zero or the smallest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing, everywhere = ir.Constant(_WORDS, ir.Undefined), ir.Constant(ir.IntType(LANES), -1)
        as_set, name = ir.Constant(_INT, 4), "llvm.x86.avx512.mask.cvtps2dq.512"
        words = [call(builder, name, _WORDS, vector, nothing, everywhere, as_set) for vector in arguments]
        # of each quarter of both vectors by turns, which is put in order again
        packed = builder.bitcast(call(builder, "llvm.x86.avx512.packssdw.512", _SHORTS, *words), _QUARTERS)
        order = ir.Constant(ir.VectorType(_INT, 8), [0, 2, 4, 6, 1, 3, 5, 7])
        in_order = builder.shuffle_vector(packed, ir.Constant(_QUARTERS, ir.Undefined), order)
        return builder.bitcast(in_order, _SHORTS)

    return WHOLE(low, high), generate


def _of_two(make: Callable[[Any, Any, Any], Any]) -> Any:
    @in_llvm
    def combined(typing: Any, first: Any, second: Any) -> Any:
        return WHOLE(first, second), lambda context, builder, signature, both: make(builder, *both)

    return combined


whole_plus = _of_two(lambda builder, a, b: builder.add(a, b))
whole_minus = _of_two(lambda builder, a, b: builder.sub(a, b))


@in_llvm
def sum_of(typing: Any, vector: Any) -> Any:
    """The sum of the sixteen numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing, name = ir.Constant(ir.FloatType(), -0.0), f"llvm.vector.reduce.fadd.v{LANES}f32"
        return call(builder, name, ir.FloatType(), nothing, *arguments, may=("reassoc",))

    return types.float32(VECTOR), generate


@in_llvm
def _top_of(typing: Any, vector: Any) -> Any:
    """The largest of the sixteen numbers, where all are numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", ir.FloatType(), arguments[0])

    return types.float32(VECTOR), generate


@compiled
def is_ordinary(squares: Any) -> bool:
    """Whether the squares that were added up have neither vanished nor become too many; or are no number."""
    return bool(_FEW < squares < _MANY or np.isnan(squares))


@compiled
def _length(values: Numbers, at: int, count: int, scales: Numbers, scale: int) -> Any:
    """Of so many numbers, times their scales, as a vector; of the longest part that is summed up at once."""
    found = _squares(values, at, count, scales, scale, _ONE)
    if is_ordinary(found):
        return np.sqrt(found)
    unit = unit_for(largest_of(values, at, count, scales, scale))
    return max(unit * np.sqrt(_squares(values, at, count, scales, scale, unit)), LEAST)


@compiled
def largest_of(values: Numbers, at: int, count: int, scales: Numbers, scale: int) -> Any:
    """Of so many numbers, times their scales, without signs."""
    largest = all_of(LEAST)
    for number in range(0, count, LANES):
        largest = at_least(largest, size_of(_scaled(values, at, number, count, scales, scale)))
    return _top_of(largest)


@compiled
def unit_for(largest: Any) -> Any:
    """A power of two whose square, in which squares can be added up, is near that of the largest."""
    return np.float32(math.ldexp(1.0, math.frexp(largest)[1] - 1))


@compiled
def _squares(values: Numbers, at: int, count: int, scales: Numbers, scale: int, unit: Any) -> Any:
    """The largest sum of squares, in squares of a unit; no number where one is none."""
    most, all_squares, finer = _ZERO, _ZERO, all_of(_ONE / unit)
    for begin in range(0, count, AT_ONCE):
        squares, end = all_of(_ZERO), min(count, begin + AT_ONCE)
        for number in range(begin, end, LANES):
            some = times(_scaled(values, at, number, count, scales, scale), finer)
            squares = times_plus(some, some, squares)
        of_part = sum_of(squares)
        most, all_squares = max(most, of_part), all_squares + of_part
    return all_squares if np.isnan(all_squares) else most


@compiled_in_place
def _scaled(values: Numbers, at: int, number: int, count: int, scales: Numbers, scale: int) -> Any:
    """Sixteen numbers times their scales, zeros after the last."""
    which = first_of(count - number)
    return times(load_some(values, at + number, which), load_some(scales, scale + number, which))


@compiled
def shorten(
    values: Numbers, at: int, n_rows: int, channels: int, scales: Numbers, scale: int, out: Shorts, to: int,
    steps: Numbers, step: int,
) -> None:  # fmt: skip
    """Put rows of numbers, times the scales of channels, as whole ones, and their steps.

    They are filled up with zeros to whole vectors.
    """
    room = channels + -channels % GROUP
    for row in range(n_rows):
        begin = at + row * channels
        steps[step + row] = _length(values, begin, channels, scales, scale) / LONGEST
        finer = all_of(_ONE / steps[step + row])
        for number in range(0, channels, GROUP):
            low = _scaled(values, begin, number, channels, scales, scale)
            high = _scaled(values, begin, number + LANES, channels, scales, scale)
            store(out, to + row * room + number, whole(times(low, finer), times(high, finer)))


@compiled
def multiply_all_shortened(
    values: Numbers, values_apart: int, n_places: int, channels: int, weights: Factor, outputs: int,
    sums: Numbers, sums_apart: int, first: int, last: int, onto: bool,
) -> None:  # fmt: skip
    """As :func:`dlgenome.attribution.vectors.products.multiply_all`, of values as whole numbers."""
    room = channels + -channels % GROUP
    whole_values, steps = np.empty(n_places * room, np.int16), np.empty(n_places, np.float32)
    numbers, of_outputs, scales = weights
    for number in range(first, last):
        value, scale = number * values_apart, number * room
        shorten(values, value, n_places, channels, scales, scale, whole_values, 0, steps, 0)
        multiply(
            whole_values, 0, room, steps, 0, n_places, room, numbers, number * room * outputs, of_outputs,
            number * outputs, outputs, sums, number * sums_apart, onto,
        )  # fmt: skip


def shortened_columns(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (parts, matrices, channels, outputs) as whole numbers, with steps and scales.

    They are (parts, matrices, pairs of channels, outputs), of 32 bits with the first channel in the lower
    half; channels are filled up with zeros. Steps are (parts, matrices, outputs). Each channel is divided by
    the length of its weights, in all matrices of a part: values that are multiplied with it have the size of
    what they add to outputs, whatever the channel's own. Scales, (parts, channels), are these lengths as
    shares of the longest, so that none is too large for what it meets; the longest is part of the steps.
    """
    filled = F.pad(weights, (0, 0, 0, -weights.shape[2] % GROUP)).double()
    of_channels = filled.norm(dim=(1, 3))
    longest = of_channels.amax(1, keepdim=True)
    longest = longest.where(longest != 0, 1)
    even = filled / of_channels.where(of_channels != 0, 1)[:, None, :, None]
    by_part = F.pad(even, (0, 0, 0, -even.shape[2] % AT_ONCE)).view(
        *even.shape[:2], -1, AT_ONCE, even.shape[3]
    )
    lengths, largest = by_part.norm(dim=3).amax(2), even.abs().amax(2)
    steps = torch.maximum(lengths / _LONGEST_COLUMN, largest / _LARGEST).clamp(min=1e-30)
    numbers = (even / steps.unsqueeze(2)).round().to(torch.int64) & 0xFFFF
    pairs = (numbers[:, :, 0::2] | numbers[:, :, 1::2] << 16).to(torch.uint32).view(torch.int32)
    return pairs, (steps * longest.unsqueeze(2)).float(), (of_channels / longest).float()
