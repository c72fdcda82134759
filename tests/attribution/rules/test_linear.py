"""Linear rules against their matrices, taken from the definition one unit vector at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import dense, linear
from dlgenome.attribution.rules.base import Backward, Call, Ref, Source, aten
from dlgenome.attribution.vectors.processor import has_vectors

FIRST = BatchAxis()
WEIGHT = np.random.default_rng(1).normal(size=(5, 4))
BIAS = np.random.default_rng(2).normal(size=5)
CHANNELS = np.random.default_rng(3).normal(size=(4, 3))


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An operation, the shapes of its inputs for one row, its arguments and its definition for one row."""

    op: Any
    dims: tuple[tuple[int, ...], ...]
    arguments: Callable[..., tuple[Any, ...]]
    definition: Callable[..., Any]
    batches: tuple[BatchAxis, ...] | None = None
    output: BatchAxis = FIRST
    keywords: dict[str, Any] = field(default_factory=dict)
    unused: tuple[int, ...] = ()
    note: str = ""


def average_pool(
    value: Any, kernel: int, stride: int, padding: int, ceil_mode: bool, include: bool, divisor: int | None
) -> Any:
    """Mean over windows of the last axis, from the formulas of torch's documentation."""
    length = value.shape[-1]
    span = length + 2 * padding - kernel
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        count -= 1
    out = np.zeros((*value.shape[:-1], count))
    for window in range(count):
        start = window * stride - padding
        stop = min(start + kernel, length + padding)
        inside = range(max(start, 0), min(start + kernel, length))
        size = divisor or (stop - start if include else len(inside))
        for place in inside:
            out[..., window] += value[..., place] / size
    return out


def adaptive_average(value: Any, size: int) -> Any:
    """Mean over ``size`` windows that share the last axis as evenly as whole numbers allow."""
    length = value.shape[-1]
    windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    return np.stack([value[..., a:b].sum(-1) / (b - a) for a, b in windows], axis=-1)


