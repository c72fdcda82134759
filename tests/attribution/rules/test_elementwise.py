"""Functions of one value against their definitions in 50-digit arithmetic, one number at a time.

The multiplier must be the secant (f(x) - f(r)) / (x - r), and where x = r a derivative of f. The exact rules
must reach it to 1e-12. Smooth functions without a closed form cannot where x and r are within about 1e-5 of
each other: there the quotient of differences and the derivative are both off by about 1e-11, so the
multiplier is held to 1e-10 and what counts, the multiplier times x - r, to 1e-14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import composed, elementwise, piecewise
from dlgenome.attribution.rules.base import Call, Ref, Source, aten

Function = Callable[[Any], Any]
RULES = {**elementwise.RULES, **piecewise.RULES, **composed.RULES}


@pytest.fixture(params=[1, 1 << 40], ids=["compiled", "plain"], autouse=True)
def fewest_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From how many numbers on the compiled passes are taken: always, or never."""
    monkeypatch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", request.param)


@dataclass(frozen=True)
class Case:
    """An operation with its parameters, what it is, where it is kinked, and where it is defined."""

    op: Any
    function: Function
    rest: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    kinks: tuple[float, ...] = ()
    positive: float | None = None
    """Lower bound of the domain."""
    exact: bool = True
    """Whether the rule is exact at any distance, as piecewise-linear and closed-form ones are."""


def clip(low: float | None, high: float | None) -> Function:
    def clipped(value: Any) -> Any:
        value = value if low is None else max(value, mpf(low))
        return value if high is None else min(value, mpf(high))

    return clipped


def erf_gelu(x: Any) -> Any:
    return x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2


def tanh_gelu(x: Any) -> Any:
    return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpf(0.044715) * x**3))) / 2


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def elu(alpha: float, scale: float, input_scale: float) -> Function:
    return lambda x: mpf(scale) * (x if x > 0 else mpf(alpha) * mpmath.expm1(mpf(input_scale) * x))


def softplus(beta: float) -> Function:
    return lambda x: mpmath.log1p(mpmath.exp(mpf(beta) * x)) / mpf(beta)


SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)

