"""Values picked by constant places, and the larger of two values, one number at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import selection
from dlgenome.attribution.rules.base import Call, Ref, Source, aten

FIRST, SECOND = BatchAxis(), BatchAxis(1)
EXTREMA = (aten.maximum.default, aten.minimum.default)
PLACES = torch.tensor([2, 0, 2, 1])
MASK = torch.tensor([[True, False, True], [False, False, True]])


@dataclass(frozen=True)
class Case:
    """An operation that is linear in its values, its inputs' shapes for one row, arguments and definition."""

    op: Any
    dims: tuple[tuple[int, ...], ...]
    arguments: Callable[..., tuple[Any, ...]]
    definition: Callable[..., Any]
    output: BatchAxis = FIRST


def sliced(x: Any, values: Any) -> Any:
    x = x.copy()
    x[:, :, 1:4:2] = values
    return x


def put(x: Any, values: Any) -> Any:
    return np.stack([values[:, 1], x[:, 1], values[:, 0]], 1)


def added(x: Any, values: Any) -> Any:
    x = x.copy()
    for number, place in enumerate(PLACES.tolist()):
        x[:, place] += values[:, number]
    return x


def scattered(x: Any, values: Any) -> Any:
    return np.stack([x[:, 0], values[:, 1], x[:, 2], values[:, 0]], 1)


CASES = [
    Case(aten.index_select.default, ((1, 2, 3),), lambda a, n: (a[0], -1, PLACES),
         lambda x: x[..., [2, 0, 2, 1]]),
    Case(aten.gather.default, ((1, 3),), lambda a, n: (a[0], 1, PLACES.expand(n, -1)),
         lambda x: x[:, [2, 0, 2, 1]]),
    Case(aten.index.Tensor, ((1, 3, 2),), lambda a, n: (a[0], [None, PLACES]), lambda x: x[:, [2, 0, 2, 1]]),
    Case(aten.where.self, ((1, 2, 3), (1, 1, 3)), lambda a, n: (MASK, a[0], a[1]),
         lambda x, y: np.where(MASK.numpy(), x, y)),
    Case(aten.where.self, ((1, 2, 3),), lambda a, n: (MASK, torch.tensor(2.0, dtype=torch.float64), a[0]),
         lambda x: np.where(MASK.numpy(), 2.0, x)),
    Case(aten.masked_fill.Scalar, ((1, 2, 3),), lambda a, n: (a[0], MASK, -5.0),
         lambda x: np.where(MASK.numpy(), -5.0, x)),
    Case(aten.tril.default, ((1, 3, 3),), lambda a, n: (a[0],), np.tril),
    Case(aten.triu.default, ((1, 3, 3),), lambda a, n: (a[0], 1), lambda x: np.triu(x, 1)),
    Case(aten.diagonal.default, ((1, 3, 4),), lambda a, n: (a[0], 1, 1, 2),
         lambda x: np.diagonal(x, 1, 1, 2)),
    Case(aten.slice_scatter.default, ((1, 2, 5), (1, 2, 2)), lambda a, n: (a[0], a[1], 2, 1, 4, 2), sliced),
    Case(aten.index_put.default, ((1, 3, 2), (1, 2, 2)),
         lambda a, n: (a[0], [None, torch.tensor([2, 0])], a[1]), put),
    Case(aten.index_put.default, ((1, 3, 2), (1, 4, 2)), lambda a, n: (a[0], [None, PLACES], a[1], True),
         added),
    Case(aten.scatter.src, ((1, 4), (1, 2)),
         lambda a, n: (a[0], 1, torch.tensor([[3, 1]]).expand(n, -1), a[1]), scattered),
    Case(aten.scatter_add.default, ((1, 3), (1, 4)), lambda a, n: (a[0], 1, PLACES.expand(n, -1), a[1]),
         added),
    Case(aten.repeat.default, ((1, 2),), lambda a, n: (a[0], [1, 3]), lambda x: np.tile(x, (1, 3))),
    Case(aten.unfold.default, ((1, 2, 5),), lambda a, n: (a[0], 2, 3, 2),
         lambda x: np.stack([x[:, :, 0:3], x[:, :, 2:5]], 2)),
    Case(aten.roll.default, ((1, 2, 5),), lambda a, n: (a[0], [2], [-1]), lambda x: np.roll(x, 2, -1)),
]  # fmt: skip


@pytest.mark.parametrize("operation", list(selection.RULES), ids=str)
def test_every_selection_has_a_case(operation: Any) -> None:
    assert operation in {case.op for case in CASES} | {*EXTREMA, aten._to_copy.default}


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.op))
def test_selection_rule_equals_the_transposed_matrix(case: Case, bench: Any) -> None:
    inputs = [bench.draw(*dims) for dims in case.dims]
    run = bench.run(case.op, inputs, case.arguments, output_batch=case.output, rule=selection.RULES[case.op])
    bench.check_linear(run, case.definition)


