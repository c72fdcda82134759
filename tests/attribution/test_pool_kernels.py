"""Maxima over windows by the kernels against the plain path, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution import kernels, pool_kernels
from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.pool_kernels import pool_multiplier, pooled
from dlgenome.attribution.vectors.pools import Windows
from dlgenome.attribution.vectors.processor import has_vectors

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


@pytest.mark.parametrize("by_vectors", [True, False], ids=["vectors", "loops"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_maxima_are_those_of_torch(
    windows: Windows, dtype: torch.dtype, by_vectors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_kernels, "has_vectors", lambda: by_vectors and has_vectors())
    value = values(8, 40, 150, dtype=dtype)
    value[3, 5, 77] = torch.nan
    value[4, :, :40] = -torch.inf
    expected = F.max_pool1d(value, *numbers(windows))
    found = pooled(value, windows, expected.shape[2])
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_what_the_kernels_do_not_know_is_left_alone() -> None:
    value = values(8, 40, 150)
    for other in (value.contiguous(), value.half(), value[:, :4, :100], value.unsqueeze(2)):
        assert pooled(other, Windows(4, 4, 0, 1), 37) is None


@pytest.mark.usefixtures("with_vectors")
@pytest.mark.parametrize("channels", [16, 40, 47])
@pytest.mark.parametrize("after_relu", [False, True], ids=["", "after a ReLU"])
@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_vectors_make_the_bits_that_loops_make(
    windows: Windows, after_relu: bool, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties, what is no number and what is infinite included; in the memory of the references, too."""
    monkeypatch.setattr(kernels, "MIN_ELEMENTS", 1)
    windows = windows._replace(after_relu=after_relu)
    found = {}
    for by_vectors in (True, False):
        monkeypatch.setattr(pool_kernels, "has_vectors", lambda chosen=by_vectors: chosen)
        sequences, references = values(2, channels, 300), values(6, channels, 300).flip(2)
        references[3, 5, 77], references[4, :, :40], sequences[0, 3, 9] = torch.nan, -torch.inf, torch.nan
        references[5, :, :90] = sequences[1, :, :90]
        tops = pooled(references, windows, F.max_pool1d(references, *numbers(windows)).shape[2])
        assert tops is not None
        multiplier = torch.randn(tops.shape, generator=torch.Generator().manual_seed(3))
        step = (sequences, references, multiplier, STEP, windows)
        alone = pool_multiplier(*step)
        over = pool_multiplier(*step, spare=True)
        assert alone is not None
        assert over is not None
        found[by_vectors] = tops, alone, over
    for one, other in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    assert 0 < found[True][1].isnan().float().mean() < 0.1


def numbers(windows: Windows) -> tuple[int, int, int, int]:
    return windows.width, windows.stride, windows.padding, windows.dilation


class Pool(nn.Module):
    """A convolution and a pool whose maxima are often tied; then another, and a dense layer."""

    def __init__(self, windows: Windows, ceil: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 40, 3)
        self.first.weight.data = (self.first.weight.data * 4).round()
        self.first.bias.data.zero_()  # type: ignore[union-attr]
        self.pool = nn.MaxPool1d(*numbers(windows), ceil_mode=ceil)
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
