"""Functions of one value on the way back, on the CPU: the secants of `rules/` in one pass over memory.

torch computes the function itself, whose values the compiled pass then reads beside its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

from dlgenome.attribution.kernels import PairRows, in_threads, scalars
from dlgenome.attribution.relu_kernels import STRETCH
from dlgenome.attribution.slopes import Floats, Scalar, relu_slope
from dlgenome.compiled import compiled

Function = Callable[[Tensor], Tensor]
_AT_ONCE = 1 << 22
"""Numbers of references that torch makes a function of at once, which bounds the memory for them.

Smaller pieces would stay in the cache, but calls hold up the other lanes for longer than that saves.
"""
CLOSE = 0.5
"""Below this distance the difference of two exponentials has lost a digit."""
SERIES = tuple((-1.0) ** power / math.factorial(power + 1) for power in range(15))
"""Of (1 - e^-d) / d; what is left out is below 1e-16 for d below ``CLOSE``."""


def bent_multiplier(rows: PairRows, kinks: list[float], slopes: list[float]) -> Tensor:
    """Of a continuous function of up to three straight pieces: one slope more than (finite) kinks."""
    number = rows.m.dtype.type
    low, high = (kinks or [0.0])[0], (kinks or [0.0])[-1]
    bent = _Bent(*map(number, (low, high, slopes[0], slopes[len(slopes) // 2], slopes[-1])))

    def work(first: int, last: int) -> None:
        for x, pairs in rows.blocks(first, last):
            r = rows.r[pairs]
            _times_secants(x, r, x, r, rows.m[pairs], rows.out[pairs], bent)

    in_threads(work, rows.step.pairs)
    return rows.result


def smooth_multiplier(
    rows: PairRows, function: Function, derivative: Function, limit: float, *, relative: bool
) -> Tensor:
    """Quotients, and the derivative at the midpoint where x and r are closer than the limit.

    The limit is ``relative`` to the midpoint, or absolute.
    """
    number = rows.m.dtype.type
    bounds = (number(limit), number(0)) if relative else (number(0), number(limit))
    near = [
        (pairs, *_quotients(x, rows.r[pairs], f_x, f_r, rows.m[pairs], rows.out[pairs], *bounds))
        for x, f_x, pairs, f_r in _applied(rows, function)
    ]
    slopes = _of(derivative, np.concatenate([middles for _, _, middles in near]))
    first = 0
    for pairs, places, _ in near:
        last = first + places.size
        _put(rows.out[pairs].reshape(-1), rows.m[pairs].reshape(-1), places, slopes[first:last])
        first = last
    return rows.result


def power_multiplier(rows: PairRows, powers: Function) -> Tensor:
    """Of e^x and its like: ``powers`` makes the exponentials, whose secant is their logarithmic mean."""
    for x, of_x, pairs, of_r in _applied(rows, powers):
        _times_secants(x, rows.r[pairs], of_x, of_r, rows.m[pairs], rows.out[pairs], _Power())
    return rows.result


def exponential_linear_multiplier(rows: PairRows, alpha: float, scale: float, steepness: float) -> Tensor:
    """Of ``scale (max(x, 0) + alpha (e^(steepness min(x, 0)) - 1))``."""
    number = rows.m.dtype.type
    constants = scalars(rows.result.dtype)
    linear = _ExponentialLinear(number(alpha * steepness), number(scale), number(steepness), *constants)

    def below(value: Tensor) -> Tensor:
        return value.clamp_max(0).mul_(steepness).exp()

    for x, of_x, pairs, of_r in _applied(rows, below):
        _times_secants(x, rows.r[pairs], of_x, of_r, rows.m[pairs], rows.out[pairs], linear)
    return rows.result


def _applied(rows: PairRows, function: Function) -> Iterator[tuple[Any, Any, slice, Any]]:
    """Each sequence and the function of it, some of its pairs, and the function of their references."""
    at_once = max(1, _AT_ONCE // rows.x.shape[1])
    for x, pairs in rows.blocks(0, rows.step.pairs):
        f_x = _of(function, x)
        for first in range(pairs.start, pairs.stop, at_once):
            some = slice(first, min(first + at_once, pairs.stop))
            yield x, f_x, some, _of(function, rows.r[some])


def _of(function: Function, row: Any) -> Any:
    return function(torch.from_numpy(row)).numpy()


class _Bent(NamedTuple):
    """Where a function bends, and its slopes."""

    low: Scalar
    high: Scalar
    below: Scalar
    between: Scalar
    above: Scalar


class _Power(NamedTuple):
    """An exponential."""


class _ExponentialLinear(NamedTuple):
    """The weight of the exponential below zero, the scale of both, how steep; and constants."""

    weight: Scalar
    scale: Scalar
    steepness: Scalar
    least: Scalar
    one: Scalar
    zero: Scalar


@compiled
def _bent(a: Scalar, b: Scalar, of_a: Scalar, of_b: Scalar, kind: Any) -> Any:
    """The slope of a piece that both are on, else the quotient: differences of held values do not round."""
    under_a, under_b = (a if a < kind.low else kind.low), (b if b < kind.low else kind.low)
    over_a, over_b = (a if a > kind.high else kind.high), (b if b > kind.high else kind.high)
    in_a, in_b = (a if a > kind.low else kind.low), (b if b > kind.low else kind.low)
    in_a, in_b = (in_a if in_a < kind.high else kind.high), (in_b if in_b < kind.high else kind.high)
    rise = kind.below * (under_a - under_b) + kind.above * (over_a - over_b)
    slope = (rise + kind.between * (in_a - in_b)) / (a - b)
    slope = kind.below if a <= kind.low and b <= kind.low else slope
    slope = kind.between if kind.low < a <= kind.high and kind.low < b <= kind.high else slope
    return kind.above if a > kind.high and b > kind.high else slope


@compiled
def log_mean(a: Scalar, b: Scalar, gap: Scalar) -> Scalar:
    """The logarithmic mean of two numbers whose logarithms are ``gap`` apart."""
    distance = abs(gap)
    ratio = type(gap)(SERIES[14])
    for power in range(13, -1, -1):
        ratio = ratio * distance + type(gap)(SERIES[power])
    high = a if a > b else b
    return high * ratio if distance < type(gap)(CLOSE) else (a - b) / gap


@compiled
def _power(a: Scalar, b: Scalar, of_a: Scalar, of_b: Scalar, kind: Any) -> Any:
    return log_mean(of_a, of_b, a - b)


@compiled
def _exponential_linear(a: Scalar, b: Scalar, of_a: Scalar, of_b: Scalar, kind: Any) -> Any:
    """The secant p of ReLU and, for the rest of the way, that of the exponential below zero."""
    above = relu_slope(a, b, kind.least, kind.one, kind.zero)
    below_a, below_b = (a if a < kind.zero else kind.zero), (b if b < kind.zero else kind.zero)
    below = log_mean(of_a, of_b, (below_a - below_b) * kind.steepness)
    return kind.scale * (above + kind.weight * below * (kind.one - above))


_SECANTS = {_Bent: _bent, _Power: _power, _ExponentialLinear: _exponential_linear}


def _secant(a: Any, b: Any, of_a: Any, of_b: Any, kind: Any) -> Any:
    """The secant between a and b of a function of that kind; compiled code is made for each kind."""
    raise NotImplementedError("for compiled code")


@overload(_secant)
def _compiled_secant(a: Any, b: Any, of_a: Any, of_b: Any, kind: Any) -> Any:
    secant = _SECANTS[kind.instance_class]

    def of_kind(a: Any, b: Any, of_a: Any, of_b: Any, kind: Any) -> Any:
        return secant(a, b, of_a, of_b, kind)

    return of_kind


@compiled
def _times_secants(
    x: Floats, r: Floats, of_x: Floats, of_r: Floats, m: Floats, out: Floats, kind: Any
) -> None:
    """Multipliers of pairs of one sequence, perhaps written over the values of the references."""
    aside = np.empty(STRETCH, m.dtype)
    for pair in range(r.shape[0]):
        for place in range(0, x.size, STRETCH):
            xs, rs = x[place : place + STRETCH], r[pair, place : place + STRETCH]
            of_xs, of_rs = of_x[place : place + STRETCH], of_r[pair, place : place + STRETCH]
            given, made = m[pair, place : place + STRETCH], out[pair, place : place + STRETCH]
            for i in range(xs.size):
                aside[i] = given[i] * _secant(xs[i], rs[i], of_xs[i], of_rs[i], kind)
            for i in range(xs.size):
                made[i] = aside[i]


@compiled
def _quotients(
    x: Floats,
    r: Floats,
    f_x: Floats,
    f_r: Floats,
    m: Floats,
    out: Floats,
    relative: Scalar,
    absolute: Scalar,
) -> Any:
    """Multipliers of pairs of one sequence; the places and midpoints of numbers too close for a quotient.

    Every number is noted, and the next one over it where it is not close: faster than a branch.
    """
    half, one, count = m.dtype.type(0.5), m.dtype.type(1), 0
    aside = np.empty(STRETCH, m.dtype)
    places, middles = np.empty(r.size + 1, np.int32), np.empty(r.size + 1, m.dtype)
    for pair in range(r.shape[0]):
        for place in range(0, x.size, STRETCH):
            xs, rs = x[place : place + STRETCH], r[pair, place : place + STRETCH]
            rise_x, rise_r = f_x[place : place + STRETCH], f_r[pair, place : place + STRETCH]
            given, made = m[pair, place : place + STRETCH], out[pair, place : place + STRETCH]
            close = 0
            for i in range(xs.size):
                gap = xs[i] - rs[i]
                near = abs(gap) <= absolute + relative * abs((xs[i] + rs[i]) * half)
                close += near
                aside[i] = given[i] * ((rise_x[i] - rise_r[i]) / (one if near else gap))
            first = pair * x.size + place
            for i in range(xs.size if close else 0):
                middle = (xs[i] + rs[i]) * half
                places[count], middles[count] = first + i, middle
                count += abs(xs[i] - rs[i]) <= absolute + relative * abs(middle)
            for i in range(xs.size):
                made[i] = aside[i]
    return places[:count].copy(), middles[:count].copy()


@compiled
def _put(out: Floats, m: Floats, places: Any, slopes: Floats) -> None:
    for i in range(places.size):
        out[places[i]] = m[places[i]] * slopes[i]
