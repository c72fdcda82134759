"""Maximum over windows against a loop over windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import pooling
from dlgenome.attribution.rules.base import Call, Ref, Source, aten

FIRST, SECOND = BatchAxis(), BatchAxis(1)
Windows = Callable[[tuple[int, ...]], dict[tuple[int, ...], list[tuple[int, ...]]]]
"""From the shape of one row to the input places of every output place."""


@dataclass(frozen=True)
class Case:
    """An operation, its input's shape, its arguments after the value and what its windows are."""

    op: Any
    dims: tuple[int, ...]
    rest: tuple[Any, ...]
    windows: Windows
    place: BatchAxis = FIRST
    output: BatchAxis = FIRST


def sliding(
    kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> Callable[[int], list[list[int]]]:
    """Places of each window along one axis, padding left out."""

    def along(length: int) -> list[list[int]]:
        span = length + 2 * padding - dilation * (kernel - 1) - 1
        count = (-(-span // stride) if ceil_mode else span // stride) + 1
        starts = [window * stride - padding for window in range(count)]
        starts = [start for start in starts if start < length or not ceil_mode]
        windows = [[start + k * dilation for k in range(kernel)] for start in starts]
        return [[place for place in window if 0 <= place < length] for window in windows]

    return along


def adaptive(size: int) -> Callable[[int], list[list[int]]]:
    return lambda length: [list(range(i * length // size, -(-(i + 1) * length // size))) for i in range(size)]


def last_axes(*along: Callable[[int], list[list[int]]]) -> Windows:
    """Windows over the last axes, for every place of the axes before."""

    def windows(shape: tuple[int, ...]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        lead, sizes = shape[: -len(along)], shape[-len(along) :]
        per_axis = [function(size) for function, size in zip(along, sizes, strict=True)]
        return {
            (*first, *(number for number, _ in chosen)): [
                (*first, *inner) for inner in itertools.product(*(window for _, window in chosen))
            ]
            for first in np.ndindex(*lead)
            for chosen in itertools.product(*(list(enumerate(w)) for w in per_axis))
        }

    return windows


def whole_axes(axes: tuple[int, ...], keep: bool) -> Windows:
    """One window over ``axes`` for every place of the others."""

    def windows(shape: tuple[int, ...]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        out: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for place in np.ndindex(*shape):
            kept = tuple(0 if a in axes else p for a, p in enumerate(place) if keep or a not in axes)
            out.setdefault(kept, []).append(place)
        return out

    return windows


def cases() -> Iterator[Case]:
    for op in (aten.max_pool1d.default, aten.max_pool1d_with_indices.default):
        yield Case(op, (1, 2, 8), ([2], [2]), last_axes(sliding(2, 2)))
        yield Case(op, (1, 2, 9), ([4], [2]), last_axes(sliding(4, 2)))
        yield Case(op, (1, 2, 7), ([3],), last_axes(sliding(3, 3)))
        yield Case(op, (1, 2, 9), ([3], [1], [1], [2]), last_axes(sliding(3, 1, 1, 2)))
        yield Case(op, (1, 2, 8), ([3], [3], [1], [1], True), last_axes(sliding(3, 3, 1, 1, True)))
        yield Case(op, (1, 2, 9), ([2], [4], [0], [1], True), last_axes(sliding(2, 4, 0, 1, True)))
    for op in (aten.max_pool2d.default, aten.max_pool2d_with_indices.default):
        yield Case(op, (1, 2, 4, 6), ([2, 3], [2, 3]), last_axes(sliding(2, 2), sliding(3, 3)))
        yield Case(
            op, (1, 2, 5, 6), ([3, 2], [1, 2], [1, 0], [1, 2], True),
            last_axes(sliding(3, 1, 1, 1, True), sliding(2, 2, 0, 2, True)),
        )  # fmt: skip
    yield Case(aten.adaptive_max_pool1d.default, (1, 2, 7), ([3],), last_axes(adaptive(3)))
    yield Case(aten.adaptive_max_pool1d.default, (1, 2, 3), ([5],), last_axes(adaptive(5)))
    yield Case(aten.adaptive_max_pool2d.default, (1, 2, 5, 7), ([2, 3],), last_axes(adaptive(2), adaptive(3)))
    yield Case(aten.amax.default, (1, 2, 5), ([-1],), whole_axes((2,), False))
    yield Case(aten.amax.default, (1, 2, 5), ([1, 2], True), whole_axes((1, 2), True))
    yield Case(aten.amax.default, (3, 1, 4), ([0],), whole_axes((0,), False), SECOND, FIRST)
    yield Case(aten.amax.default, (3, 6, 4), ([2, 0],), whole_axes((0, 2), False),
               BatchAxis(1, 2, 3), BatchAxis(0, 2, 3))  # fmt: skip
    yield Case(aten.amin.default, (1, 2, 5), ([-1],), whole_axes((2,), False))
    yield Case(aten.amin.default, (1, 2, 5), ([1, 2], True), whole_axes((1, 2), True))
    yield Case(aten.min.dim, (1, 4, 3), (1,), whole_axes((1,), False))
    yield Case(aten.max.dim, (1, 4, 3), (1,), whole_axes((1,), False))
    yield Case(aten.max.dim, (1, 4, 3), (-2, True), whole_axes((1,), True))


CASES = list(cases())


def pool_twin(windows: Any, x: Any, r: Any, multiplier: Any) -> Any:
    """Per window the whole difference to where the larger maximum is; a tie only if both are at one place."""
    out = np.zeros_like(x)
    for place, members in windows.items():
        at_x, at_r = (max(members, key=lambda m: value[m]) for value in (x, r))
        rise = x[at_x] - r[at_r]
        if rise == 0:
            out[at_x] += multiplier[place] if at_x == at_r else 0
            continue
        winner = at_x if rise > 0 else at_r
        out[winner] += multiplier[place] * rise / (x[winner] - r[winner])
    return out


SMALLEST = (aten.amin.default, aten.min.dim)


def check(case: Case, value: torch.Tensor, bench: Any) -> None:
    run = bench.run(
        case.op, [value], lambda refs, count: (refs[0], *case.rest), batches=[case.place],
        output_batch=case.output, unused_outputs=(1,),
    )  # fmt: skip
    windows = case.windows(run.rows[0][0][0].shape)
    for (inputs,), outputs in run.rows:
        for place, members in windows.items():
            extreme = min if case.op in SMALLEST else max
            assert outputs[0][place] == extreme(inputs[m] for m in members)
    for pair in run.pairs:
        sign = -1 if case.op in SMALLEST else 1
        expected = pool_twin(windows, sign * pair.sequence[0], sign * pair.reference[0], pair.multiplier[0])
        np.testing.assert_allclose(pair.result[0], expected, rtol=1e-12, atol=1e-12)
    bench.check_complete(run)


@pytest.mark.parametrize("operation", list(pooling.RULES), ids=str)
def test_every_pool_has_a_case(operation: Any) -> None:
    assert operation in {case.op for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op} {case.dims} {case.rest}")
def test_maximum_goes_to_the_place_that_made_it(case: Case, bench: Any) -> None:
    check(case, bench.draw(*case.dims, batch=case.place), bench)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op} {case.dims} {case.rest}")
def test_ties_within_and_between_rows_stay_complete(case: Case, bench: Any) -> None:
    check(case, bench.draw(*case.dims, batch=case.place).round(), bench)


def test_multipliers_of_one_window_lie_between_zero_and_one(bench: Any) -> None:
    run = bench.run(aten.max_pool1d.default, [bench.draw(1, 50, 6)], lambda refs, count: (refs[0], [3], [3]))
    for pair in run.pairs:
        shares = pair.result[0] / np.repeat(pair.multiplier[0], 3, axis=-1)
        assert shares.min() >= 0
        assert shares.max() <= 1
        assert (np.count_nonzero(shares.reshape(50, 2, 3), axis=-1) <= 1).all()


@pytest.mark.parametrize(
    ("operation", "rest", "place"),
    [
        (aten.max_pool1d.default, ([2],), BatchAxis(2)),
        (aten.adaptive_max_pool2d.default, ([2, 2],), BatchAxis(2)),
        (aten.amax.default, ([0],), FIRST),
        (aten.amax.default, (), FIRST),
        (aten.max.dim, (-3,), FIRST),
    ],
    ids=str,
)
def test_maximum_over_the_batch_is_refused(operation: Any, rest: tuple[Any, ...], place: BatchAxis) -> None:
    ref, info = Ref("x"), ValueInfo((1, 4, 4), place)
    call = Call("y", operation, (ref, *rest), {}, (ref,), (info,), info, Source("", ""))
    assert "the batch" in str(pooling.RULES[operation].refusal(call))
