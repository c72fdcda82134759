"""Convolutions with fewer multiplications against the library's own in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution import convolving
from dlgenome.attribution.capture import capture
from dlgenome.attribution.convolving import Geometry, _by_own_passes
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.tiles.kernels import ONE
from dlgenome.attribution.winograd import Winograd, narrow_winograd, winograd

pytestmark = [
    pytest.mark.usefixtures("either_way"),
    pytest.mark.parametrize("either_way", ["vectors", "neither"], indirect=True),
]
narrow_ones = pytest.mark.usefixtures("with_narrow_vectors")
WORTH_IT = (512, 512, 3)
"""Outputs, inputs and width of a convolution that is faster so."""
CASES: list[Any] = [
    *("odd", "one channel", "one place", "no bias", "dilated", "with a rest"),
    (16, 9, 16, 3, 12, 12),
    (3, 30, 4, 3, 7, 2),
    (4, 31, 5, 4, 1),
    (4, 31, 5, 5, 2, 3),
    (4, 31, 5, 6, 9),
    (9, 60, 20, 7, 3),
    (9, 29, 20, 8, 7),
    (8, 25, 20, 11, 5, {"bias": False}),
    (8, 41, 3, 19, 9, 2),
    (4, 1700, 16, 3, 1, {"rows": 2}),
    (4, 1700, 5, 5, 2, {"rows": 2}),
    (4, 2114, 4, 3, 256, 256),
    (5, 61, 6, 4, 2, {"rows": 40}),
    (5, 61, 6, 3, {"rows": 37, "height": 2}),
    (4100, 9, 3, 3, 1, {"rows": 1}),
]


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_it_is_the_convolution(case: Any) -> None:
    case.check_values(Winograd, 1e-5)


@pytest.mark.parametrize("case", CASES, indirect=True, ids=str)
def test_it_is_added_to_what_is_there(case: Any) -> None:
    case.check_onto(Winograd, 1e-5)


@pytest.mark.parametrize(
    "case",
    [CASES[0], CASES[11], CASES[15], (9, 29, 20, 8, 7, {"rows": 50}), (200, 53, 300, 8, {"rows": 19})],
    indirect=True,
    ids=str,
)
def test_a_row_gets_the_same_bits_wherever_it_lies(case: Any) -> None:
    case.check_order(Winograd)


@pytest.mark.parametrize("case", [(5, 61, 6, 4, {"rows": 27})], indirect=True, ids=str)
def test_what_lies_in_the_room_that_a_last_lot_leaves_does_not_matter(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products are made of it, too, and none of them read."""
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *sizes: self.new_full(sizes, torch.nan))
    value, (weight, bias) = case.value(), case.weights()
    assert not case.made_by(Winograd, weight, bias)(value).isnan().any()


@pytest.mark.parametrize(
    ("case", "most"), [((300, 200, 200, 11, 5), 1.3e-6), ((512, 200, 64, 3, 1), 6e-7)], indirect=["case"]
)
def test_it_rounds_about_as_the_library_does(case: Any, most: float) -> None:
    """Its own error is 7e-7 for the wide kernel, and 5e-7 for the other."""
    own, _ = case.rounding(Winograd)
    assert own < most


NARROW: list[Any] = [
    *("one place", "no bias", "dilated", "with a rest"),
    (4, 31, 5, 3, 2, 3),
    (32, 29, 20, 3, 7),
    (64, 1700, 48, 3, 1, {"rows": 2}),
    (6, 61, 6, 3, 2, {"rows": 40}),
    (200, 120, 300, 3, 5, {"rows": 2}),
    (9, 60, 20, 7, 3),
    (9, 29, 20, 8, 7),
    (8, 41, 3, 19, 9, 2),
    (200, 53, 300, 11, {"rows": 19}),
]
narrow = partial(Winograd, narrow=True)


@narrow_ones
@pytest.mark.parametrize("case", NARROW, indirect=True, ids=str)
def test_narrow_ones_round_what_they_multiply_to_whole_numbers(case: Any) -> None:
    case.check_values(narrow, 2e-3)
    case.check_onto(narrow, 2e-3)
    own, _ = case.rounding(narrow)
    assert 2**-16 < own < 2**-11


@narrow_ones
@pytest.mark.parametrize("case", [NARROW[3], NARROW[5], NARROW[7], NARROW[12]], indirect=True, ids=str)
def test_a_row_gets_the_same_bits_wherever_it_lies_in_narrow_ones(case: Any) -> None:
    case.check_order(narrow)


@narrow_ones
def test_narrow_ones_are_taken_where_they_are_faster(either_way: str) -> None:
    taken = [WORTH_IT, (512, 511, 3), (200, 200, 7), (200, 300, 11), (480, 320, 8)]
    left = [(16, 16, 3), (512, 4, 21), (4, 512, 21), (512, 512, 1), (512, 512, 2)]
    for outputs, channels, width in [*taken, *left]:
        weight, value = torch.randn(outputs, channels, 1, width), torch.randn(1, channels, 1, 200)
        made = narrow_winograd(weight, None, 0, 1)
        is_taken = either_way == "vectors" and (outputs, channels, width) in taken
        assert (made is not None) == is_taken
        by_convolution = _by_own_passes(weight, None, Geometry((1, 1), (0, 0), (1, 1), 1), ONE)
        assert isinstance(by_convolution, Winograd) == is_taken
        if made is not None:
            expected = torch.nn.functional.conv2d(value.double(), weight.double())
            error = float((made(value).double() - expected).norm() / expected.norm())
            assert 2**-16 < error < 2**-11
    weight = torch.zeros(*WORTH_IT[:2], 1, WORTH_IT[2])
    assert narrow_winograd(weight.double(), None, 0, 1) is None
    assert narrow_winograd(weight.view(512, 512, 3, 1), None, 0, 1) is None


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
    stride: int, groups: int, height: int, runs_both_ways: Callable[..., list[bool]]
) -> None:
    outputs, channels, width = WORTH_IT
    weight = torch.randn(outputs, channels // groups, height, width)
    runs = runs_both_ways(Winograd, weight, 1e-3, stride, groups)
    assert runs == ([False, False, True] if stride == groups == height == 1 else [])


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
