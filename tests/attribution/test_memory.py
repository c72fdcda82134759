"""What is written over on the way, and operations put together: nothing of it changes a score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.memory import plan_memory
from dlgenome.attribution.methods import DEEPLIFT
from dlgenome.attribution.rewriting import put_together

pytestmark = pytest.mark.usefixtures("either_way")
STEP = StepShape(2, 3)
LENGTH = 200


class Residuals(nn.Module):
    """Residual connections around ReLUs, in every way that they are written."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, channels, 5, padding=2)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1) for _ in range(5))
        self.head = nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Any:
        a, b, c, d, e = self.convs
        x = self.first(x).relu()
        x = x + a(x).relu()  # as in BPNet
        x = b(x).relu() + x  # the other way round
        made = c(x).relu()
        x = x + made
        x = x * 0.5 + made  # the ReLU is read twice
        x = x + d(x[..., :1]).relu()  # broadcast
        before = x
        x = x + e(x).relu()
        return self.head((x + before).mean(2))  # the first term is read once more


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def captured(request: pytest.FixtureRequest) -> tuple[Program, torch.dtype]:
    torch.manual_seed(4)
    return lower(capture(Residuals(), (4, LENGTH), dtype=request.param)), request.param


@pytest.mark.usefixtures("without_vectors")
def test_residual_relus_are_one_operation_where_nothing_else_reads_them(
    captured: tuple[Program, torch.dtype],
) -> None:
    program, _ = captured
    names = [step.call.op for step in put_together(program).steps]
    assert names.count("add(relu)") == 3
    assert sum(str(name) == "aten.relu.default" for name in names) == 3


def test_a_value_that_is_read_later_or_kept_is_not_written_over(
    captured: tuple[Program, torch.dtype],
) -> None:
    program = put_together(captured[0])
    plan = plan_memory(program)
    last = {ref.name: index for index, step in enumerate(program.steps) for ref in step.call.inputs}
    for index, step in enumerate(program.steps):
        if step.call.name in plan.over:
            first = step.call.inputs[0].name
            assert last[first] == index
            assert first not in plan.kept
    assert plan.over
    assert plan.spare
    everything = plan_memory(program, keep_all=True)
    assert not everything.over
    assert not everything.spare


def test_scores_are_those_of_the_program_as_it_was_captured(
    captured: tuple[Program, torch.dtype], either_way: str
) -> None:
    """But for towers of vectors, which sum up in another order than the layers one by one."""
    program, dtype = captured
    in_order = either_way != "vectors" or dtype is torch.float64
    rows = torch.zeros(STEP.rows, 4, LENGTH, dtype=dtype)
    bases = torch.randint(4, (STEP.rows, 1, LENGTH), generator=torch.Generator().manual_seed(1))
    rows.scatter_(1, bases, 1)
    expected = Engine(program, STEP, keep_all=True).run(rows, 2)
    engine = DEEPLIFT.engine(program, STEP)
    for _ in range(2):  # what was written over is made anew
        found = engine.run(rows, 2)
        for one, other in zip(expected.multipliers, found.multipliers, strict=True):
            scale = one.abs().max()
            assert (one - other).abs().max() <= (4 if in_order else 16) * torch.finfo(dtype).eps * scale
        most = 0 if in_order else 1e-6
        torch.testing.assert_close(found.predictions, expected.predictions, rtol=most, atol=0)
    sequences = engine.forward_sequences(rows[: STEP.sequences])
    references = rows[STEP.sequences :]
    first, second = (engine.run_pairs(sequences, references, 2).multipliers for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


class TwoPrecisions(nn.Module):
    """A float32 network that adds up in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 5, 3, padding=1), nn.Conv1d(5, 5, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(5, LENGTH))

    def forward(self, x: Tensor) -> Any:
        values = self.first(x).relu()
        total = values.double() + self.second(values).relu()
        return (total * self.weight).sum((1, 2))[:, None]


def test_a_residual_relu_is_as_wide_as_the_wider_of_its_terms() -> None:
    torch.manual_seed(4)
    program = lower(capture(TwoPrecisions(), (4, LENGTH)))
    assert any(step.call.op == "add(relu)" for step in put_together(program).steps)
    rows = torch.randn(STEP.rows, 4, LENGTH)
    expected = Engine(program, STEP, keep_all=True).run(rows, 1)
    found = DEEPLIFT.engine(program, STEP).run(rows, 1)
    torch.testing.assert_close(found.predictions, expected.predictions, rtol=0, atol=0)
    torch.testing.assert_close(found.multipliers[0], expected.multipliers[0], rtol=0, atol=1e-6)


class LateSum(nn.Module):
    """A sum with a ReLU behind the last mean, where numbers are in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 5, 3)
        self.left, self.right, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Any:
        means = self.first(x).relu().mean(2)
        return self.head(self.left(means) + self.right(means).relu())


def test_a_sum_in_float64_stays_one() -> None:
    torch.manual_seed(4)
    program = lower(capture(LateSum(), (4, LENGTH)))
    rows = torch.randn(STEP.rows, 4, LENGTH)
    expected = Engine(program, STEP, keep_all=True).run(rows, 1)
    found = DEEPLIFT.engine(program, STEP).run(rows, 1)
    assert torch.equal(found.predictions, expected.predictions)
    assert torch.equal(found.multipliers[0], expected.multipliers[0])
