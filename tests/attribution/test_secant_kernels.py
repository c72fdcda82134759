"""Functions of one value on the way back: the compiled passes over large values against the plain path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlgenome.attribution.kernels import pair_rows
from dlgenome.attribution.layout import BatchAxis, StepShape, ValueInfo
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Backward, Call, Ref, Source, aten
from dlgenome.attribution.rules.elementwise import Elementwise, Smooth
from dlgenome.attribution.rules.piecewise import PiecewiseLinear

STEP = StepShape(2, 3)
CHANNELS, POSITIONS = 16, 1001
FUNCTIONS: list[tuple[Any, tuple[Any, ...]]] = [
    (aten.relu.default, ()),
    (aten.leaky_relu.default, (0.2,)),
    (aten.relu6.default, ()),
    (aten.clamp.default, (-0.3, 0.4)),
    (aten.clamp_max.default, (0.5,)),
    (aten.clamp.default, (0.0, float("inf"))),
    (aten.clamp.default, (float("-inf"), 0.1)),
    (aten.hardtanh.default, (-0.2, 0.6)),
    (aten.abs.default, ()),
    (aten.softshrink.default, (0.4,)),
    (aten.gelu.default, ()),
    (aten.silu.default, ()),
    (aten.sigmoid.default, ()),
    (aten.tanh.default, ()),
    (aten.softplus.default, (3.0,)),
    (aten.exp.default, ()),
    (aten.elu.default, (0.7,)),
    (aten.selu.default, ()),
    (aten.celu.default, (0.5,)),
    (aten.mish.default, ()),
    (aten.log_sigmoid.default, ()),
    (aten.sin.default, ()),
    (aten.erf.default, ()),
]


def lying(value: Tensor) -> Tensor:
    """The same with all channels of a position side by side, as convolutions leave it."""
    return value.transpose(1, 2).contiguous().transpose(1, 2)


def made_up(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Values of sequences and references, some of them close or equal, and multipliers."""
    generator = torch.Generator().manual_seed(3)
    x, r, m = (
        torch.randn(rows, CHANNELS, POSITIONS, generator=generator, dtype=torch.float64)
        for rows in (STEP.sequences, STEP.pairs, STEP.pairs)
    )
    beside = x.repeat_interleave(STEP.references, 0)
    r[:, :, :300] = beside[:, :, :300] + 1e-2 * r[:, :, :300]
    r[:, :, 300:400] = beside[:, :, 300:400]
    r[0, :, 400:] *= 3
    return lying(x.to(dtype)), lying(r.to(dtype)), lying(m.to(dtype))


def call_of(operation: Any, rest: tuple[Any, ...]) -> Call:
    """A call of a function of one value."""
    ref, info = Ref("x"), ValueInfo((1, CHANNELS, POSITIONS), BatchAxis())
    return Call("y", operation, (ref, *rest), {}, (ref,), (info,), info, Source("", ""))


def sent_back(rule: Any, call: Call, values: tuple[Tensor, Tensor, Tensor], *, spare: bool = False) -> Tensor:
    """The multiplier of the input."""
    x, r, m = values
    (found,) = rule.backward(call, m, Backward(STEP, (x,), (r,), call.args, {}, spare))
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize(("operation", "rest"), FUNCTIONS, ids=str)
def test_a_pass_gives_what_the_plain_path_gives(
    operation: Any, rest: tuple[Any, ...], spare: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, r, m = made_up(dtype)
    call = call_of(operation, rest)
    with monkeypatch.context() as patch:
        patch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", 1 << 40)
        expected = sent_back(RULES[operation], call, (x, r, m))
    memory = r.data_ptr()
    found = sent_back(RULES[operation], call, (x, r, m), spare=spare)
    assert (found.data_ptr() == memory) == spare
    assert found.stride() == r.stride()
    # where both are close the secant is known to two thirds of the digits, its product with x - r to all
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=0, atol=float(4 * eps ** (2 / 3) * expected.abs().max()))
    difference = x.repeat_interleave(STEP.references, 0) - made_up(dtype)[1]
    off, whole = (found - expected) * difference, expected * difference
    assert off.abs().max() <= 4 * eps * whole.abs().max()


def test_functions_that_jump_or_have_more_pieces_take_the_plain_path() -> None:
    def four_pieces(call: Call, args: tuple[Any, ...]) -> tuple[list[float], list[float]]:
        return [-1.0, 0.0, 1.0], [0.0, 1.0, 2.0, 0.0]

    x, r, m = made_up(torch.float64)
    rows = pair_rows(x, r, m, STEP, BatchAxis())
    assert rows is not None
    call = call_of(aten.threshold.default, (0.1, -20.0))
    saved = Backward(STEP, (x,), (r,), call.args, {})
    for rule in (RULES[aten.threshold.default], PiecewiseLinear(four_pieces, continuous=True)):
        assert isinstance(rule, PiecewiseLinear)
        assert rule.in_one_pass(call, rows, saved) is None
    assert not PiecewiseLinear(four_pieces).continuous, "who does not say so is not taken to be"


def test_a_long_line_of_numbers_has_no_channels() -> None:
    x, r, m = (torch.randn(rows * 40_000) for rows in (STEP.sequences, STEP.pairs, STEP.pairs))
    assert pair_rows(x, r, m, STEP, BatchAxis()) is None


@pytest.mark.parametrize(("operation", "rest"), FUNCTIONS[:3], ids=str)
def test_shares_of_several_threads_are_the_whole(
    operation: Any, rest: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    values, call = made_up(torch.float32), call_of(operation, rest)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = sent_back(RULES[operation], call, values)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(sent_back(RULES[operation], call, values), alone)


def test_values_that_lie_otherwise_take_the_plain_path() -> None:
    x, r, m = made_up(torch.float32)
    assert pair_rows(x, r, m, STEP, BatchAxis()) is not None
    assert pair_rows(x, r, m, STEP, BatchAxis(0, 1, 2)) is None
    assert pair_rows(x, r[:, :, 1:], m[:, :, 1:], STEP, BatchAxis()) is None
    assert pair_rows(x, r.double(), m, STEP, BatchAxis()) is None
    assert pair_rows(x[..., :9], r[..., :9].contiguous(), m[..., :9], STEP, BatchAxis()) is None


class Doubled(Smooth):
    """The secant of a smooth function, twice."""

    def secant(self, call: Call, x: Tensor, r: Tensor, saved: Backward) -> Tensor:
        """Twice that of the class it comes from."""
        return super().secant(call, x, r, saved).mul_(2)


def test_a_secant_that_a_subclass_replaces_is_the_one_that_counts() -> None:
    values, call = made_up(torch.float64), call_of(aten.tanh.default, ())
    once, twice = (sent_back(rule, call, values) for rule in (Smooth(), Doubled()))
    torch.testing.assert_close(twice, 2 * once)
    assert not Elementwise()._has_one_pass()
