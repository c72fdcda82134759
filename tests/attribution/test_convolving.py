"""Every way to compute a convolution against the library's own, and its adjoint against its definition."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from dlgenome.attribution import convolving
from dlgenome.attribution.convolving import Geometry, adjoint, convolution
from dlgenome.attribution.tiles.kernels import ONE


@dataclass(frozen=True)
class Case:
    """Sizes of a value (channels, height, width) and of a kernel, and how it moves along the width."""

    value: tuple[int, int, int]
    outputs: int
    width: int
    padding: int
    dilation: int = 1
    bias: bool = True


FEW_OUTPUTS = [
    Case((4, 1, 33), outputs, width, padding)
    for outputs in (1, 2, 3, 4, 8)
    for width, padding in ((8, 0), (21, 10), (21, 20), (9, 11))
]
FEW_OUTPUTS += [Case((3, 4, 40), 1, 17, 3, bias=False), Case((5, 2, 75), 1, 75, 0)]
FEW_INPUTS = [
    Case((channels, 1, length), 9, width, padding, bias=channels == 2)
    for channels in (1, 2)
    for width, padding, length in ((16, 0, 16), (16, 8, 33), (75, 37, 80), (21, 30, 21))
]
FEW_INPUTS += [Case((2, 3, 40), 11, 17, 3)]
FAR_OFFSETS = [
    Case((6, 1, 50), 5, 3, 16, 16),
    Case((6, 1, 50), 5, 3, 0, 20),
    Case((6, 1, 20), 5, 3, 16, 16),
    Case((6, 1, 20), 5, 2, 30, 25),
    Case((6, 3, 30), 9, 5, 7, 4, bias=False),
    Case((6, 1, 12), 9, 3, 22, 11),
]


@pytest.fixture(autouse=True)
def _near_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small dilations are computed as large ones of many channels are."""
    monkeypatch.setattr(convolving, "_FAR", 24)


@pytest.mark.parametrize("case", [*FEW_OUTPUTS, *FEW_INPUTS, *FAR_OFFSETS], ids=str)
def test_a_convolution_equals_that_of_the_library(case: Case) -> None:
    value = torch.randn(3, *case.value, dtype=torch.float64)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width, dtype=torch.float64)
    bias = torch.randn(case.outputs, dtype=torch.float64) if case.bias else None
    geometry = Geometry((1, 1), (0, case.padding), (1, case.dilation), 1)
    expected = F.conv2d(value, weight, bias, 1, geometry.padding, geometry.dilation)
    torch.testing.assert_close(convolution(weight, bias, geometry)(value), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [*FEW_OUTPUTS, *FEW_INPUTS, *FAR_OFFSETS], ids=str)
def test_the_adjoint_gives_the_same_product_from_the_other_side(case: Case) -> None:
    """<A x, y> = <x, A* y> for every x and y."""
    value = torch.randn(3, *case.value, dtype=torch.float64)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width, dtype=torch.float64)
    geometry = Geometry((1, 1), (0, case.padding), (1, case.dilation), 1)
    made = convolution(weight, None, geometry)(value)
    other = torch.randn_like(made)
    back = adjoint(weight, geometry, case.value[1:])(other)
    torch.testing.assert_close((made * other).sum(), (value * back).sum(), rtol=1e-12, atol=1e-10)


def test_a_far_convolution_to_one_place_leaves_its_bias_alone() -> None:
    value = torch.randn(1, 6, 1, 33, dtype=torch.float64)
    weight, bias = torch.randn(5, 6, 1, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    geometry = Geometry((1, 1), (0, 0), (1, 16), 1)
    run, before = convolution(weight, bias, geometry), bias.clone()
    assert torch.equal(run(value), run(value))
    assert torch.equal(bias, before)


def test_with_one_piece_the_library_rounds_all_but_the_bias() -> None:
    value, weight, bias = torch.randn(2, 6, 1, 50), torch.randn(9, 6, 1, 3), torch.randn(9) * 1e4
    geometry = Geometry((1, 1), (0, 1), (1, 1), 1)
    made = convolution(weight, bias, geometry, n_pieces=ONE)(value)
    rounded = F.conv2d(value.bfloat16().double(), weight.bfloat16().double(), None, 1, (0, 1))
    without = made.double() - bias.double().view(-1, 1, 1)
    assert 1e-4 < (without - rounded).abs().max() / rounded.abs().max() < 2**-7


@pytest.mark.parametrize(
    "case", [FEW_OUTPUTS[0], FEW_OUTPUTS[13], FEW_INPUTS[0], FAR_OFFSETS[0], FAR_OFFSETS[4]], ids=str
)
def test_equal_rows_get_equal_bits(case: Case) -> None:
    value = torch.randn(1, *case.value).repeat(7, 1, 1, 1)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width)
    made = convolution(weight, None, Geometry((1, 1), (0, case.padding), (1, case.dilation), 1))(value)
    assert all(torch.equal(row, made[0]) for row in made)


def test_the_library_computes_what_is_neither_few_nor_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would say nothing of the ways that they are meant for."""
    asked: list[str] = []
    for name in ("_several_places_at_once", "_inputs_of_several_places", "_offset_by_offset"):
        monkeypatch.setattr(convolving, name, lambda *_, name=name: asked.append(name))
    for outputs, width, dilation in ((4, 21, 1), (9, 21, 1), (4, 7, 1), (4, 7, 4), (9, 3, 3)):
        weight = torch.randn(outputs, 6, 1, width)
        convolution(weight, None, Geometry((1, 1), (0, 0), (1, dilation), 1))
    for inputs, width, dilation in ((2, 16, 1), (3, 16, 1), (2, 15, 1), (1, 16, 2)):
        weight = torch.randn(9, inputs, 1, width)
        convolution(weight, None, Geometry((1, 1), (0, 0), (1, dilation), 1))
    assert asked == ["_several_places_at_once", "_offset_by_offset", "_inputs_of_several_places"]


ONTO = [
    Case((64, 1, 40), 64, 3, 2, 2, bias=False),
    Case((16, 1, 40), 32, 5, 0, bias=False),
    Case((20, 3, 30), 17, 3, 1, bias=False),
]


@pytest.mark.parametrize("case", ONTO, ids=str)
def test_the_adjoint_is_added_to_what_is_there(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolving, "_FAR", 2**16)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width)
    geometry = Geometry((1, 1), (0, case.padding), (1, case.dilation), 1)
    value = torch.randn(3, *case.value).contiguous(memory_format=torch.channels_last)
    multiplier = torch.randn_like(convolution(weight, None, geometry)(value))
    onto = convolving.adjoint_onto(weight, geometry, case.value[1:])
    assert onto is not None
    expected = value + adjoint(weight, geometry, case.value[1:])(multiplier)
    place = value.data_ptr()
    if not onto(multiplier, value):
        pytest.skip("this torch has no convolution that adds to what is there")
    assert value.data_ptr() == place
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-5)
    for other in (value[:, :, :, 1:], value.contiguous(), value.double()):
        before = other.clone()
        assert not onto(multiplier, other)
        assert torch.equal(other, before)


def test_what_is_not_computed_by_the_library_is_not_added_on_the_way() -> None:
    for outputs, inputs, stride, groups in ((4, 16, 1, 1), (16, 4, 1, 1), (32, 32, 2, 1), (32, 16, 1, 2)):
        geometry = Geometry((1, stride), (0, 1), (1, 1), groups)
        assert convolving.adjoint_onto(torch.randn(outputs, inputs, 1, 3), geometry, (1, 40)) is None
