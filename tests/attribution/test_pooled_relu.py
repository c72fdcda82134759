"""A ReLU and the pool after it in one pass: the scores of one after the other, for every kind of window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.rewriting import put_together

STEP, LENGTH, CHANNELS = StepShape(2, 3), 200, 64
FUSED = "max_pool1d(relu)"
POOLS: dict[str, nn.Module] = {
    "side-by-side": nn.MaxPool1d(4),
    "with-a-rest": nn.MaxPool1d(3),
    "overlapping": nn.MaxPool1d(5, 2),
    "apart": nn.MaxPool1d(2, 3),
    "padded": nn.MaxPool1d(4, padding=2),
    "dilated": nn.MaxPool1d(3, 3, dilation=2),
    "ceil": nn.MaxPool1d(7, ceil_mode=True),
    "all": nn.MaxPool1d(LENGTH - 4),
}


class Network(nn.Module):
    def __init__(self, pool: nn.Module, *, read_twice: bool = False) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv1d(4, CHANNELS, 5), pool, nn.Linear(CHANNELS, 2)
        self.second = nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.read_twice = read_twice

    def forward(self, x: Tensor) -> Any:
        positive = self.conv(x).relu()
        pooled = self.pool(positive)
        other = positive.mean(2) if self.read_twice else 0
        return self.head(self.second(pooled).sigmoid().mean(2) + other)


def program_of(pool: nn.Module, dtype: torch.dtype = torch.float32, **options: bool) -> Program:
    torch.manual_seed(3)
    return lower(capture(Network(pool, **options).eval(), (4, LENGTH), dtype=dtype))


def operations(program: Program) -> list[str]:
    return [str(step.call.op) for step in put_together(program).steps]


def rows_of(dtype: torch.dtype) -> Tensor:
    rows = torch.zeros(STEP.rows, 4, LENGTH, dtype=dtype)
    bases = torch.randint(4, (STEP.rows, 1, LENGTH), generator=torch.Generator().manual_seed(1))
    return rows.scatter_(1, bases, 1)


@pytest.mark.parametrize(
    ("least", "dtype"),
    [(1, torch.float32), (1, torch.float64), (1 << 40, torch.float64)],
    ids=["kernels-float32", "kernels-float64", "plain"],
)
@pytest.mark.parametrize("pool", POOLS)
def test_scores_are_those_of_the_program_as_it_was_captured(
    pool: str, dtype: torch.dtype, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, rows = program_of(POOLS[pool], dtype), rows_of(dtype)
    assert FUSED in operations(program)
    assert "aten.relu.default" not in operations(program)
    monkeypatch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", 1 << 40)
    expected = Engine(program, STEP, keep_all=True).run(rows, 2)
    monkeypatch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", least)
    engine = DEEPLIFT.engine(program, STEP)
    for _ in range(2):  # what was written over is made anew
        found = engine.run(rows, 2)
        for one, other in zip(expected.multipliers, found.multipliers, strict=True):
            # secants of the sigmoid magnify the rounding of what two memory layouts add up
            assert (one - other).abs().max() <= 200 * torch.finfo(dtype).eps * one.abs().max()
        torch.testing.assert_close(found.predictions, expected.predictions)


def test_a_relu_that_is_read_twice_stays() -> None:
    assert FUSED not in operations(program_of(POOLS["overlapping"], read_twice=True))


def test_the_other_way_to_share_a_maximum_out_is_left_alone() -> None:
    engine = Method(max_pool="argmax").engine(program_of(POOLS["side-by-side"]), STEP)
    assert FUSED not in [str(step.call.op) for step in engine.program.steps]


def test_it_takes_what_a_narrow_convolution_makes() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv1d(4, 32, 1), Network(POOLS["with-a-rest"]))
    network[1].conv = nn.Conv1d(32, CHANNELS, 5)
    exact = lower(capture(network.double().eval(), (4, LENGTH), dtype=torch.float64))
    narrow = with_narrow_products(lower(capture(network.float().eval(), (4, LENGTH))))
    expected = DEEPLIFT.engine(exact, STEP).run(rows_of(torch.float64), 1).multipliers[0]
    found = DEEPLIFT.engine(narrow, STEP).run(rows_of(torch.float32), 1).multipliers[0]
    assert found.dtype is torch.float32
    assert 1e-5 < (found - expected).abs().mean() / expected.abs().max() < 0.005
