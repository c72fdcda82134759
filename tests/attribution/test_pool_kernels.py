"""Maxima over windows by the kernels against the plain path, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution import kernels
from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.pool_kernels import Windows, pooled

STEP = StepShape(2, 3)
WINDOWS = [
    Windows(4, 4, 0, 1),
    Windows(3, 3, 1, 1),
    Windows(5, 2, 2, 1),
    Windows(3, 1, 1, 2),
    Windows(2, 3, 0, 4),
    Windows(7, 7, 3, 1),
]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels last in memory, and with many equal numbers, so that maxima are tied."""
    made = torch.randn(shape[0], shape[2], shape[1], generator=torch.Generator().manual_seed(1), dtype=dtype)
    return (made * 4).round().transpose(1, 2) / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_maxima_are_those_of_torch(windows: Windows, dtype: torch.dtype) -> None:
    value = values(8, 40, 150, dtype=dtype)
    value[3, 5, 77] = torch.nan
    value[4, :, :40] = -torch.inf
    arguments = (windows.width, windows.stride, windows.padding, windows.dilation)
    expected = F.max_pool1d(value, *arguments)
    found = pooled(value, windows, expected.shape[2])
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_what_the_kernels_do_not_know_is_left_alone() -> None:
    value = values(8, 40, 150)
    for other in (value.contiguous(), value.half(), value[:, :4, :100], value.unsqueeze(2)):
        assert pooled(other, Windows(4, 4, 0, 1), 37) is None


class Pool(nn.Module):
    """A convolution and a pool whose maxima are often tied; then another, and a dense layer."""

    def __init__(self, windows: Windows, ceil: bool) -> None:
        super().__init__()
        numbers = (windows.width, windows.stride, windows.padding, windows.dilation)
        self.first = nn.Conv1d(4, 40, 3)
        self.first.weight.data = (self.first.weight.data * 4).round()
        self.first.bias.data.zero_()  # type: ignore[union-attr]
        self.pool = nn.MaxPool1d(*numbers, ceil_mode=ceil)
        self.second = nn.Conv1d(40, 40, 3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.second(self.pool(self.first(x).relu())).relu().sum(2)[:, :1]
        return made


@pytest.mark.parametrize("ceil", [False, True], ids=["", "ceil"])
@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_multipliers_are_those_of_the_plain_path(
    windows: Windows, ceil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    program = lower(capture(Pool(windows, ceil), (4, 300), dtype=torch.float64))
    rows = torch.zeros(STEP.rows, 4, 300, dtype=torch.float64)
    rows.scatter_(1, torch.randint(4, (STEP.rows, 1, 300)), 1)
    rows[3, :, :150] = rows[0, :, :150]
    found = Engine(program, STEP).run(rows, 1)
    monkeypatch.setattr(kernels, "MIN_ELEMENTS", 2**40)
    plain = Engine(program, STEP).run(rows, 1)
    torch.testing.assert_close(found.predictions, plain.predictions, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.multipliers[0], plain.multipliers[0], rtol=1e-12, atol=1e-12)
    gap = rows[:2].repeat_interleave(3, 0) - rows[2:]
    total = (found.multipliers[0] * gap).sum((1, 2)).reshape(2, 3)
    delta = (found.pair_predictions - found.reference_predictions)[..., 0]
    torch.testing.assert_close(total, delta, rtol=1e-10, atol=1e-10)


def test_revealcancel_goes_through_a_pool_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for the derivative of the rule, which the kernels do not have."""
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv1d(4, 40, 3), nn.MaxPool1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(5960, 1))
    program = lower(capture(network, (4, 450), dtype=torch.float64))
    rows = torch.randn(STEP.rows, 4, 450, dtype=torch.float64)
    method = Method(rules="revealcancel")
    found = method.engine(program, STEP).run(rows, 1)
    monkeypatch.setattr(kernels, "MIN_ELEMENTS", 2**40)
    plain = method.engine(program, STEP).run(rows, 1)
    torch.testing.assert_close(found.multipliers[0], plain.multipliers[0], rtol=1e-12, atol=1e-12)