CASES = [
    Case(aten.relu.default, clip(0, None), kinks=(0,)),
    Case(aten.relu6.default, clip(0, 6), kinks=(0, 6)),
    Case(aten.leaky_relu.default, lambda x: x if x > 0 else mpf(0.01) * x, kinks=(0,)),
    Case(aten.leaky_relu.default, lambda x: x if x > 0 else mpf(-1.5) * x, (-1.5,), kinks=(0,)),
    Case(aten.prelu.default, lambda x: x if x > 0 else mpf(-0.25) * x,
         (torch.tensor([-0.25], dtype=torch.float64),), kinks=(0,)),
    Case(aten.prelu.default, lambda x: x if x > 0 else 3 * x,
         (torch.tensor([3.0], dtype=torch.float64),), kinks=(0,)),
    Case(aten.hardtanh.default, clip(-1, 1), kinks=(-1, 1)),
    Case(aten.hardtanh.default, clip(-0.5, 2), (-0.5, 2.0), kinks=(-0.5, 2)),
    Case(aten.clamp.default, clip(-0.5, 2), (-0.5, 2.0), kinks=(-0.5, 2)),
    Case(aten.clamp.default, clip(None, 2), (None, 2), kinks=(2,)),
    Case(aten.clamp.default, clip(-0.5, None), keywords={"min": -0.5}, kinks=(-0.5,)),
    Case(aten.clamp.default, clip(None, 1), keywords={"max": 1}, kinks=(1,)),
    Case(aten.clamp.default, lambda x: mpf(-1), (2.0, -1.0), kinks=(-1, 2)),
    Case(aten.clamp_min.default, clip(-0.5, None), (-0.5,), kinks=(-0.5,)),
    Case(aten.clamp_max.default, clip(None, 2), (2.0,), kinks=(2,)),
    Case(aten.abs.default, abs, kinks=(0,)),
    Case(aten.threshold.default, lambda x: x if x > 1 else mpf(1), (1.0, 1.0), kinks=(1,)),
    Case(aten.threshold.default, lambda x: x if x > 1 else mpf(-20), (1.0, -20.0), kinks=(1,)),
    Case(aten.hardsigmoid.default, lambda x: clip(0, 6)(x + 3) / 6, kinks=(-3, 3)),
    Case(aten.hardswish.default, lambda x: x * clip(0, 6)(x + 3) / 6, kinks=(-3, 3)),
    Case(aten.hardshrink.default, lambda x: x if abs(x) > 0.5 else mpf(0), kinks=(-0.5, 0.5)),
    Case(aten.softshrink.default, lambda x: x - mpmath.sign(x) if abs(x) > 1 else mpf(0), (1.0,),
         kinks=(-1, 1)),
    Case(aten.gelu.default, erf_gelu, exact=False),
    Case(aten.gelu.default, tanh_gelu, keywords={"approximate": "tanh"}, exact=False),
    Case(aten.silu.default, lambda x: x * sigmoid(x), exact=False),
    Case(aten.sigmoid.default, sigmoid, exact=False),
    Case(aten.tanh.default, mpmath.tanh, exact=False),
    Case(aten.elu.default, elu(1, 1, 1), kinks=(0,)),
    Case(aten.elu.default, elu(2.5, 1.5, 0.5), (2.5, 1.5, 0.5), kinks=(0,)),
    Case(aten.selu.default, elu(*SELU), kinks=(0,)),
    Case(aten.celu.default, elu(1, 1, 1), kinks=(0,)),
    Case(aten.celu.default, elu(0.5, 1, 2), (0.5,), kinks=(0,)),
    Case(aten.mish.default, lambda x: x * mpmath.tanh(softplus(1)(x)), exact=False),
    Case(aten.log_sigmoid.default, lambda x: -softplus(1)(-x), exact=False),
    Case(aten.softplus.default, softplus(1), exact=False),
    Case(aten.softplus.default, softplus(0.25), (0.25, 50.0), exact=False),
    Case(aten.sin.default, mpmath.sin, exact=False),
    Case(aten.cos.default, mpmath.cos, exact=False),
    Case(aten.erf.default, mpmath.erf, exact=False),
    Case(aten.exp.default, mpmath.exp),
    Case(aten.expm1.default, mpmath.expm1),
    Case(aten.log.default, mpmath.log, positive=0),
    Case(aten.log2.default, lambda x: mpmath.log(x) / mpmath.log(2), positive=0),
    Case(aten.log10.default, mpmath.log10, positive=0),
    Case(aten.log1p.default, mpmath.log1p, positive=-1),
    Case(aten.sqrt.default, mpmath.sqrt, positive=0),
    Case(aten.rsqrt.default, lambda x: 1 / mpmath.sqrt(x), positive=0),
    Case(aten.reciprocal.default, lambda x: 1 / x, positive=0),
    Case(aten.square.default, lambda x: x * x),
    Case(aten.pow.Tensor_Scalar, lambda x: x**2, (2,)),
    Case(aten.pow.Tensor_Scalar, lambda x: x**3, (3,), exact=False),
    Case(aten.pow.Tensor_Scalar, lambda x: x**mpf(0.5), (0.5,), positive=0),
    Case(aten.pow.Tensor_Scalar, lambda x: x**mpf(-0.5), (-0.5,), positive=0),
    Case(aten.pow.Tensor_Scalar, lambda x: 1 / x, (-1,), positive=0),
    Case(aten.pow.Tensor_Scalar, lambda x: x**mpf(1.7), (1.7,), positive=0, exact=False),
]  # fmt: skip


def name(case: Case) -> str:
    """What the case is called in the report."""
    return f"{case.op} {case.rest or ''}{case.keywords or ''}".strip()


STEPS = [1e-15, -1e-12, 1e-9, -1e-7, 1e-6, -1.6e-5, 1.9e-5, -1e-3, 1e-2, 0.3]


def points(case: Case) -> list[float]:
    """Numbers at, beside and far from everything that is special about the function."""
    if case.positive is not None:
        return [case.positive + d for d in (1e-3, 0.05, 0.4, 1.0, 1.5, 7.0, 300.0)]
    around = [kink + d for kink in case.kinks for d in (0.0, 1e-6, -1e-6, 0.2, -0.2)]
    return [*around, -8.0, -2.2, -1e-9, 0.0, 0.31, 2.6]


def made_up_pairs(case: Case, dtype: torch.dtype) -> torch.Tensor:
    """Rows (2 sequences, 6 references): every two points, every point with itself and with its neighbours."""
    at = np.array(points(case))
    first, second = np.repeat(at, len(at)), np.tile(at, len(at))
    steps = np.resize(STEPS, len(first)) * (1 if case.positive is None else np.abs(first - case.positive))
    near = first + steps
    references = [second, first, near, first, second, second - 0.3 * np.resize(STEPS, len(first))]
    if case.positive is not None:
        references[-1] = (second - case.positive) * 1.01 + case.positive
    return torch.from_numpy(np.stack([first, second, *references])).to(dtype)


def derivatives(function: Function, at: Any) -> list[float]:
    """Derivative from the left and from the right."""
    return [float(mpmath.diff(function, at, direction=side, h=mpf(10) ** -20)) for side in (-1, 1)]