def extremum_twin(operation: Any, sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
    """The change of max(a - b, 0) is credited to a, that of the rest, b, to b."""
    sign = 1 if operation is aten.maximum.default else -1
    (a, b), (ra, rb) = sequence, reference
    to_a, to_b = np.zeros_like(a), np.zeros_like(b)
    for place in np.ndindex(multiplier.shape):
        i, j = (
            tuple(0 if size == 1 else p for size, p in zip(v.shape, place[-v.ndim :], strict=True))
            for v in (a, b)
        )
        gap_x, gap_r = sign * (a[i] - b[j]), sign * (ra[i] - rb[j])
        rise, run = max(gap_x, 0) - max(gap_r, 0), gap_x - gap_r
        share = rise / run if run else float(gap_x > 0)
        to_a[i] += share * multiplier[place]
        to_b[j] += (1 - share) * multiplier[place]
    return [to_a, to_b]


@pytest.mark.parametrize("operation", EXTREMA, ids=str)
@pytest.mark.parametrize(
    ("dims", "place"),
    [
        (((1, 2, 3), (1, 2, 3)), FIRST),
        (((1, 2, 3), (1, 1, 3)), FIRST),
        (((2, 6), (2, 6)), BatchAxis(1, 2, 3)),
    ],
    ids=["equal shapes", "broadcast", "batch folded"],
)
def test_larger_and_smaller_of_two_share_their_difference(
    operation: Any, dims: Any, place: BatchAxis, bench: Any
) -> None:
    inputs = [bench.draw(*d, batch=place) for d in dims]
    run = bench.run(
        operation, inputs, lambda refs, count: (refs[0], refs[1]), batches=[place, place],
        output_batch=place, rule=selection.RULES[operation],
    )  # fmt: skip
    for pair in run.pairs:
        expected = extremum_twin(operation, pair.sequence, pair.reference, pair.multiplier[0])
        for got, right in zip(pair.result, expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=1e-12)
    bench.check_complete(run)


@pytest.mark.parametrize("operation", EXTREMA, ids=str)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("place", [FIRST, SECOND], ids=["batch first", "batch second"])
def test_larger_of_a_value_and_a_constant_is_complete(
    operation: Any, first: bool, place: BatchAxis, bench: Any
) -> None:
    dims = (1, 2, 3) if place == FIRST else (2, 1, 3)
    constant = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).expand(2, 3).unsqueeze(place.axis)
    run = bench.run(
        operation, [bench.draw(*dims, batch=place)],
        lambda refs, count: (refs[0], constant) if first else (constant, refs[0]),
        batches=[place], output_batch=place, rule=selection.RULES[operation],
    )  # fmt: skip
    bench.check_complete(run)


def test_a_value_in_another_precision_keeps_its_multiplier(bench: Any) -> None:
    run = bench.run(
        aten._to_copy.default, [bench.draw(1, 3)], lambda refs, count: (refs[0],),
        keywords={"dtype": torch.float32}, rule=selection.RULES[aten._to_copy.default],
    )  # fmt: skip
    for pair in run.pairs:
        np.testing.assert_allclose(pair.result[0], pair.multiplier[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("operation", "rest"),
    [
        (aten.index_select.default, (0, PLACES)),
        (aten.gather.default, (-2, PLACES)),
        (aten.index.Tensor, ([PLACES],)),
        (aten.unfold.default, (0, 2, 1)),
        (aten.roll.default, ([1], [0])),
        (aten.roll.default, ([1],)),
        (aten.tril.default, ()),
        (aten.diagonal.default, (0, 1, 0)),
        (aten.slice_scatter.default, (Ref("x"), 0, 1, 2)),
        (aten.index_put.default, ([PLACES], Ref("x"))),
        (aten.scatter_add.default, (0, PLACES, Ref("x"))),
    ],
    ids=str,
)
def test_picking_rows_of_the_batch_is_refused(operation: Any, rest: tuple[Any, ...]) -> None:
    ref, info = Ref("x"), ValueInfo((1, 3), FIRST)
    call = Call("y", operation, (ref, *rest), {}, (ref,), (info,), info, Source("", ""))
    assert "rows of the batch" in str(selection.RULES[operation].refusal(call))


def test_places_and_conditions_that_depend_on_the_sequence_are_refused() -> None:
    value, other = Ref("x"), Ref("i")
    info = ValueInfo((1, 3), FIRST)
    for operation, arguments in (
        (aten.gather.default, (value, 1, other)),
        (aten.index.Tensor, (value, [None, other])),
        (aten.where.self, (other, value, value)),
        (aten.index_put.default, (value, [None, other], value)),
        (aten.scatter_add.default, (value, 1, other, value)),
    ):
        call = Call("y", operation, arguments, {}, (value, other), (info, info), info, Source("", ""))
        assert "depend" in str(selection.RULES[operation].refusal(call))