def over_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the last axis applied to the last but one."""
    return lambda value, *rest: np.swapaxes(function(np.swapaxes(value, -1, -2), *rest), -1, -2)


def normalise(value: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    out = np.array(value)
    for channel in range(4):
        scaled = (value[:, channel] - mean[channel]) / np.sqrt(variance[channel] + 1e-3)
        out[:, channel] = scaled * (1 if gamma is None else gamma[channel])
        out[:, channel] += 0 if beta is None else beta[channel]
    return out


GAMMA, BETA, MEAN = (
    np.array([1.5, -0.7, 0.0, 2.0]),
    np.array([0.1, 0.2, -0.3, 4.0]),
    np.array([1.0, 0, -1, 2]),
)
VARIANCE = np.array([0.5, 2.0, 1e-4, 3.0])


def norm_arguments(gamma: Any, beta: Any) -> Callable[..., tuple[Any, ...]]:
    weights = [None if w is None else tensor(w) for w in (gamma, beta)]
    return lambda refs, rows: (refs[0], *weights, tensor(MEAN), tensor(VARIANCE), 0.1, 1e-3)


INNER, OUTER = BatchAxis(0, 1, 3), BatchAxis(0, 2, 1)
SECOND, THIRD = BatchAxis(1), BatchAxis(2)

CASES = [
    Case(aten.view.default, ((1, 2, 6),), lambda a, n: (a[0], [n, 3, 4]), lambda x: x.reshape(1, 3, 4)),
    Case(aten.view.default, ((1, 3, 2),), lambda a, n: (a[0], [-1, 2]), lambda x: x.reshape(3, 2),
         output=INNER, note="folds an axis into the batch"),
    Case(aten.view.default, ((3, 2),), lambda a, n: (a[0], [n, 6]), lambda x: x.reshape(1, 6),
         batches=(INNER,), note="unfolds the batch"),
    Case(aten._unsafe_view.default, ((2, 1, 3),), lambda a, n: (a[0], [2 * n, 3]), lambda x: x.reshape(2, 3),
         batches=(SECOND,), output=OUTER, note="folds the batch behind another axis"),
    Case(aten.reshape.default, ((1, 2, 3),), lambda a, n: (a[0], [n, -1]), lambda x: x.reshape(1, 6)),
    Case(aten.flatten.using_ints, ((1, 2, 3),), lambda a, n: (a[0], 1), lambda x: x.reshape(1, 6)),
    Case(aten.flatten.using_ints, ((2, 1, 3),), lambda a, n: (a[0], 0, 1), lambda x: x.reshape(2, 3),
         batches=(SECOND,), output=OUTER, note="folds the batch behind another axis"),
    Case(aten.unflatten.int, ((1, 6),), lambda a, n: (a[0], 1, [2, 3]), lambda x: x.reshape(1, 2, 3)),
    Case(aten.unsqueeze.default, ((1, 3),), lambda a, n: (a[0], 0), lambda x: x[None], output=SECOND),
    Case(aten.unsqueeze.default, ((1, 3),), lambda a, n: (a[0], -1), lambda x: x[..., None]),
    Case(aten.squeeze.default, ((1, 1, 3, 1),), lambda a, n: (a[0],), lambda x: x.reshape(1, 3)),
    Case(aten.squeeze.dim, ((1, 1, 3),), lambda a, n: (a[0], 1), lambda x: x.reshape(1, 3)),
    Case(aten.squeeze.dim, ((1, 2, 3),), lambda a, n: (a[0], 1), lambda x: x, note="nothing to squeeze"),
    Case(aten.squeeze.dims, ((1, 1, 3, 1),), lambda a, n: (a[0], [1, -1]), lambda x: x.reshape(1, 3)),
    Case(aten.permute.default, ((1, 2, 3),), lambda a, n: (a[0], [2, 0, -2]), lambda x: x.transpose(2, 0, 1),
         output=SECOND),
    Case(aten.transpose.int, ((1, 2, 3),), lambda a, n: (a[0], 0, -1), lambda x: x.transpose(2, 1, 0),
         output=THIRD),
    Case(aten.t.default, ((1, 3),), lambda a, n: (a[0],), lambda x: x.T, output=SECOND),
    Case(aten.expand.default, ((1, 1, 3),), lambda a, n: (a[0], [-1, 2, 3]), lambda x: np.repeat(x, 2, 1)),
    Case(aten.expand.default, ((1, 3),), lambda a, n: (a[0], [2, n, 3]), lambda x: np.stack([x, x]),
         output=SECOND, note="new leading axis"),
    *[Case(op, ((1, 2, 3),), lambda a, n: (a[0],), lambda x: x)
      for op in (aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default,
                 aten.lift_fresh_copy.default)],
    Case(aten.slice.Tensor, ((1, 2, 7),), lambda a, n: (a[0], 2, 1, 6, 2), lambda x: x[:, :, 1:6:2]),
    Case(aten.slice.Tensor, ((1, 2, 7),), lambda a, n: (a[0], -1, -5, 9**18), lambda x: x[:, :, -5:]),
    Case(aten.slice.Tensor, ((1, 4, 3),), lambda a, n: (a[0], 1, 0, -1), lambda x: x[:, :-1]),
    Case(aten.slice.Tensor, ((1, 4),), lambda a, n: (a[0], 0, 0, 2**63 - 1), lambda x: x, note="whole batch"),
    Case(aten.select.int, ((1, 4, 3),), lambda a, n: (a[0], 1, -2), lambda x: x[:, -2]),
    Case(aten.select.int, ((4, 1, 3),), lambda a, n: (a[0], 0, 1), lambda x: x[1], batches=(SECOND,)),
    Case(aten.split.Tensor, ((1, 5),), lambda a, n: (a[0], 2, 1), lambda x: (x[:, :2], x[:, 2:4], x[:, 4:])),
    Case(aten.split.Tensor, ((1, 5),), lambda a, n: (a[0], 2, 1), lambda x: (x[:, :2], x[:, 2:4], x[:, 4:]),
         unused=(0, 2), note="some outputs unused"),
    Case(aten.split_with_sizes.default, ((1, 5),), lambda a, n: (a[0], [4, 1], -1),
         lambda x: (x[:, :4], x[:, 4:])),
    Case(aten.chunk.default, ((1, 4, 2),), lambda a, n: (a[0], 2, 1), lambda x: (x[:, :2], x[:, 2:]),
         unused=(1,)),
    Case(aten.unbind.int, ((1, 3, 2),), lambda a, n: (a[0], 1), lambda x: (x[:, 0], x[:, 1], x[:, 2])),
    Case(aten.cat.default, ((1, 2), (1, 3)), lambda a, n: ([a[0], a[1], a[0]], 1),
         lambda x, y: np.concatenate([x, y, x], 1), note="one input twice"),
    Case(aten.cat.default, ((1, 2),), lambda a, n: ([torch.ones(n, 1, dtype=torch.float64), a[0]], -1),
         lambda x: np.concatenate([np.ones((1, 1)), x], 1), note="a constant of batch size"),
    Case(aten.stack.default, ((1, 2), (1, 2)), lambda a, n: (a, 1), lambda x, y: np.stack([x, y], 1)),
    Case(aten.stack.default, ((1, 2), (1, 2)), lambda a, n: (a, 0), lambda x, y: np.stack([x, y]),
         output=SECOND),
    Case(aten.flip.default, ((1, 2, 3),), lambda a, n: (a[0], [1, -1]), lambda x: x[:, ::-1, ::-1]),
    Case(aten.index_select.default, ((1, 4),), lambda a, n: (a[0], 1, torch.tensor([3, 0, 3])),
         lambda x: x[:, [3, 0, 3]]),
    Case(aten.constant_pad_nd.default, ((1, 2, 4),), lambda a, n: (a[0], [2, -1, 1, 0], 5.0),
         lambda x: np.pad(x, ((0, 0), (1, 0), (2, 0)), constant_values=5.0)[:, :, :-1]),
    Case(aten.pad.default, ((1, 2, 4),), lambda a, n: (a[0], [3, 1], "reflect"),
         lambda x: np.pad(x, ((0, 0), (0, 0), (3, 1)), mode="reflect")),
    Case(aten.add.Tensor, ((1, 2, 3), (1, 2, 3)), lambda a, n: (a[0], a[1]), lambda x, y: x + y),
    Case(aten.add.Tensor, ((1, 2, 3), (1, 1, 3)), lambda a, n: (a[0], a[1]), lambda x, y: x - 2.5 * y,
         keywords={"alpha": -2.5}, note="broadcast second"),
    Case(aten.add.Tensor, ((1, 1), (1, 2, 1)), lambda a, n: (a[0], a[1]), lambda x, y: x + y,
         batches=(SECOND, THIRD), output=THIRD, note="broadcast over a missing axis"),
    Case(aten.add.Tensor, ((1, 3),), lambda a, n: (a[0], a[0]), lambda x: 4 * x,
         keywords={"alpha": 3}, note="the same value twice"),
    Case(aten.add.Tensor, ((1, 1, 3),), lambda a, n: (tensor(np.ones((2, 3))), a[0]),
         lambda x: np.ones((2, 3)) + x, note="constant first and larger"),
    Case(aten.sub.Tensor, ((1, 1, 3), (1, 2, 3)), lambda a, n: (a[0], a[1]), lambda x, y: x - y),
    Case(aten.sub.Tensor, ((1, 3),), lambda a, n: (tensor([1.0, 2, 3]), a[0]), lambda x: [1, 2, 3] - 2 * x,
         keywords={"alpha": 2}, note="constant minus value"),
    Case(aten.sub.Tensor, ((1, 3),), lambda a, n: (a[0], a[0]), lambda x: 0 * x, note="minus itself"),
    Case(aten.add.Scalar, ((1, 3),), lambda a, n: (a[0], 2.5), lambda x: x + 2.5),
    Case(aten.sub.Scalar, ((1, 3),), lambda a, n: (a[0], 2.5), lambda x: x - 2.5),
    Case(aten.neg.default, ((1, 3),), lambda a, n: (a[0],), lambda x: -x),
    Case(aten.sum.dim_IntList, ((1, 2, 3),), lambda a, n: (a[0], [-1]), lambda x: x.sum(-1)),
    Case(aten.sum.dim_IntList, ((1, 2, 3),), lambda a, n: (a[0], [2, 1], True),
         lambda x: x.sum((1, 2), keepdims=True)),
    Case(aten.sum.dim_IntList, ((2, 1, 3),), lambda a, n: (a[0], [0]), lambda x: x.sum(0),
         batches=(SECOND,), note="axis before the batch"),
    Case(aten.mean.dim, ((1, 2, 3),), lambda a, n: (a[0], [1, -1]), lambda x: x.mean((1, 2))),
    Case(aten.mean.dim, ((1, 2, 3),), lambda a, n: (a[0], [1], True), lambda x: x.mean(1, keepdims=True)),
    Case(aten.cumsum.default, ((1, 2, 4),), lambda a, n: (a[0], -1), lambda x: np.cumsum(x, -1)),
    Case(aten.linear.default, ((1, 4),), lambda a, n: (a[0], tensor(WEIGHT), tensor(BIAS)),
         lambda x: x @ WEIGHT.T + BIAS),
    Case(aten.linear.default, ((1, 3, 4),), lambda a, n: (a[0], tensor(WEIGHT)), lambda x: x @ WEIGHT.T),
    Case(aten.linear.default, ((6, 4),), lambda a, n: (a[0], tensor(WEIGHT)), lambda x: x @ WEIGHT.T,
         batches=(BatchAxis(0, 2, 3),), output=BatchAxis(0, 2, 3), note="folded batch"),
    Case(aten._native_batch_norm_legit_no_training.default, ((1, 4, 3),), norm_arguments(GAMMA, BETA),
         lambda x: normalise(x, GAMMA, BETA, MEAN, VARIANCE), note="negative and zero gamma"),
    Case(aten._native_batch_norm_legit_no_training.default, ((1, 4),), norm_arguments(None, None),
         lambda x: normalise(x, None, None, MEAN, VARIANCE), note="not affine"),
    Case(aten._native_batch_norm_legit_no_training.default, ((1, 4, 2, 3),), norm_arguments(GAMMA, None),
         lambda x: normalise(x, GAMMA, None, MEAN, VARIANCE), note="image"),
    Case(aten.avg_pool1d.default, ((1, 2, 8),), lambda a, n: (a[0], [3], [2], [1], False, True),
         lambda x: average_pool(x, 3, 2, 1, False, True, None)),
    Case(aten.avg_pool1d.default, ((1, 2, 8),), lambda a, n: (a[0], [3], [2], [1], True, False),
         lambda x: average_pool(x, 3, 2, 1, True, False, None), note="ceil mode, padding not counted"),
    Case(aten.avg_pool1d.default, ((1, 2, 8),), lambda a, n: (a[0], [4], [1]),
         lambda x: average_pool(x, 4, 1, 0, False, True, None), note="overlapping"),
    Case(aten.avg_pool2d.default, ((1, 2, 5, 6),), lambda a, n: (a[0], [2, 3], [2, 1], [1, 0], True, True, 4),
         lambda x: average_pool(over_rows(average_pool)(x, 2, 2, 1, True, True, 2), 3, 1, 0, True, True, 2),
         note="divisor"),
    Case(aten.adaptive_avg_pool1d.default, ((1, 2, 7),), lambda a, n: (a[0], [3]),
         lambda x: adaptive_average(x, 3), note="overlapping windows"),
    *[Case(op, ((1, 2, 5, 7),), lambda a, n: (a[0], [2, 3]),
           lambda x: adaptive_average(over_rows(adaptive_average)(x, 2), 3))
      for op in (aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default)],
    Case(aten.upsample_nearest1d.vec, ((1, 2, 3),), lambda a, n: (a[0], None, [2.0]),
         lambda x: np.repeat(x, 2, -1)),
    Case(aten.upsample_nearest1d.default, ((1, 2, 4),), lambda a, n: (a[0], [6]),
         lambda x: x[..., [0, 0, 1, 2, 2, 3]]),
    Case(aten.upsample_nearest2d.vec, ((1, 2, 2, 3),), lambda a, n: (a[0], None, [2.0, 3.0]),
         lambda x: np.repeat(np.repeat(x, 2, -2), 3, -1)),
    Case(aten.upsample_bilinear2d.vec, ((1, 1, 2, 2),), lambda a, n: (a[0], [3, 2], True, None),
         lambda x: np.stack([x[:, :, 0], x.mean(2), x[:, :, 1]], 2)),
    Case(aten.upsample_nearest2d.default, ((1, 2, 2, 3),), lambda a, n: (a[0], [4, 3]),
         lambda x: np.repeat(x, 2, -2)),
]  # fmt: skip


@pytest.mark.parametrize("operation", [*linear.RULES, *dense.RULES], ids=str)
def test_every_linear_operation_has_a_case(operation: Any) -> None:
    assert operation in {case.op for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op} {case.note}".strip())
def test_linear_rule_equals_the_transposed_matrix(case: Case, bench: Any) -> None:
    batches = case.batches or (FIRST,) * len(case.dims)
    inputs = [bench.draw(*dims, batch=batch) for dims, batch in zip(case.dims, batches, strict=True)]
    run = bench.run(
        case.op,
        inputs,
        case.arguments,
        batches=batches,
        output_batch=case.output,
        keywords=case.keywords,
        unused_outputs=case.unused,
    )
    bench.check_linear(run, case.definition)


def call_on(operation: Any, batch: BatchAxis, *rest: Any, dims: tuple[int, ...] = (1, 3, 4)) -> Call:
    ref, info = Ref("x"), ValueInfo(dims, batch)
    return Call("y", operation, (ref, *rest), {}, (ref,), (info,), info, Source("", ""))


@pytest.mark.parametrize(
    ("operation", "rest"),
    [
        (aten.flip.default, ([0],)),
        (aten.flip.default, ([-3],)),
        (aten.cumsum.default, (0,)),
        (aten.index_select.default, (0, torch.tensor([0]))),
        (aten.select.int, (0, 0)),
        (aten.split.Tensor, (1, 0)),
        (aten.mean.dim, ([0, 1],)),
        (aten.sum.dim_IntList, (None,)),
        (aten.slice.Tensor, (0, 1, 3)),
        (aten.slice.Tensor, (0, 0, 2)),
    ],
    ids=str,
)
def test_working_across_the_batch_is_refused(operation: Any, rest: tuple[Any, ...]) -> None:
    assert "batch" in str(linear.RULES[operation].refusal(call_on(operation, FIRST, *rest)))


def test_weights_that_depend_on_the_sequence_are_refused() -> None:
    value, weight = Ref("x"), Ref("w")
    infos = (ValueInfo((1, 4), FIRST),) * 2
    call = Call(
        "y", aten.linear.default, (value, weight), {}, (value, weight), infos, infos[0], Source("", "")
    )
    assert dense.RULES[aten.linear.default].refusal(call) == "its weights depend on the sequence"


@pytest.mark.parametrize("by_vectors", [True, False], ids=["vectors", "library"])
@pytest.mark.parametrize("outputs", [1, 3, 16, 50, 131])
def test_a_dense_layer_of_known_weights_is_that_layer(
    outputs: int, by_vectors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_vectors and not has_vectors():
        pytest.skip("the processor has no such vectors")
    monkeypatch.setattr(dense, "has_vectors", lambda: by_vectors)
    weight, bias, value = torch.randn(outputs, 70), torch.randn(outputs), torch.randn(3, 5, 70)
    call = cast(Call, None)  # asked for nothing
    rule = dense.RULES[aten.linear.default]
    bound = rule.bound(call, (Ref("x"), weight, bias))
    assert (type(bound) is dense.VectorDense) == (by_vectors and outputs >= 16)
    assert type(bound) is dense.VectorDense or bound is rule
    order = torch.randperm(3)
    for more in ((bias,), (None,), ()):
        made = bound.forward(call, (value, weight, *more), {})
        torch.testing.assert_close(made, torch.nn.functional.linear(value, weight, *more))
        assert torch.equal(bound.forward(call, (value[order], weight, *more), {}), made[order])
    multiplier = torch.randn(3, 5, outputs)
    (back,) = bound.backward(call, multiplier, cast(Backward, SimpleNamespace(args=(value, weight, bias))))
    torch.testing.assert_close(back, multiplier @ weight)


@pytest.mark.usefixtures("with_narrow_vectors")
@pytest.mark.parametrize("outputs", [16, 131])
def test_a_narrow_dense_layer_rounds_what_goes_back_alone(outputs: int) -> None:
    weight, value, multiplier = torch.randn(outputs, 70), torch.randn(9, 70), torch.randn(9, outputs)
    call = cast(Call, None)  # asked for nothing
    layers = [dense.Dense(narrow=narrow).bound(call, (Ref("x"), weight)) for narrow in (False, True)]
    plain, narrow = (layer.forward(call, (value, weight), {}) for layer in layers)
    assert torch.equal(plain, narrow)
    saved = cast(Backward, SimpleNamespace(args=(value, weight)))
    _, (back,) = (layer.backward(call, multiplier, saved) for layer in layers)
    assert back is not None
    error = (back - multiplier @ weight).norm() / (multiplier @ weight).norm()
    assert 2**-16 < error < 2**-12


def test_a_dense_layer_of_one_row_of_weights_stays_as_it_is() -> None:
    rule = dense.RULES[aten.linear.default]
    assert rule.bound(cast(Call, None), (Ref("x"), torch.randn(70))) is rule
