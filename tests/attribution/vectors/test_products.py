"""Products of matrices by vectors against numpy's in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.vectors import matrices
from dlgenome.attribution.vectors.matrices import RowProducts, in_panels, products_with
from dlgenome.attribution.vectors.products import Factor, multiply, multiply_all

with_vectors = pytest.mark.usefixtures("with_vectors")
both_ways = pytest.mark.parametrize("either_way", ["vectors", "neither"], indirect=True)
onto_or_not = pytest.mark.parametrize("onto", [False, True], ids=["put", "added"])
Floats = NDArray[np.float32]
Draw = Callable[..., Floats]
"""Numbers of a shape."""


@dataclass(frozen=True)
class Kind:
    """What is multiplied: float32 numbers, or whole ones of sixteen bits and their steps."""

    is_short: bool

    def values(self, values: Floats, steps: Floats, skipped: int) -> Begun:
        """Of places (places, channels), after some other numbers."""
        if self.is_short:
            return after(values.astype(np.int16), steps, skipped)
        return after(values * steps[:, None], steps[:0], skipped)

    def weights(self, weights: Floats, steps: Floats, skipped: int) -> Begun:
        """Of weights (channels, outputs)."""
        matrix = torch.from_numpy(weights if self.is_short else weights * steps).unsqueeze(0)
        if not self.is_short:
            return after(in_panels(matrix).numpy(), steps[:0], skipped)
        whole = matrix.to(torch.int32)
        pairs = whole[:, 0::2] & 0xFFFF | whole[:, 1::2] << 16
        return after(in_panels(pairs).numpy().view(np.int16), steps, skipped)


Begun = tuple[Any, int, Floats, int]
"""Numbers and where they begin, their steps and where these begin."""


def after(numbers: Any, steps: Floats, skipped: int) -> Begun:
    """What begins after so many others."""
    return np.pad(numbers.ravel(), (skipped, 0)), skipped, np.pad(steps, (skipped, 0)), skipped


def before_apart(begun: Begun, apart: int) -> tuple[Any, int, int, Floats, int]:
    """The same with how far apart places are."""
    numbers, first, steps, step = begun
    return numbers, first, apart, steps, step


NUMBERS, SHORTS = Kind(is_short=False), Kind(is_short=True)


@pytest.fixture(params=["numbers", "shorts"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind that the processor multiplies."""
    request.getfixturevalue({"numbers": "with_vectors", "shorts": "with_narrow_vectors"}[request.param])
    return {"numbers": NUMBERS, "shorts": SHORTS}[request.param]


@pytest.fixture
def whole() -> Draw:
    """Whole numbers whose products, and sums of a thousand, are exact in any order."""
    rng = np.random.default_rng(3)
    return lambda *shape: rng.integers(-30, 31, shape).astype(np.float32)


@pytest.fixture
def normal() -> Draw:
    """Normal numbers."""
    rng = np.random.default_rng(4)
    return lambda *shape: rng.normal(size=shape).astype(np.float32)


def shapes() -> Iterator[tuple[int, int, int]]:
    """Channels, outputs and places, with every number of panels and of vectors in the last."""
    for channels in range(1, 201):
        yield channels, 16 * (1 + 7 * channels % 20), 6 * (1 + channels % 4)


def wide(one: Floats, other: Floats) -> Any:
    """The product in float64."""
    return one.astype(float) @ other.astype(float)


@onto_or_not
def test_products_of_whole_numbers_are_exact(kind: Kind, onto: bool, whole: Draw) -> None:
    """Wherever values, weights, steps and sums begin; nothing else is written to."""
    for channels, outputs, places in shapes():
        channels += channels % 2 if kind.is_short else 0
        beside, skipped = 2 * (channels % 5), channels % 3
        values, weights = whole(places, channels + beside), whole(channels, outputs)
        steps, columns = np.exp2(whole(places) % 3), np.exp2(whole(outputs) % 3)
        before = whole(2 * skipped + places * outputs)
        sums = before.copy()
        multiply(
            *before_apart(kind.values(values, steps, skipped), channels + beside), places, channels,
            *kind.weights(weights, columns, skipped), outputs, sums, skipped, onto,
        )  # fmt: skip
        expected, middle = before.astype(float), slice(skipped, skipped + places * outputs)
        made = wide(values[:, :channels] * steps[:, None], weights * columns)
        expected[middle] = onto * expected[middle] + made.ravel()
        np.testing.assert_array_equal(sums, expected, err_msg=f"{channels, outputs, places}")


@pytest.mark.parametrize("places", [1, 5, 6, 7, 11])
def test_no_more_than_whole_groups_of_places_are_written(places: int, kind: Kind, whole: Draw) -> None:
    values, weights, sums = whole(18, 70), whole(70, 80), np.full((18, 80), np.nan, np.float32)
    written, ones = places + -places % 6, np.ones(80, np.float32)
    seen, used = kind.values(values, ones[:18], 0), kind.weights(weights, ones, 0)
    multiply(*before_apart(seen, 70), places, 70, *used, 80, sums.ravel(), 0, False)
    np.testing.assert_array_equal(sums[:places], wide(values, weights)[:places])
    assert np.isnan(sums[written:]).all()


@with_vectors
@onto_or_not
def test_some_of_several_products_are_made(onto: bool, whole: Draw) -> None:
    values, weights, before = whole(5, 8 * 70), whole(5, 40, 96), whole(5, 6 * 96 + 3)
    none = weights[0, 0, :0]
    panels = Factor(in_panels(torch.from_numpy(weights)).numpy().ravel(), none, none)
    sums, expected = before.copy(), before.astype(float)
    multiply_all(
        values.ravel(), 8 * 70, 6, 40, panels, 96, sums.ravel(), sums.shape[1], 1, 4, onto
    )  # fmt: skip
    for number in range(1, 4):
        made = wide(values[number, : 6 * 40].reshape(6, 40), weights[number])
        expected[number, :-3] = onto * expected[number, :-3] + made.ravel()
    np.testing.assert_array_equal(sums, expected)