@pytest.mark.parametrize("operation", list(RULES), ids=str)
def test_every_elementwise_operation_has_a_case(operation: Any) -> None:
    assert operation in {case.op for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_multiplier_is_the_secant_or_the_derivative(case: Case, dtype: torch.dtype, bench: Any) -> None:
    rows = made_up_pairs(case, dtype)
    rest = [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in case.rest]
    run = bench.run(case.op, [rows], lambda refs, count: (refs[0], *rest), keywords=case.keywords)
    eps = torch.finfo(dtype).eps
    case = replace(case, function=cache(case.function))
    exact: dict[tuple[float, float], tuple[float, float, float]] = {}
    with mpmath.workdps(50):
        for pair in run.pairs:
            for x, r, out, result in zip(
                pair.sequence[0][0],
                pair.reference[0][0],
                pair.multiplier[0][0],
                pair.result[0][0],
                strict=True,
            ):
                if (x, r) not in exact:
                    exact[x, r] = expected(case, mpf(float(x)), mpf(float(r)))
                check(case, float(x - r), float(result / out), *exact[x, r], eps)


def expected(case: Case, x: Any, r: Any) -> tuple[float, float, float]:
    """Lowest and highest right multiplier, and the size of the function's values."""
    size = float(max(abs(case.function(x)), abs(case.function(r)), 1))
    if x == r:
        slopes = derivatives(case.function, x)
        jump = any(abs(slope) > 1e15 for slope in slopes)
        return (-np.inf, np.inf, size) if jump else (min(slopes), max(slopes), size)
    secant = float((case.function(x) - case.function(r)) / (x - r))
    return secant, secant, size


def check(
    case: Case, difference: float, got: float, low: float, high: float, size: float, eps: float
) -> None:
    error = max(low - got, got - high, 0.0)
    slope = max(abs(low), abs(high)) if np.isfinite(low) else 1.0
    unit = eps / 2.2e-16
    if case.exact or difference == 0:
        assert error <= 1e-15 * unit * 20 * max(slope, 1e-3 if case.exact else 1)
        return
    assert error <= 12 * eps ** (2 / 3) * size * max(slope, 1)
    assert error * abs(difference) <= 1e-14 * unit * size * max(slope, 1)
    if abs(difference) >= 0.1 and eps < 1e-15:
        assert error <= 1e-12 * max(slope, 1)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_batch_between_other_axes_changes_nothing(case: Case, bench: Any) -> None:
    place = BatchAxis(1, 2, 3)
    folded = bench.draw(2, 6, 2, batch=place).abs() + 0.1
    plain = folded.reshape(2, 2, bench.step.rows, 3, 2).movedim(2, 0).contiguous()
    runs = [
        bench.run(case.op, [value], lambda refs, count: (refs[0], *case.rest), batches=[where],
                  output_batch=where, keywords=case.keywords)
        for value, where in ((plain, BatchAxis()), (folded, place))
    ]  # fmt: skip
    for first, second in zip(runs[0].pairs, runs[1].pairs, strict=True):
        slopes = [pair.result[0] / pair.multiplier[0] for pair in (first, second)]
        np.testing.assert_allclose(slopes[1].ravel(), slopes[0].ravel(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("place", "dims"),
    [(BatchAxis(), (1, 3, 5)), (BatchAxis(2, 2, 2), (2, 3, 4)), (BatchAxis(0, 2, 2), (4, 3))],
)
def test_prelu_has_one_slope_a_channel(place: BatchAxis, dims: tuple[int, ...], bench: Any) -> None:
    slopes = np.array([0.25, -0.5, 2.0])
    run = bench.run(
        aten.prelu.default, [bench.draw(*dims, batch=place)],
        lambda refs, count: (refs[0], torch.tensor(slopes)), batches=[place], output_batch=place,
    )  # fmt: skip
    for pair in run.pairs:
        for at in np.ndindex(*dims):
            x, r = pair.sequence[0][at], pair.reference[0][at]
            f = [v if v > 0 else slopes[at[1]] * v for v in (x, r)]
            slope = (f[0] - f[1]) / (x - r) if x != r else 1.0 if x > 0 else slopes[at[1]]
            assert abs(pair.result[0][at] - slope * pair.multiplier[0][at]) < 1e-12
    bench.check_complete(run)


def test_relu_and_its_multiplier_are_zero_where_both_are_zero(bench: Any) -> None:
    rows = torch.zeros(bench.step.rows, 4, dtype=torch.float64)
    rows[:, 1] = -0.0
    run = bench.run(aten.relu.default, [rows], lambda refs, count: (refs[0],))
    assert all((pair.result[0] == 0).all() for pair in run.pairs)


@pytest.mark.parametrize("operation", list(RULES), ids=str)
def test_parameters_that_depend_on_the_sequence_are_refused(operation: Any) -> None:
    value, slope = Ref("x"), Ref("a")
    info = ValueInfo((1, 4), BatchAxis())
    call = Call("y", operation, (value, slope), {}, (value, slope), (info, info), info, Source("", ""))
    assert RULES[operation].refusal(call) == "a parameter of it depends on the sequence"
