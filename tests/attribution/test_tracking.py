"""The batch is found wherever a model puts it, and models that mix its rows are refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.constants import evaluate_constants
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape, ValueInfo, unfold
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.rules.base import fill
from dlgenome.errors import UnsupportedModelError

SHAPE = (4, 6)
STEP = StepShape(2, 3)
Function = Callable[[Tensor], Tensor]


class Summed(nn.Module):
    """Functions of the same sequences whose results hold the batch anywhere; each is one target."""

    def __init__(self, functions: list[Function], back: list[Function]) -> None:
        super().__init__()
        self.functions, self.back = functions, back

    def forward(self, x: Tensor) -> Any:
        pairs = zip(self.functions, self.back, strict=True)
        rows = [back(torch.sigmoid(function(x))).reshape(x.shape[0], -1) for function, back in pairs]
        return torch.cat([row @ torch.arange(1.0, 25, dtype=row.dtype)[:, None] for row in rows], 1)


def foldings() -> dict[str, tuple[Function, Function]]:
    """Every order of batch, channels and length, with no two, the first two, the last two or all merged."""
    found: dict[str, tuple[Function, Function]] = {}
    for order in itertools.permutations(range(3)):
        inverse = [order.index(axis) for axis in range(3)]
        for first, last in ((0, 0), (0, 1), (1, 2), (0, 2)):
            name = "".join("bcl"[axis] for axis in order) + f" merged {first}-{last}"
            found[name] = (_folded(order, first, last), _unfolded(order, inverse))
    return found


def _folded(order: tuple[int, ...], first: int, last: int) -> Function:
    return lambda x: x.permute(order).flatten(first, last)


def _unfolded(order: tuple[int, ...], inverse: list[int]) -> Function:
    sizes = [(-1, *SHAPE)[axis] for axis in order]
    return lambda y: y.reshape(sizes).permute(inverse)


def rows_of(program: Program, rows: Tensor) -> dict[str, tuple[Tensor, ValueInfo]]:
    """Every value of a program with its shape, for some rows."""
    values = {**evaluate_constants(program, len(rows)), program.sequences: rows}
    found = {}
    for step in program.steps:
        call = step.call
        made = step.rule.forward(call, fill(call.args, values), fill(call.kwargs, values))
        values[call.name] = made
        if isinstance(made, Tensor):
            found[call.name] = (made, call.output)
    return found


def test_the_batch_is_followed_through_every_order_and_merging_of_axes(explain: Callable[..., Any]) -> None:
    there, back = zip(*foldings().values(), strict=True)
    module = Summed(list(there), list(back))
    program = lower(capture(module, SHAPE, dtype=torch.float64))
    program.require_supported()
    numbers = torch.arange(5, dtype=torch.float64).view(5, 1, 1).expand(5, *SHAPE)
    for value, info in rows_of(program, numbers).values():
        assert info.batch is not None
        assert tuple(value.shape) == info.shape(5)
        own = unfold(value, info.batch, 5).movedim(info.batch.axis + 1, 0).flatten(1)
        if info.dims != (1, len(there)):
            assert torch.equal(own, own[:, :1].expand_as(own))
    found = explain(module, SHAPE, len(there), program=program)
    assert max(found.completeness) < 1e-12
    assert max(found.forward) < 1e-14


class Folding(nn.Module):
    """Attention by heads, windows, an LSTM over time first, a pool over rows folded into one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(4, 3)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Any:
        first = x.permute(2, 0, 1)
        first = first + self.attention(first, first, first, need_weights=False)[0]
        recurrent = self.lstm(first)[0][-1]
        windows = F.max_pool1d(self.norm(first).permute(1, 2, 0).reshape(-1, 1, 6), 3, 2)
        pooled = windows.reshape(-1, 4, 2).logsumexp(2)
        return self.head(torch.cat([recurrent, pooled], 1))


@pytest.fixture(scope="module")
def folding() -> tuple[Engine, Tensor]:
    """An engine, and rows: two sequences, then three references of each."""
    torch.manual_seed(2)
    program = lower(capture(Folding(), SHAPE, dtype=torch.float64))
    return Engine(program, STEP), torch.randn(STEP.rows, *SHAPE, dtype=torch.float64)


def test_another_sequence_changes_the_scores_of_its_own_pairs_only(folding: tuple[Engine, Tensor]) -> None:
    engine, rows = folding
    before = engine.run(rows, 1).multipliers[0].view(2, 3, *SHAPE)
    changed = rows.clone()
    changed[1] += 1
    after = engine.run(changed, 1).multipliers[0].view(2, 3, *SHAPE)
    assert torch.equal(before[0], after[0])
    assert (before[1] != after[1]).flatten(1).any(1).all()


@pytest.mark.parametrize("pair", range(STEP.pairs))
def test_another_reference_changes_the_scores_of_its_own_pair_only(
    pair: int, folding: tuple[Engine, Tensor]
) -> None:
    engine, rows = folding
    before = engine.run(rows, 1).multipliers[0]
    changed = rows.clone()
    changed[STEP.sequences + pair] -= 1
    after = engine.run(changed, 1).multipliers[0]
    assert [number for number in range(STEP.pairs) if not torch.equal(before[number], after[number])] == [
        pair
    ]