def test_panels_follow_one_another() -> None:
    """Each is four vectors of outputs, or what is left of them."""
    weights = torch.arange(2 * 3 * 144.0).view(2, 3, 144)
    made = in_panels(weights)
    assert made.is_contiguous()
    for matrix, panels in zip(weights, made, strict=True):
        expected = [float(matrix[channel, output])
                    for outputs in (range(64), range(64, 128), range(128, 144))
                    for channel in range(3) for output in outputs]  # fmt: skip
        assert panels.tolist() == expected


@both_ways
@onto_or_not
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape", [(1, 6, 1, 16), (3, 18, 70, 48), (7, 204, 64, 64), (4, 36, 200, 320)], ids=str
)
def test_known_weights_are_multiplied(
    shape: tuple[int, int, int, int], threads: int, onto: bool, either_way: str, whole: Draw
) -> None:
    """With matrices that may be parts of larger ones, and more of them than there are weights."""
    matrices, places, channels, outputs = shape
    weights = torch.from_numpy(whole(matrices, channels, outputs))
    values = torch.from_numpy(whole(matrices + 1, places + 5, channels))[:, 3 : 3 + places]
    made = torch.from_numpy(whole(matrices + 2, places, outputs))
    before, count = made.double(), torch.get_num_threads()
    torch.set_num_threads(threads)
    products_with(weights)(values, made, onto=onto)
    torch.set_num_threads(count)
    expected = before.clone()
    expected[:matrices] = onto * before[:matrices] + values[:matrices].double() @ weights.double()
    assert torch.equal(made.double(), expected)


@both_ways
@pytest.mark.parametrize("channels", [64, 300, 512])
def test_both_ways_make_the_same_but_for_rounding(
    channels: int, either_way: str, normal: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def noted(*given: Any) -> None:
        calls.append(len(given))
        multiply_all(*given)

    monkeypatch.setattr(matrices, "multiply_all", noted)
    values, weights = torch.from_numpy(normal(3, 60, channels)), torch.from_numpy(normal(3, channels, 96))
    made = values.new_empty(3, 60, 96)
    products_with(weights)(values, made, onto=False)
    exact = values.double() @ weights.double()
    assert float((made - exact).norm() / exact.norm()) < 5e-7
    assert bool(calls) == (either_way == "vectors")


@with_vectors
@pytest.mark.parametrize("channels", [1, 64, 100, 300])
def test_a_row_gets_the_same_bits_wherever_it_stands(channels: int, normal: Draw) -> None:
    """In any place of six and in any batch, whatever stands beside it."""
    values, weights = torch.from_numpy(normal(2, 30, channels)), torch.from_numpy(normal(2, channels, 80))
    multiply_with = products_with(weights)

    def made_of(values: Tensor) -> Tensor:
        made = values.new_empty(2, values.shape[1], 80)
        multiply_with(values, made, onto=False)
        return made

    together, order = made_of(values), torch.randperm(30)
    assert torch.equal(made_of(values[:, order].contiguous()), together[:, order])
    for place in range(6):
        alone = torch.full((2, 6, channels), torch.nan)
        alone[:, place] = values[:, 17]
        made = made_of(alone)
        assert torch.equal(made[:, place], together[:, 17])
        assert made.isnan().all(dim=2).sum() == 2 * 5


@with_vectors
@pytest.mark.parametrize("channels", [300, 512])
def test_they_round_no_more_than_the_library(channels: int, normal: Draw) -> None:
    """Of 512 channels it rounds by 2.4e-7 of the whole, and they by 1.5e-7."""
    values, weights = torch.from_numpy(normal(1, 600, channels)), torch.from_numpy(normal(1, channels, 128))
    made, exact = values.new_empty(1, 600, 128), values.double() @ weights.double()
    products_with(weights)(values, made, onto=False)
    own, library = (float((one - exact).norm() / exact.norm()) for one in (made, values @ weights))
    assert own < 1.2 * library


@pytest.mark.parametrize(("channels", "outputs"), [(1, 16), (17, 1), (64, 50), (131, 208)])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_any_number_are_multiplied(
    channels: int, outputs: int, threads: int, kind: Kind, whole: Draw
) -> None:
    weights, count = torch.from_numpy(whole(channels, outputs)), torch.get_num_threads()
    products = RowProducts(weights, narrow=kind.is_short)
    torch.set_num_threads(threads)
    for n_rows in (1, 5, 6, 7, 12, 29):
        rows = torch.from_numpy(whole(n_rows, channels))
        exact = rows.double() @ weights.double()
        assert (products(rows) - exact).norm() <= 5e-4 * kind.is_short * exact.norm()
    torch.set_num_threads(count)


@pytest.mark.parametrize("channels", [33, 300])
def test_a_row_of_any_number_gets_the_same_bits(channels: int, kind: Kind, normal: Draw) -> None:
    rows, weights = torch.from_numpy(normal(29, channels)), torch.from_numpy(normal(channels, 50))
    products = RowProducts(weights, narrow=kind.is_short)
    together, exact = products(rows), rows.double() @ weights.double()
    assert torch.equal(torch.cat([products(row.unsqueeze(0)) for row in rows]), together)
    error = float((together - exact).norm() / exact.norm())
    assert 1e-5 < error < 3e-4 if kind.is_short else error < 3e-7
