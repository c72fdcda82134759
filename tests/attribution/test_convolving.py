"""Every way to compute a convolution against the library's own, and its adjoint against its definition."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from dlgenome.attribution import convolving
from dlgenome.attribution.convolving import Geometry, adjoint, convolution


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


@pytest.mark.parametrize("case", [*FEW_OUTPUTS, *FAR_OFFSETS], ids=str)
def test_a_convolution_equals_that_of_the_library(case: Case) -> None:
    value = torch.randn(3, *case.value, dtype=torch.float64)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width, dtype=torch.float64)
    bias = torch.randn(case.outputs, dtype=torch.float64) if case.bias else None
    geometry = Geometry((1, 1), (0, case.padding), (1, case.dilation), 1)
    expected = F.conv2d(value, weight, bias, 1, geometry.padding, geometry.dilation)
    torch.testing.assert_close(convolution(weight, bias, geometry)(value), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [*FEW_OUTPUTS, *FAR_OFFSETS], ids=str)
def test_the_adjoint_gives_the_same_product_from_the_other_side(case: Case) -> None:
    """<A x, y> = <x, A* y> for every x and y."""
    value = torch.randn(3, *case.value, dtype=torch.float64)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width, dtype=torch.float64)
    geometry = Geometry((1, 1), (0, case.padding), (1, case.dilation), 1)
    made = convolution(weight, None, geometry)(value)
    other = torch.randn_like(made)
    back = adjoint(weight, geometry, case.value[1:])(other)
    torch.testing.assert_close((made * other).sum(), (value * back).sum(), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("case", [FEW_OUTPUTS[0], FEW_OUTPUTS[13], FAR_OFFSETS[0], FAR_OFFSETS[4]], ids=str)
def test_equal_rows_get_equal_bits(case: Case) -> None:
    value = torch.randn(1, *case.value).repeat(7, 1, 1, 1)
    weight = torch.randn(case.outputs, case.value[0], 1, case.width)
    made = convolution(weight, None, Geometry((1, 1), (0, case.padding), (1, case.dilation), 1))(value)
    assert all(torch.equal(row, made[0]) for row in made)


def test_the_library_computes_what_is_neither_few_nor_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would say nothing of the ways that they are meant for."""
    asked: list[str] = []
    for name in ("_several_places_at_once", "_offset_by_offset"):
        monkeypatch.setattr(convolving, name, lambda *_, name=name: asked.append(name))
    for outputs, width, dilation in ((4, 21, 1), (9, 21, 1), (4, 7, 1), (4, 7, 4), (9, 3, 3)):
        weight = torch.randn(outputs, 6, 1, width)
        convolution(weight, None, Geometry((1, 1), (0, 0), (1, dilation), 1))
    assert asked == ["_several_places_at_once", "_offset_by_offset"]
