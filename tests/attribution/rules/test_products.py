"""Products and quotients against the definition, one product of two numbers at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import products
from dlgenome.attribution.rules.base import Call, Ref, Source, aten

FIRST, SECOND = BatchAxis(), BatchAxis(1)
ELEMENTWISE = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
MATRIX = (aten.matmul.default, aten.bmm.default, aten.mm.default)


@pytest.mark.parametrize("operation", list(products.RULES), ids=str)
def test_every_product_has_a_case(operation: Any) -> None:
    assert operation in (*ELEMENTWISE, *MATRIX, aten.pow.Tensor_Tensor)


def pairwise(run: Any, twin: Any, tolerance: float = 1e-12) -> None:
    """Compare every pair's multipliers with ``twin(sequence values, reference values, multiplier)``."""
    for pair in run.pairs:
        expected = twin(pair.sequence, pair.reference, pair.multiplier[0])
        for got, right in zip(pair.result, expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=tolerance * (1 + np.abs(right).max()))


def at_broadcast(value: Any, place: tuple[int, ...]) -> tuple[int, ...]:
    """Place in ``value`` that is read for ``place`` of the broadcast output."""
    own = place[len(place) - value.ndim :]
    return tuple(0 if size == 1 else index for size, index in zip(value.shape, own, strict=True))


