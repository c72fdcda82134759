"""Convolutions with fewer multiplications against the library's own in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution import convolving
from dlgenome.attribution.capture import capture
from dlgenome.attribution.convolving import Geometry, adjoint, adjoint_onto, convolution
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.winograd import Winograd, winograd

pytestmark = pytest.mark.usefixtures("without_tiles")
WORTH_IT = (512, 512, 3)
"""Outputs, inputs and width of a convolution that is faster so."""


@dataclass(frozen=True)
class Case:
    """Channels and places of a value, and a convolution of it."""

    channels: int
    length: int
    outputs: int
    width: int
    padding: int = 0
    dilation: int = 1
    bias: bool = True
    rows: int = 3
    height: int = 1

    def value(self) -> Tensor:
        """Random, channels-last in memory."""
        made = torch.randn(self.rows, self.channels, self.height, self.length)
        return made.contiguous(memory_format=torch.channels_last)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias."""
        weight = torch.randn(self.outputs, self.channels, 1, self.width)
        return weight, torch.randn(self.outputs) if self.bias else None

    def expected(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """By the library, in float64."""
        wide = None if bias is None else bias.double()
        return F.conv2d(value.double(), weight.double(), wide, 1, (0, self.padding), (1, self.dilation))


CASES = [
    Case(5, 40, 7, 3, 1),
    Case(1, 12, 1, 3),
    Case(6, 3, 5, 3, rows=1),
    Case(6, 4, 16, 3, 2, bias=False),
    Case(16, 50, 16, 3, 8, 8),
    Case(16, 67, 17, 3, 16, 16),
    Case(16, 9, 16, 3, 12, 12),
    Case(3, 30, 4, 3, 7, 2),
    Case(4, 31, 5, 4, 1),
    Case(4, 31, 5, 5, 2, 3),
    Case(4, 31, 5, 6, 9),
    Case(9, 60, 20, 7, 3),
    Case(9, 29, 20, 8, 7),
    Case(8, 25, 20, 11, 5, bias=False),
    Case(8, 41, 3, 19, 9, 2),
    Case(4, 1700, 16, 3, 1, rows=2),
    Case(4, 1700, 5, 5, 2, rows=2),
    Case(4, 2114, 4, 3, 256, 256),
    Case(5, 61, 6, 4, 2, rows=40),
    Case(5, 61, 6, 3, rows=37, height=2),
    Case(4100, 9, 3, 3, 1, rows=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_convolution(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    made = Winograd(weight, bias, case.padding, case.dilation)(value)
    expected = case.expected(value, weight, bias)
    assert made.shape == expected.shape
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_added_to_what_is_there(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    expected = case.expected(value, weight, bias)
    before = torch.randn(expected.shape).contiguous(memory_format=torch.channels_last)
    total = before.clone(memory_format=torch.preserve_format)
    Winograd(weight, bias, case.padding, case.dilation).onto(value, total)
    difference = total.double() - before
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "case",
    [CASES[0], CASES[11], CASES[15], replace(CASES[12], rows=50), Case(200, 53, 300, 8, rows=19)],
    ids=str,
)
def test_a_row_gets_the_same_bits_wherever_it_lies(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    convolve = Winograd(weight, bias, case.padding, case.dilation)
    order = torch.randperm(len(value))
    assert torch.equal(convolve(value[order]), convolve(value)[order])


def test_what_lies_in_the_room_that_a_last_lot_leaves_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products are made of it, too, and none of them read."""
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *sizes: self.new_full(sizes, torch.nan))
    case = Case(5, 61, 6, 4, rows=27)
    value, (weight, bias) = case.value(), case.weights()
    assert not Winograd(weight, bias, 0, 1)(value).isnan().any()


@pytest.mark.parametrize(
    ("case", "most"), [(Case(300, 200, 200, 11, 5), 1.3e-6), (Case(512, 200, 64, 3, 1), 6e-7)]
)
def test_it_rounds_about_as_the_library_does(case: Case, most: float) -> None:
    """Its own error is 7e-7 for the wide kernel, and 5e-7 for the other."""
    value, (weight, bias) = case.value(), case.weights()
    expected = case.expected(value, weight, bias)
    error = (Winograd(weight, bias, case.padding, 1)(value) - expected).square().mean().sqrt()
    assert error < most * expected.square().mean().sqrt()


def test_it_is_taken_where_it_is_faster() -> None:
    taken = [WORTH_IT, (200, 300, 11), (480, 320, 8), (960, 480, 8)]
    left = [
        (64, 64, 3),
        (128, 128, 3),
        (512, 4, 21),
        (4, 512, 21),
        (1, 512, 75),
        (512, 512, 1),
        (512, 512, 2),
    ]
    for outputs, channels, width in [*taken, *left]:
        made = winograd(torch.zeros(outputs, channels, 1, width), None, 0, 1)
        assert (made is not None) == ((outputs, channels, width) in taken)
    weight = torch.zeros(*WORTH_IT[:2], 1, WORTH_IT[2])
    assert winograd(weight.double(), None, 0, 1) is None
    assert winograd(weight.bfloat16(), None, 0, 1) is None
    assert winograd(weight.new_zeros(256, 256, 3, 3), None, 0, 1) is None


def test_it_is_not_taken_where_most_of_a_tile_is_outside() -> None:
    outputs, channels, width = WORTH_IT
    made = winograd(torch.zeros(outputs, channels, 1, width), None, 0, 64)
    assert made is not None
    assert made.suits(torch.zeros(1, channels, 1, 1000))
    assert not made.suits(torch.zeros(1, channels, 1, 128 + 90))
    assert not made.suits(torch.zeros(1, channels, 1, 100))
    assert not made.suits(torch.zeros(1, channels, 1, 1000, dtype=torch.float64))


@pytest.mark.parametrize(("stride", "groups", "height"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_both_ways_of_a_convolution_take_it(
    stride: int, groups: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    run = Winograd._run

    def noted(self: Winograd, value: Tensor, made: Tensor, *, onto: bool) -> None:
        calls.append(onto)
        run(self, value, made, onto=onto)

    monkeypatch.setattr(Winograd, "_run", noted)
    outputs, channels, width = WORTH_IT
    weight = torch.randn(outputs, channels // groups, height, width)
    geometry = Geometry((1, stride), (0, 4), (1, 4), groups)
    value = torch.randn(2, channels, 2, 100).contiguous(memory_format=torch.channels_last)
    made = convolution(weight, None, geometry)(value)
    assert torch.allclose(made, F.conv2d(value, weight, None, *vars(geometry).values()), rtol=0, atol=1e-3)
    multiplier = torch.randn_like(made).contiguous(memory_format=torch.channels_last)
    back = adjoint(weight, geometry, (2, 100))(multiplier)
    onto = adjoint_onto(weight, geometry, (2, 100))
    total = value.clone(memory_format=torch.preserve_format)
    if onto is not None and onto(multiplier, total):
        torch.testing.assert_close(total, value + back, rtol=0, atol=1e-4)
    assert calls == ([False, False, True] if stride == groups == height == 1 else [])


def test_scores_are_as_near_to_float64_as_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(4, 192, 9, padding=4), nn.ReLU(), nn.Conv1d(192, 192, 7, padding=3), nn.GELU(),
        nn.Conv1d(192, 192, 3, padding=8, dilation=8), nn.ReLU(), nn.Flatten(), nn.Linear(192 * 120, 1),
    )  # fmt: skip
    exact = _scores(network.double(), torch.float64)
    faster = _scores(network.float(), torch.float32)
    monkeypatch.setattr(convolving, "_by_own_passes", lambda *arguments: None)
    plain = _scores(network.float(), torch.float32)
    assert not np.array_equal(faster, plain)
    error, error_of_library = (
        np.abs(scores - exact).max() / np.abs(exact).max() for scores in (faster, plain)
    )
    assert error < max(2 * error_of_library, 3e-6)


def _scores(network: nn.Module, dtype: torch.dtype) -> np.ndarray:
    numbers = np.random.default_rng(0)
    sequences, references = numbers.integers(0, 4, (2, 120)), numbers.integers(0, 4, (2, 3, 120))
    program = lower(capture(network, (4, 120), dtype=dtype))
    explain = DeepLift(program, targets=1, n_references=3, batch_size=6, dtype=dtype)
    (found,) = explain.explain(sequences.astype(np.uint8), references.astype(np.uint8))
    return found.hypothetical
