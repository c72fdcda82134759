"""Softmax, log-softmax and logsumexp against their formulas in 50-digit arithmetic."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

from dlgenome.attribution.layout import BatchAxis, StepShape, ValueInfo
from dlgenome.attribution.rules import softmax
from dlgenome.attribution.rules.base import Backward, Call, Ref, Source, aten
from dlgenome.attribution.softmax_kernels import softmax_multiplier
from dlgenome.errors import UnsupportedModelError

SOFTMAX = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
LOG_SOFTMAX = (aten.log_softmax.int, aten._log_softmax.default)
LOG_SUM_EXP = (aten.logsumexp.default,)


@pytest.fixture(params=[1, 1 << 40], ids=["compiled", "plain"], autouse=True)
def fewest_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From how many numbers on the compiled pass is taken: always, or never."""
    monkeypatch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", request.param)
    return int(request.param)


def arguments(operation: Any, axis: int) -> tuple[Any, ...]:
    if operation in LOG_SUM_EXP:
        return ([axis], True)
    return (axis, False) if "._" in str(operation) and "safe" not in str(operation) else (axis,)


def log_mean(a: Any, b: Any) -> Any:
    """Logarithmic mean of two positive numbers."""
    return a if a == b else (a - b) / (mpmath.log(a) - mpmath.log(b))


def twin(operation: Any, x: list[float], r: list[float], multiplier: list[float]) -> list[float]:
    """Multipliers of the logits of one softmax, term by term."""
    with mpmath.workdps(50):
        xs, rs = [mpf(float(v)) for v in x], [mpf(float(v)) for v in r]
        xs, rs = ([v - sum(vs) / len(vs) for v in vs] for vs in (xs, rs))
        sums = [sum(mpmath.exp(v) for v in vs) for vs in (xs, rs)]
        weights = [
            log_mean(mpmath.exp(a), mpmath.exp(b)) / log_mean(*sums) for a, b in zip(xs, rs, strict=True)
        ]
        if operation in LOG_SUM_EXP:
            through = [w * mpf(multiplier[0]) for w in weights]
        else:
            gains = [
                log_mean(mpmath.exp(a) / sums[0], mpmath.exp(b) / sums[1]) if operation in SOFTMAX else mpf(1)
                for a, b in zip(xs, rs, strict=True)
            ]
            scaled = [mpf(m) * k for m, k in zip(multiplier, gains, strict=True)]
            through = [s - w * sum(scaled) for s, w in zip(scaled, weights, strict=True)]
        mean = sum(through) / len(through)
        rest = mpf(multiplier[0]) / len(through) if operation in LOG_SUM_EXP else 0
        return [float(t - mean + rest) for t in through]


@pytest.mark.parametrize("operation", list(softmax.RULES), ids=str)
def test_every_softmax_has_a_case(operation: Any) -> None:
    assert operation in (*SOFTMAX, *LOG_SOFTMAX, *LOG_SUM_EXP)


@pytest.mark.parametrize("operation", list(softmax.RULES), ids=str)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(
    ("dims", "axis", "place"),
    [
        ((1, 2, 5), -1, BatchAxis()),
        ((1, 4, 3), 1, BatchAxis()),
        ((4, 1, 2), 0, BatchAxis(1)),
        ((2, 6, 3), 2, BatchAxis(1, 2, 3)),
    ],
    ids=["last axis", "middle axis", "axis before the batch", "batch folded"],
)
def test_softmax_rule_equals_its_formula(
    operation: Any, scale: float, dims: tuple[int, ...], axis: int, place: BatchAxis, bench: Any
) -> None:
    value = bench.draw(*dims, batch=place) * scale
    rest = arguments(operation, axis)
    run = bench.run(
        operation, [value], lambda refs, count: (refs[0], *rest), batches=[place], output_batch=place,
        rule=softmax.RULES[operation],
    )  # fmt: skip
    for pair in run.pairs:
        x, r, m, got = (
            np.moveaxis(v, axis, -1).reshape(-1, v.shape[axis])
            for v in (pair.sequence[0], pair.reference[0], pair.multiplier[0], pair.result[0])
        )
        for row in range(len(x)):
            expected = twin(operation, x[row], r[row], m[row])
            np.testing.assert_allclose(got[row], expected, rtol=0, atol=1e-12 * np.abs(m[row]).sum())
    if scale <= 1:  # saturated outputs differ by less than their own rounding
        bench.check_complete(run)


