"""Convolutions by products of tiles against the library's own in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.convolving import Geometry, _by_own_passes, adjoint, adjoint_onto, convolution
from dlgenome.attribution.tiles.convolution import TiledConvolution, tiled
from dlgenome.attribution.tiles.kernels import n_made, no_pieces, take_apart, taps_seen

WORTH_IT = (64, 64, 3)
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
    Case(32, 9, 32, 3, 12, 12),
    Case(33, 30, 64, 1),
    Case(64, 700, 64, 3, 64, 64),
    Case(64, 1100, 40, 3, 7, 2, rows=2),
    Case(48, 31, 50, 5, 2, 3),
    Case(31, 31, 5, 6, 9),
    Case(97, 29, 200, 8, 7),
    Case(250, 60, 300, 7, 3, rows=2),
    Case(512, 40, 33, 3, 256, 256, rows=1),
    Case(20, 61, 36, 3, rows=37, height=2),
]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_convolution(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    made = TiledConvolution(weight, bias, case.padding, case.dilation)(value)
    expected = case.expected(value, weight, bias)
    assert made.shape == expected.shape
    assert made.dtype is torch.float32
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(made, expected) < 2e-6


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_added_to_what_is_there(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    expected = case.expected(value, weight, bias)
    rows = torch.randn(len(expected), expected.shape[2], expected.shape[3] + 5, expected.shape[1])
    wide, total = rows.clone(), rows[:, :, 2:-3].permute(0, 3, 1, 2)  # rows that lie apart in memory
    if case.height > 1:
        wide, total = rows[:, :, 2:-3].clone(), rows[:, :, 2:-3].clone().permute(0, 3, 1, 2)
        wide = F.pad(wide, (0, 0, 2, 3))
    TiledConvolution(weight, None, case.padding, case.dilation).onto(value, total)
    added = total.double() - wide[:, :, 2:-3].permute(0, 3, 1, 2).double()
    if bias is not None:
        expected = expected - bias.double().view(1, -1, 1, 1)
    assert float((added - expected).abs().max()) < 3e-6 * float(expected.abs().max() + 5)
    if case.height == 1:
        assert torch.equal(rows[:, :, :2], wide[:, :, :2])
        assert torch.equal(rows[:, :, -3:], wide[:, :, -3:])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_bfloat16_it_rounds_what_goes_in_and_what_comes_out(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    narrow = None if bias is None else bias.bfloat16()
    convolve = TiledConvolution(weight.bfloat16(), narrow, case.padding, case.dilation)
    made = convolve(value)
    expected = case.expected(value.bfloat16(), weight.bfloat16(), narrow)
    assert made.dtype is torch.bfloat16
    assert relative_error(made, expected) < 2**-8
    assert torch.equal(made, convolve(value.bfloat16()))
    total = torch.zeros_like(expected, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    TiledConvolution(weight.bfloat16(), None, case.padding, case.dilation).onto(value, total)
    plain = expected if narrow is None else expected - narrow.double().view(1, -1, 1, 1)
    assert relative_error(total, plain) < 2e-6, "sums stay in float32"


def test_whole_numbers_are_exact() -> None:
    """Products and sums of whole numbers below 2^24 are, in any order: nothing of a number is left out."""
    value = torch.randint(-2000, 2001, (2, 32, 1, 80)).float().contiguous(memory_format=torch.channels_last)
    weight = torch.randint(-2, 3, (32, 32, 1, 3)).float()
    made = TiledConvolution(weight, None, 2, 2)(value)
    assert torch.equal(made.double(), F.conv2d(value.double(), weight.double(), None, 1, (0, 2), (1, 2)))


def test_pieces_add_up_to_the_number_without_an_error() -> None:
    row = (torch.randn(50 * 20) * 10.0 ** torch.randint(-20, 20, (1000,))).numpy()
    room = 50 + 96
    pieces = no_pieces(3 * room * 32)
    take_apart(row, 0, 50, 20, 3, pieces, room)
    apart = torch.from_numpy(pieces).view(torch.bfloat16).double().view(3, room, 32)
    assert torch.equal(apart[:, 32:82, :20].sum(0), torch.from_numpy(row).double().view(50, 20))
    assert not apart[:, :32].any()
    assert not apart[:, 82:].any()
    assert not apart[:, :, 20:].any()


@pytest.mark.parametrize("case", [Case(64, 500, 64, 3, 8, 8), Case(512, 100, 64, 3, 1)], ids=str)
def test_it_rounds_about_as_the_library_does(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    expected = case.expected(value, weight, bias)
    own = TiledConvolution(weight, bias, case.padding, case.dilation)(value)
    library = F.conv2d(value, weight, bias, 1, (0, case.padding), (1, case.dilation))
    error, usual = ((made - expected).square().mean().sqrt() for made in (own, library))
    assert error < 2 * usual


@pytest.mark.parametrize("case", [CASES[4], CASES[9], CASES[12], CASES[15]], ids=str)
def test_a_row_gets_the_same_bits_wherever_it_lies(case: Case) -> None:
    value, (weight, bias) = case.value(), case.weights()
    convolve = TiledConvolution(weight, bias, case.padding, case.dilation)
    order = torch.randperm(len(value))
    assert torch.equal(convolve(value[order]), convolve(value)[order])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = torch.cat([convolve(value[row : row + 1]) for row in range(len(value))])
    torch.set_num_threads(threads)
    assert torch.equal(convolve(value), alone)


def test_what_is_not_a_number_stays_where_it_is_seen() -> None:
    case = replace(CASES[8], rows=2)
    value, (weight, bias) = case.value(), case.weights()
    value[0, 3, 0, 200] = torch.nan
    made = TiledConvolution(weight, bias, case.padding, case.dilation)(value)
    assert torch.equal(made.isnan(), case.expected(value, weight, bias).isnan())


def test_zeros_make_zeros() -> None:
    case = CASES[8]
    weight, _ = case.weights()
    made = TiledConvolution(weight, None, case.padding, case.dilation)(torch.zeros_like(case.value()))
    assert not made.any()


@pytest.mark.parametrize(
    ("start", "dilation", "width", "length", "seen"),
    [
        (0, 1, 3, 100, (0, 3)),
        (-33, 1, 3, 100, (2, 3)),
        (-32, 32, 3, 100, (1, 3)),
        (-256, 256, 3, 200, (1, 2)),
        (-500, 1, 3, 100, (3, 3)),
        (90, 8, 3, 100, (0, 2)),
    ],
)
def test_taps_that_see_nothing_but_padding_are_left_out(
    start: int, dilation: int, width: int, length: int, seen: tuple[int, int]
) -> None:
    assert taps_seen(start, dilation, width, length) == seen


def test_both_ways_of_a_convolution_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    run = TiledConvolution._run

    def noted(self: TiledConvolution, value: Tensor, made: Tensor, *, onto: bool) -> None:
        calls.append(onto)
        run(self, value, made, onto=onto)

    monkeypatch.setattr(TiledConvolution, "_run", noted)
    outputs, channels, width = WORTH_IT
    weight, geometry = torch.randn(outputs, channels, 1, width), Geometry((1, 1), (0, 4), (1, 4), 1)
    value = torch.randn(2, channels, 2, 100).contiguous(memory_format=torch.channels_last)
    made = convolution(weight, None, geometry)(value)
    assert torch.allclose(made, F.conv2d(value, weight, None, *vars(geometry).values()), rtol=0, atol=1e-4)
    back = adjoint(weight, geometry, (2, 100))(made)
    onto = adjoint_onto(weight, geometry, (2, 100))
    assert onto is not None
    total = value.clone(memory_format=torch.preserve_format)
    assert onto(made, total)
    torch.testing.assert_close(total, value + back, rtol=0, atol=1e-3)
    assert calls == [False, False, True]


def test_it_is_taken_where_it_is_faster() -> None:
    """Than the library, and than convolutions with fewer products."""
    taken = [WORTH_IT, (512, 512, 3), (128, 128, 3), (128, 512, 1)]
    left = [(16, 16, 3), (512, 4, 21), (4, 512, 21), (480, 320, 8), (200, 300, 11)]
    for outputs, channels, width in [*taken, *left]:
        weight = torch.zeros(outputs, channels, 1, width)
        made = _by_own_passes(weight, None, Geometry((1, 1), (0, 0), (1, 1), 1))
        assert isinstance(made, TiledConvolution) == ((outputs, channels, width) in taken)
    weight = torch.zeros(64, 64, 1, 3)
    assert tiled(weight.double(), None, 0, 1, at_most=1e9) is None
    assert tiled(weight.view(64, 64, 3, 1), None, 0, 1, at_most=1e9) is None
    assert tiled(weight.bfloat16(), None, 0, 1, at_most=1e9) is not None


def test_a_bias_need_not_lie_in_one_piece() -> None:
    value, (weight, _) = CASES[8].value(), CASES[8].weights()
    for bias in (torch.randn(1).expand(64), torch.randn(128)[::2]):
        made = TiledConvolution(weight, bias, 64, 64)(value)
        assert torch.equal(made, TiledConvolution(weight, bias.clone(), 64, 64)(value))


def test_a_value_too_short_for_the_kernel_is_the_librarys() -> None:
    weight = torch.zeros(64, 64, 1, 3)
    convolve = TiledConvolution(weight, None, 0, 8)
    assert not convolve.suits(torch.zeros(1, 64, 1, 16))
    assert convolve.suits(torch.zeros(1, 64, 1, 17))
    assert not convolve.suits(torch.zeros(1, 64, 1, 17, dtype=torch.float64))
    assert not convolve.suits(torch.zeros(0, 64, 1, 17))
    assert n_made(17, convolve._shape) == 1


def test_values_need_not_be_channels_last() -> None:
    case = CASES[8]
    value, (weight, bias) = case.value().contiguous(), case.weights()
    made = TiledConvolution(weight, bias, case.padding, case.dilation)(value)
    assert relative_error(made, case.expected(value, weight, bias)) < 2e-6
    assert np.isfinite(made.numpy()).all()