def two_foldings(x: Tensor) -> Tensor:
    """Rows in the order (half, row) added to rows in the order (row, half)."""
    halves = x.unflatten(1, (2, 2))  # type: ignore[no-untyped-call]
    mixed = halves.transpose(0, 1).flatten(0, 1) + halves.flatten(0, 1)
    both: Tensor = mixed.reshape(2, x.shape[0], -1).transpose(0, 1)
    return both


MIXING: dict[str, tuple[Function, str]] = {
    "rows read as channels": (lambda x: x.reshape(4, x.shape[0], -1).sum(0), "reshapes across the batch"),
    "channels first, then rows again": (
        lambda x: x.permute(1, 0, 2).reshape(x.shape[0], -1), "reshapes across the batch",
    ),
    "length first, then rows again": (
        lambda x: x.permute(2, 1, 0).reshape(x.shape[0], -1), "mixes the rows of the batch",
    ),
    "two orders in one sum": (two_foldings, "different orders"),
    "convolution over the batch": (
        lambda x: F.conv1d(x.permute(2, 1, 0), torch.ones(4, 4, 3), padding=1), "across the batch",
    ),
    "convolution of images over the batch": (
        lambda x: F.conv2d(x.transpose(0, 2)[None], torch.ones(1, 6, 3, 3), padding="same"), "across",
    ),
    "average over the batch": (lambda x: F.avg_pool1d(x.permute(1, 2, 0), 3, 1, 1), "across the batch"),
    "batch moved round by padding": (lambda x: F.pad(x.permute(1, 2, 0), (1, -1)), "across the batch"),
    "constant matrix over the batch": (
        lambda x: torch.ones(x.shape[0], x.shape[0]) @ x.flatten(1), "across the batch",
    ),
    "dense layer over the batch": (
        lambda x: F.linear(x.flatten(1).T, torch.ones(x.shape[0], x.shape[0])), "across the batch",
    ),
    "repeated rows": (lambda x: x.repeat(2, 1, 1).reshape(-1, 48), "batch"),
    "rows joined to rows": (lambda x: torch.cat([x, x])[: x.shape[0]], "batch"),
}  # fmt: skip


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([Branch(function) for function, _ in MIXING.values()])

    def forward(self, x: Tensor) -> Any:
        return torch.stack([branch(x).sum() for branch in self.branches]) + x.sum((1, 2))[:, None]


class Branch(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.fixture(scope="module")
def mixing() -> Program:
    """A program of every function that mixes rows."""
    return lower(capture(Mixing(), SHAPE))


@pytest.mark.parametrize("name", MIXING)
def test_mixing_the_rows_of_a_batch_is_refused(name: str, mixing: Program) -> None:
    path = f"branches.{list(MIXING).index(name)}"
    reasons = [refusal.reason for refusal in mixing.refusals if refusal.source.module == path]
    assert reasons
    assert MIXING[name][1] in reasons[0]


class PositionsAlongBatch(nn.Module):
    """A positional encoding for (length, batch, channels) that is given (batch, length, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: Tensor
        self.register_buffer("positions", torch.randn(100, 1, 4))

    def forward(self, x: Tensor) -> Any:
        x = x.transpose(1, 2)
        return torch.tanh(x + self.positions[: x.shape[0]]).sum((1, 2))[:, None]


def test_a_constant_that_differs_from_row_to_row_is_refused() -> None:
    program = lower(capture(PositionsAlongBatch(), SHAPE))
    with pytest.raises(UnsupportedModelError, match=r"aten.add.Tensor.*differs from row to row"):
        Engine(program, STEP)


def test_a_constant_as_large_as_the_batch_is_fine_where_its_rows_are_equal(
    explain: Callable[..., Any],
) -> None:
    class Zeros(nn.Module):
        def forward(self, x: Tensor) -> Any:
            state = torch.zeros(x.shape[0], 4, dtype=x.dtype) + 0.3
            for position in range(3):
                state = torch.tanh(state + x[:, :, position])
            return state.sum(1, keepdim=True)

    assert explain(Zeros(), SHAPE).completeness[0] < 1e-12


class Controlled(nn.Module):
    """A gate by a layer on a constant control track, and the mean of the control."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cc = nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(2, 6, 5, padding=2)
        self.control: Tensor
        self.register_buffer("control", torch.randn(2, 40))

    def forward(self, x: Tensor) -> Any:
        control = self.control.expand(x.shape[0], *self.control.shape)
        gated = self.conv(x).relu() * self.cc(control).sigmoid()
        return (gated * control[..., :1].mean(1, keepdim=True)).sum((1, 2))[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_layers_on_a_constant_as_large_as_the_batch_round_alike_in_every_row(dtype: torch.dtype) -> None:
    program = lower(capture(Controlled(), (4, 40), dtype=dtype))
    gate = next(s for s in program.steps if str(s.call.op) == "aten.mul.Tensor").call
    (constant,) = [arg.name for arg in gate.args if not gate.depends(arg)]
    values = [evaluate_constants(program, rows)[constant] for rows in (1, 3, 20, 57)]
    for value in values:
        assert torch.equal(value, values[0].expand_as(value))
    Engine(program, StepShape(1, 20))