def test_masked_logits_carry_nothing(bench: Any) -> None:
    value = bench.draw(1, 5)
    value[:, 3] = -torch.inf
    rule = softmax.RULES[aten.softmax.int]
    masked = bench.run(aten.softmax.int, [value], lambda refs, count: (refs[0], -1), rule=rule)
    for pair in masked.pairs:
        kept = [0, 1, 2, 4]
        values = (pair.sequence[0], pair.reference[0], pair.multiplier[0])
        expected = twin(aten.softmax.int, *(value[0, kept] for value in values))
        np.testing.assert_allclose(pair.result[0][0, kept], expected, atol=1e-12)
        assert pair.result[0][0, 3] == 0


def test_a_mask_that_depends_on_the_sequence_is_refused(bench: Any) -> None:
    value = bench.draw(1, 5)
    value[0, 3] = -torch.inf
    rule = softmax.RULES[aten.softmax.int]
    with pytest.raises(UnsupportedModelError, match="masks must not depend on the sequence"):
        bench.run(aten.softmax.int, [value], lambda refs, count: (refs[0], -1), rule=rule)


def test_a_row_that_is_masked_whole_carries_nothing(bench: Any) -> None:
    value = bench.draw(1, 2, 4)
    value[:, 1] = -torch.inf
    rule = softmax.RULES[aten._safe_softmax.default]
    run = bench.run(aten._safe_softmax.default, [value], lambda refs, count: (refs[0], -1), rule=rule)
    for pair in run.pairs:
        assert np.abs(pair.result[0][0, 0]).max() > 0
        assert (pair.result[0][0, 1] == 0).all()


@pytest.mark.parametrize("place", [BatchAxis(), BatchAxis(1, 2, 3), BatchAxis(0, 2, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_compiled_pass_equals_the_plain_one(
    place: BatchAxis, dtype: torch.dtype, threads: int, fewest_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    step = StepShape(2, 3)
    generator = torch.Generator().manual_seed(2)
    dims = [4, 5, 33]
    dims[place.axis] = place.outer * place.inner
    x, r, m = (
        torch.randn(ValueInfo(tuple(dims), place).shape(rows), generator=generator, dtype=torch.float64) * 9
        for rows in (step.sequences, step.pairs, step.pairs)
    )
    x[..., 7] = r[..., 7] = -torch.inf
    ours, theirs = step.sequence_part(x, place), step.pair_part(r, place)
    theirs[..., 9:12] = ours[..., 9:12] + 1e-3 * theirs[..., 9:12]  # close, but not equal
    theirs[..., 12] = ours[..., 12]
    x, r, m = (value.to(dtype) for value in (x, r, m))
    ref, info = Ref("x"), ValueInfo(tuple(dims), place)
    for operation in (aten.softmax.int, aten.log_softmax.int):
        call = Call("y", operation, (ref, -1), {}, (ref,), (info,), info, Source("", ""))
        saved = Backward(step, (x,), (r,), (ref, -1), {})
        found = softmax_multiplier(x, r, m, step, place, logarithm=operation is aten.log_softmax.int)
        assert (found is not None) == (fewest_numbers == 1)
        with monkeypatch.context() as patch:
            patch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", 1 << 40)
            (plain,) = softmax.RULES[operation].backward(call, m, saved)
        (got,) = softmax.RULES[operation].backward(call, m, saved)
        assert plain is not None
        torch.testing.assert_close(got, plain, rtol=0, atol=float(1e3 * torch.finfo(dtype).eps))


def test_a_softmax_over_the_batch_is_refused() -> None:
    ref, info = Ref("x"), ValueInfo((1, 3), BatchAxis())
    for axes, reason in ((0, "across the batch"), ([0, 1], "several axes")):
        call = Call("y", aten.logsumexp.default, (ref, axes), {}, (ref,), (info,), info, Source("", ""))
        assert reason in str(softmax.RULES[aten.logsumexp.default].refusal(call))
