"""Convolutions by products of tiles against the library's own in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlgenome.attribution.convolving import Geometry, _by_own_passes
from dlgenome.attribution.tiles.convolution import TiledConvolution, tiled
from dlgenome.attribution.tiles.kernels import ALL, ONE, TWO, n_made, no_pieces, take_apart, taps_seen

pytestmark = pytest.mark.usefixtures("with_tiles")
WORTH_IT = (64, 64, 3)
"""Outputs, inputs and width of a convolution that is faster so."""
FAR = (64, 700, 64, 3, 64, 64)
CASES: list[Any] = [
    *("odd", "one channel", "one place", "no bias", "dilated", "with a rest"),
    (32, 9, 32, 3, 12, 12),
    (33, 30, 64, 1),
    FAR,
    (64, 1100, 40, 3, 7, 2, {"rows": 2}),
    (48, 31, 50, 5, 2, 3),
    (31, 31, 5, 6, 9),
    (97, 29, 200, 8, 7),
    (250, 60, 300, 7, 3, {"rows": 2}),
    (512, 40, 33, 3, 256, 256, {"rows": 1}),
    (20, 61, 36, 3, {"rows": 37, "height": 2}),
]


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_it_is_the_convolution(case: Any) -> None:
    case.check_values(TiledConvolution, 2e-6)


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_it_is_added_to_what_is_there(case: Any) -> None:
    case.check_onto(TiledConvolution, 3e-6)


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_with_one_piece_values_and_weights_are_rounded_to_bfloat16(case: Any) -> None:
    value, (weight, bias) = case.value(), case.weights()
    convolve = case.made_by(partial(TiledConvolution, n_pieces=ONE), weight, bias)
    made = convolve(value)
    expected = case.expected(value.bfloat16().float(), weight.bfloat16().float(), bias)
    assert case.relative_error(made, expected) < 2e-6, "sums stay in float32"
    assert torch.equal(made, convolve(value.bfloat16().float()))
    case.check_onto(partial(TiledConvolution, n_pieces=ONE), 2e-2)


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_with_two_pieces_sixteen_digits_count(case: Any) -> None:
    some = partial(TiledConvolution, n_pieces=TWO)
    case.check_values(some, 1e-4)
    case.check_onto(some, 1e-4)
    case.check_order(some)


@pytest.mark.parametrize("case", [FAR], indirect=True, ids=str)
def test_each_piece_counts(case: Any) -> None:
    one, two, three = (case.rounding(partial(TiledConvolution, n_pieces=n))[0] for n in (ONE, TWO, ALL))
    assert 2**-10 < one < 2**-8
    assert 2**-19 < two < 2**-16
    assert three < 2**-22


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


def test_pieces_begin_with_a_line_of_the_cache() -> None:
    for count in (2, 30, 1000, 100_000):
        made = no_pieces(count)
        assert made.ctypes.data % 64 == 0
        assert made.size == count
        assert not made.any()


@pytest.mark.parametrize("case", [(64, 500, 64, 3, 8, 8), (512, 100, 64, 3, 1)], indirect=True, ids=str)
def test_it_rounds_about_as_the_library_does(case: Any) -> None:
    own, library = case.rounding(TiledConvolution)
    assert own < 2 * library


@pytest.mark.parametrize("case", [CASES[4], CASES[9], CASES[12], CASES[15]], indirect=True, ids=str)
def test_a_row_gets_the_same_bits_wherever_it_lies(case: Any, request: pytest.FixtureRequest) -> None:
    case.check_order(TiledConvolution)
    value, convolve = case.value(), case.made_by(TiledConvolution, *case.weights())
    together = convolve(value)
    request.getfixturevalue("one_thread")
    assert torch.equal(together, torch.cat([convolve(value[row : row + 1]) for row in range(len(value))]))


@pytest.mark.parametrize("case", [(*FAR, {"rows": 2})], indirect=True, ids=str)
def test_what_is_not_a_number_stays_where_it_is_seen(case: Any) -> None:
    value, (weight, bias) = case.value(), case.weights()
    value[0, 3, 0, 200] = torch.nan
    made = case.made_by(TiledConvolution, weight, bias)(value)
    assert torch.equal(made.isnan(), case.expected(value, weight, bias).isnan())


@pytest.mark.parametrize("case", [FAR], indirect=True, ids=str)
def test_zeros_make_zeros(case: Any) -> None:
    weight, _ = case.weights()
    assert not case.made_by(TiledConvolution, weight, None)(torch.zeros_like(case.value())).any()


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


def test_both_ways_of_a_convolution_take_it(runs_both_ways: Callable[..., list[bool]]) -> None:
    outputs, channels, width = WORTH_IT
    runs = runs_both_ways(TiledConvolution, torch.randn(outputs, channels, 1, width), 1e-4)
    assert runs == [False, False, True]


def test_it_is_taken_where_it_is_faster() -> None:
    """Than the library, and than convolutions with fewer products."""
    taken = [WORTH_IT, (512, 512, 3), (128, 128, 3), (128, 512, 1)]
    left = [(16, 16, 3), (512, 4, 21), (4, 512, 21), (480, 320, 8), (200, 300, 11)]
    for outputs, channels, width in [*taken, *left]:
        weight = torch.zeros(outputs, channels, 1, width)
        made = _by_own_passes(weight, None, Geometry((1, 1), (0, 0), (1, 1), 1), ALL)
        assert isinstance(made, TiledConvolution) == ((outputs, channels, width) in taken)
    weight = torch.zeros(64, 64, 1, 3)
    assert tiled(weight.double(), None, 0, 1, ALL, at_most=1e9) is None
    assert tiled(weight.view(64, 64, 3, 1), None, 0, 1, ALL, at_most=1e9) is None
    at_most = 0.4 * weight.numel() + 25 * 128
    assert [tiled(weight, None, 0, 1, n, at_most) is not None for n in (ONE, TWO, ALL)] == [True, True, False]


@pytest.mark.parametrize("case", [FAR], indirect=True, ids=str)
def test_a_bias_need_not_lie_in_one_piece(case: Any) -> None:
    value, (weight, _) = case.value(), case.weights()
    for bias in (torch.randn(1).expand(64), torch.randn(128)[::2]):
        made = case.made_by(TiledConvolution, weight, bias)(value)
        assert torch.equal(made, case.made_by(TiledConvolution, weight, bias.clone())(value))


def test_a_value_too_short_for_the_kernel_is_the_librarys() -> None:
    weight = torch.zeros(64, 64, 1, 3)
    convolve = TiledConvolution(weight, None, 0, 8)
    assert not convolve.suits(torch.zeros(1, 64, 1, 16))
    assert convolve.suits(torch.zeros(1, 64, 1, 17))
    assert not convolve.suits(torch.zeros(1, 64, 1, 17, dtype=torch.float64))
    assert not convolve.suits(torch.zeros(0, 64, 1, 17))
    assert n_made(17, convolve._shape) == 1


@pytest.mark.parametrize("case", [FAR], indirect=True, ids=str)
def test_values_need_not_be_channels_last(case: Any) -> None:
    value, (weight, bias) = case.value().contiguous(), case.weights()
    made = case.made_by(TiledConvolution, weight, bias)(value)
    assert case.relative_error(made, case.expected(value, weight, bias)) < 2e-6
    assert np.isfinite(made.numpy()).all()