def product_twin(sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
    """For each product a b: the change is shared as mean b to a and mean a to b."""
    (a, b), (ra, rb) = sequence, reference
    to_a, to_b = np.zeros_like(a), np.zeros_like(b)
    for place in np.ndindex(multiplier.shape):
        i, j = at_broadcast(a, place), at_broadcast(b, place)
        to_a[i] += multiplier[place] * (b[j] + rb[j]) / 2
        to_b[j] += multiplier[place] * (a[i] + ra[i]) / 2
    return [to_a, to_b]


def quotient_twin(sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
    """For each quotient a / b: the product of a and 1 / b, whose own secant is -1 / (b_x b_r)."""
    (a, b), (ra, rb) = sequence, reference
    to_a, to_b = np.zeros_like(a), np.zeros_like(b)
    for place in np.ndindex(multiplier.shape):
        i, j = at_broadcast(a, place), at_broadcast(b, place)
        to_a[i] += multiplier[place] * (1 / b[j] + 1 / rb[j]) / 2
        to_b[j] -= multiplier[place] * (a[i] + ra[i]) / 2 / (b[j] * rb[j])
    return [to_a, to_b]


TWINS = {aten.mul.Tensor: product_twin, aten.div.Tensor: quotient_twin}


@pytest.mark.parametrize("operation", list(TWINS), ids=str)
@pytest.mark.parametrize(
    ("dims", "places", "output"),
    [
        (((1, 2, 3), (1, 2, 3)), (FIRST, FIRST), FIRST),
        (((1, 2, 3), (1, 1, 3)), (FIRST, FIRST), FIRST),
        (((1, 2, 1), (1, 1, 3)), (FIRST, FIRST), FIRST),
        (((1, 3), (2, 1, 3)), (FIRST, SECOND), SECOND),
        (((2, 6), (1, 6)), (BatchAxis(1, 2, 3), BatchAxis(1, 2, 3)), BatchAxis(1, 2, 3)),
    ],
    ids=["equal shapes", "broadcast", "broadcast both", "batch not first", "batch folded in the middle"],
)
def test_two_values_share_their_product(
    operation: Any, dims: Any, places: Any, output: BatchAxis, bench: Any
) -> None:
    inputs = [bench.draw(*d, batch=place) for d, place in zip(dims, places, strict=True)]
    run = bench.run(
        operation, inputs, lambda refs, count: (refs[0], refs[1]), batches=places, output_batch=output
    )
    pairwise(run, TWINS[operation])
    bench.check_complete(run)


def power_twin(sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
    """Each a^b is e^(b ln a): the secant of exp, times the shares of the product of b and ln a."""
    (a, b), (ra, rb) = sequence, reference
    to_a, to_b = np.zeros_like(a), np.zeros_like(b)
    for place in np.ndindex(multiplier.shape):
        i, j = at_broadcast(a, place), at_broadcast(b, place)
        log_x, log_r = math.log(a[i]), math.log(ra[i])
        run = b[j] * log_x - rb[j] * log_r
        rise = a[i] ** b[j] - ra[i] ** rb[j]
        along = multiplier[place] * (rise / run if run else a[i] ** b[j])
        slope = (log_x - log_r) / (a[i] - ra[i]) if a[i] != ra[i] else 1 / a[i]
        to_a[i] += along * (b[j] + rb[j]) / 2 * slope
        to_b[j] += along * (log_x + log_r) / 2
    return [to_a, to_b]


@pytest.mark.parametrize(
    ("dims", "places", "output"),
    [
        (((1, 2, 3), (1, 2, 3)), (FIRST, FIRST), FIRST),
        (((1, 2, 1), (1, 1, 3)), (FIRST, FIRST), FIRST),
        (((1, 3), (2, 1, 3)), (FIRST, SECOND), SECOND),
    ],
    ids=["equal shapes", "broadcast both", "batch not first"],
)
def test_base_and_exponent_share_their_power(dims: Any, places: Any, output: BatchAxis, bench: Any) -> None:
    base, exponent = (bench.draw(*d, batch=place) for d, place in zip(dims, places, strict=True))
    run = bench.run(
        aten.pow.Tensor_Tensor, [base.exp(), exponent], lambda refs, count: tuple(refs), batches=places,
        output_batch=output,
    )  # fmt: skip
    pairwise(run, power_twin, 1e-9)
    bench.check_complete(run)


CONSTANT = np.array([[2.0, -1.0, 0.5], [0.25, 3.0, -4.0]])


@pytest.mark.parametrize(
    ("operation", "other", "value_first", "definition"),
    [
        (aten.mul.Tensor, torch.from_numpy(CONSTANT), True, lambda x: x * CONSTANT),
        (aten.mul.Tensor, torch.from_numpy(CONSTANT), False, lambda x: x * CONSTANT),
        (aten.mul.Tensor, -2.5, True, lambda x: -2.5 * x),
        (aten.mul.Scalar, -2.5, True, lambda x: -2.5 * x),
        (aten.div.Tensor, torch.from_numpy(CONSTANT), True, lambda x: x / CONSTANT),
        (aten.div.Tensor, 3, True, lambda x: x / 3),
        (aten.div.Scalar, -0.3, True, lambda x: x / -0.3),
    ],
    ids=lambda value: str(value) if isinstance(value, torch._ops.OpOverload | bool | int | float) else "",
)
def test_a_constant_factor_is_linear(
    operation: Any, other: Any, value_first: bool, definition: Any, bench: Any
) -> None:
    run = bench.run(
        operation,
        [bench.draw(1, 1, 3)],
        lambda refs, count: (refs[0], other) if value_first else (other, refs[0]),
    )
    bench.check_linear(run, definition)


@pytest.mark.parametrize("constant", [CONSTANT, np.float64(2.0)], ids=["larger constant", "one number"])
def test_a_constant_over_a_value_is_its_secant(constant: Any, bench: Any) -> None:
    def twin(sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
        out = np.zeros_like(sequence[0])
        for place in np.ndindex(multiplier.shape):
            at = at_broadcast(out, place)
            number = np.broadcast_to(constant, multiplier.shape[-2:])[place[-2:]]
            out[at] -= multiplier[place] * number / (sequence[0][at] * reference[0][at])
        return [out]

    run = bench.run(
        aten.div.Tensor, [bench.draw(1, 1, 3)], lambda refs, count: (torch.tensor(constant), refs[0])
    )
    pairwise(run, twin)
    bench.check_complete(run)


def test_a_value_times_itself_is_its_square(bench: Any) -> None:
    run = bench.run(aten.mul.Tensor, [bench.draw(1, 5)], lambda refs, count: (refs[0], refs[0]))
    pairwise(run, lambda x, r, m: [m * (x[0] + r[0])])
    bench.check_complete(run)


def test_a_value_over_itself_is_constant(bench: Any) -> None:
    run = bench.run(aten.div.Tensor, [bench.draw(1, 5)], lambda refs, count: (refs[0], refs[0]))
    pairwise(run, lambda x, r, m: [0 * x[0]])


@pytest.mark.parametrize("mode", ["floor", "trunc"])
def test_rounded_quotients_are_refused(mode: str) -> None:
    ref, info = Ref("x"), ValueInfo((1, 3), FIRST)
    call = Call(
        "y", aten.div.Tensor, (ref, 2.0), {"rounding_mode": mode}, (ref,), (info,), info, Source("", "")
    )
    assert products.RULES[aten.div.Tensor].refusal(call) == "it rounds the quotient"


def matrix_twin(sequence: Any, reference: Any, multiplier: Any) -> list[Any]:
    """Each term a_ik b_kj of each entry of the matrix product is a product of its own."""
    (a, b), (ra, rb) = sequence, reference
    to_a, to_b = np.zeros_like(a), np.zeros_like(b)
    for *lead, i, j in np.ndindex(multiplier.shape):
        for k in range(a.shape[-1]):
            left = (*at_broadcast(a[..., 0, 0], tuple(lead)), i, k)
            right = (*at_broadcast(b[..., 0, 0], tuple(lead)), k, j)
            to_a[left] += multiplier[*lead, i, j] * (b[right] + rb[right]) / 2
            to_b[right] += multiplier[*lead, i, j] * (a[left] + ra[left]) / 2
    return [to_a, to_b]


@pytest.mark.parametrize(
    ("operation", "dims", "place"),
    [
        (aten.bmm.default, ((1, 2, 3), (1, 3, 4)), FIRST),
        (aten.bmm.default, ((6, 2, 3), (6, 3, 2)), BatchAxis(0, 2, 3)),
        (aten.matmul.default, ((1, 2, 2, 3), (1, 2, 3, 4)), FIRST),
        (aten.matmul.default, ((1, 2, 2, 3), (1, 1, 3, 4)), FIRST),
    ],
    ids=["bmm", "bmm, batch folded", "matmul", "matmul, broadcast"],
)
def test_two_values_share_their_matrix_product(
    operation: Any, dims: Any, place: BatchAxis, bench: Any
) -> None:
    inputs = [bench.draw(*d, batch=place) for d in dims]
    run = bench.run(
        operation, inputs, lambda refs, count: (refs[0], refs[1]), batches=[place, place], output_batch=place
    )
    pairwise(run, matrix_twin)
    bench.check_complete(run)


LEFT, RIGHT = np.random.default_rng(6).normal(size=(4, 2)), np.random.default_rng(7).normal(size=(3, 5))


@pytest.mark.parametrize(
    ("operation", "dims", "place", "arguments", "definition"),
    [
        (aten.mm.default, (1, 3), FIRST, lambda x: (x, torch.from_numpy(RIGHT)), lambda x: x @ RIGHT),
        (aten.mm.default, (2, 1), SECOND, lambda x: (torch.from_numpy(LEFT), x), lambda x: LEFT @ x),
        (aten.matmul.default, (1, 2, 3), FIRST, lambda x: (x, torch.from_numpy(RIGHT)), lambda x: x @ RIGHT),
        (aten.matmul.default, (1, 2, 3), FIRST, lambda x: (torch.from_numpy(LEFT), x), lambda x: LEFT @ x),
    ],
    ids=["mm left", "mm right", "matmul left", "matmul right, broadcast constant"],
)
def test_a_constant_matrix_is_linear(
    operation: Any, dims: Any, place: BatchAxis, arguments: Any, definition: Any, bench: Any
) -> None:
    value = bench.draw(*dims, batch=place)
    run = bench.run(
        operation, [value], lambda refs, count: arguments(refs[0]), batches=[place], output_batch=place
    )
    bench.check_linear(run, definition)


def test_a_matrix_times_itself_is_complete(bench: Any) -> None:
    run = bench.run(aten.bmm.default, [bench.draw(1, 3, 3)], lambda refs, count: (refs[0], refs[0]))
    pairwise(run, lambda x, r, m: [sum(matrix_twin([x[0], x[0]], [r[0], r[0]], m))])
    bench.check_complete(run)


@pytest.mark.parametrize(
    ("operation", "dims", "places", "reason"),
    [
        (aten.mm.default, ((1, 3), (3, 1)), (FIRST, SECOND), "it multiplies across the batch"),
        (aten.matmul.default, ((1, 3), (3,)), (FIRST, None), "a factor is a vector"),
    ],
    ids=["across the batch", "vector"],
)
def test_matrix_products_without_a_rule_are_refused(
    operation: Any, dims: Any, places: Any, reason: str
) -> None:
    refs = (Ref("a"), Ref("b"))
    infos = tuple(ValueInfo(d, place) for d, place in zip(dims, places, strict=True))
    call = Call("y", operation, refs, {}, refs, infos, ValueInfo((1, 1), FIRST), Source("", ""))
    assert reason in str(products.RULES[operation].refusal(call))
