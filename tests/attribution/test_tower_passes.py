"""Towers of made-up layers, there and back, against the same by torch in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape, ValueInfo
from dlgenome.attribution.rules import tower as towers
from dlgenome.attribution.rules.base import Backward, Call, Ref, Rule, Source
from dlgenome.attribution.rules.tower import Tower
from dlgenome.attribution.vectors.layers import Layer

pytestmark = pytest.mark.usefixtures("registers")
narrow_or_not = pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
STEP = StepShape(2, 3)


def padded(length: int, *dilations: int) -> tuple[Layer, ...]:
    """Layers that make as many positions as they see."""
    return tuple(Layer(length, 0, dilation, dilation, 3) for dilation in dilations)


def cut(length: int, *moves: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Layers that make fewer, of padding, dilation and the first position that they keep of what they see."""
    layers = []
    for padding, dilation, start in moves:
        length += 2 * (padding - dilation)
        layers.append(Layer(length, start, padding, dilation, 3))
    return tuple(layers)


@dataclass(frozen=True)
class Case:
    """Layers on so many positions."""

    length: int
    layers: tuple[Layer, ...]
    channels: int = 32
    of_relu: bool = True
    all_positions: bool = False
    """Whether the multiplier has all positions of the first value."""
    narrow: bool = False


CASES = {
    "one position": Case(1, padded(1, 1, 4)),
    "two positions": Case(2, padded(2, 1, 1, 2)),
    "three positions": Case(3, padded(3, 2, 1)),
    "shorter than a tile": Case(13, padded(13, 4, 8, 16)),
    "wider than the row": Case(20, padded(20, 19, 20, 50), of_relu=False),
    "some tiles": Case(97, padded(97, 1, 2, 3), channels=64),
    "many tiles": Case(391, padded(391, 1, 64, 5)),
    "96 channels": Case(120, padded(120, 16, 7), channels=96, of_relu=False),
    "128 channels": Case(70, padded(70, 1, 8), channels=128),
    "none at the ends": Case(90, cut(90, (0, 1, 1), (0, 4, 4), (0, 32, 32)), channels=64),
    "down to one": Case(19, cut(19, (0, 1, 1), (0, 8, 8)), all_positions=True),
    "on one side": Case(60, cut(60, (2, 4, 0), (1, 5, 8), (3, 3, 0)), of_relu=False),
    "all positions": Case(200, cut(200, (8, 16, 8), (0, 2, 3)), channels=64, all_positions=True),
    "last as first": Case(50, padded(50, 2, 2), all_positions=True),
}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Made:
    """What a tower makes."""

    last: Tensor
    records: list[Tensor]
    """What every convolution makes."""
    back: Tensor
    """Multipliers of the first value."""


class Example:
    """Numbers for the layers of a case: values (rows, channels, positions) and multipliers of the last."""

    def __init__(self, case: Case) -> None:
        self.case, shape = case, (case.channels, case.channels, 3)
        self.values = torch.randn(STEP.rows, case.channels, case.length)
        same = slice(case.length // 2)
        self.values[STEP.sequences + 1, :, same] = self.values[0, :, same]
        self.multiplier = torch.randn(STEP.pairs, case.channels, case.layers[-1].width)
        self.weights = [torch.randn(shape) / case.channels**0.5 for _ in case.layers]
        biases = [torch.randn(case.channels) for _ in case.layers]
        self.biases: list[Tensor | None] = [biases[0], None, *biases[2:]]

    def made(self, values: Tensor | None = None, step: StepShape = STEP) -> Made:
        """By the registers that the processor has."""
        values, case = self.values if values is None else values, self.case
        weights = [part for both in zip(self.weights, self.biases, strict=True) for part in both]
        info = ValueInfo((1, case.channels, case.length), BatchAxis())
        call = Call("made", "tower", (), {}, (Ref("x"),), (info,), info, Source("", ""))
        rule: Rule = Tower(case.layers, narrow=case.narrow, of_relu=case.of_relu)
        rule = rule.bound(call, (Ref("x"), *weights))
        last, record = rule.forward(call, (values, *weights), {})
        parts = slice(None, step.sequences), slice(step.sequences, None)
        kept: list[Any] = [((last[part], record[part]), values[part]) for part in parts]
        multiplier, side = self.multiplier[: step.pairs], sum(layer.start for layer in case.layers)
        if case.all_positions:
            multiplier = F.pad(multiplier, (side, case.length - side - multiplier.shape[2]))
        (back,) = rule.backward(call, (multiplier, None), Backward(step, kept[0], kept[1], (), {}))
        assert back is not None
        sizes = [layer.width * case.channels for layer in case.layers]
        records = [part.unflatten(1, (-1, case.channels)).transpose(1, 2) for part in record.split(sizes, 1)]
        return Made(last, records, back)

    def expected(self) -> tuple[Tensor, list[Tensor]]:
        """The last value and the records in float64."""
        h, records = self.values.double(), []
        h = h.relu() if self.case.of_relu else h
        for layer, weight, bias in zip(self.case.layers, self.weights, self.biases, strict=True):
            wide = None if bias is None else bias.double()
            c = F.conv1d(h, weight.double(), wide, 1, layer.padding, layer.dilation)
            records.append(c)
            h = h[:, :, layer.start : layer.start + layer.width] + c.relu()
        return h, records

    def expected_back(self, records: Sequence[Tensor]) -> Tensor:
        """Multipliers of the first value in float64: every ReLU is a line through what it made of a pair."""
        first = self.values[STEP.sequences :].double().requires_grad_()
        h = first * slopes(self.values) if self.case.of_relu else first
        for layer, weight, record in zip(self.case.layers, self.weights, records, strict=True):
            c = F.conv1d(h, weight.double(), None, 1, layer.padding, layer.dilation)
            h = h[:, :, layer.start : layer.start + layer.width] + slopes(record) * c
        (back,) = torch.autograd.grad(h, first, self.multiplier.double())
        return back


def slopes(values: Tensor) -> Tensor:
    """Secants of ReLU for every pair; of what is equal those on its right."""
    own = values[: STEP.sequences].double().repeat_interleave(STEP.references, 0)
    others = values[STEP.sequences :].double()
    line = (own.relu() - others.relu()) / torch.where(own == others, 1, own - others)
    return torch.where(own == others, (own > 0).double(), line)


def error(found: Tensor, exact: Tensor) -> float:
    """The largest, as a share of the largest number."""
    assert found.shape == exact.shape
    return float((found - exact).abs().max() / exact.abs().max())


@narrow_or_not
@by_case
def test_values_are_those_of_the_layers(case: Case, narrow: bool) -> None:
    example = Example(replace(case, narrow=narrow))
    made, (last, records) = example.made(), example.expected()
    for own, exact in zip([made.last, *made.records], [last, *records], strict=True):
        assert error(own, exact) < (1e-3 if narrow else 2e-6)


@narrow_or_not
@by_case
def test_multipliers_are_those_of_the_layers(case: Case, narrow: bool) -> None:
    example = Example(replace(case, narrow=narrow))
    made = example.made()
    assert error(made.back, example.expected_back(made.records)) < (1e-2 if narrow else 2e-6)


@pytest.mark.usefixtures("with_narrow_vectors")
@by_case
def test_narrow_ones_round_multipliers(case: Case) -> None:
    example = Example(replace(case, narrow=True))
    made = example.made()
    assert error(made.back, example.expected_back(made.records)) > 1e-5


def test_without_vectors_of_whole_numbers_narrow_ones_round_no_more_than_others(
    registers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if registers == "tiles":
        pytest.skip("tiles are of bfloat16 numbers")
    monkeypatch.setattr(towers, "has_narrow_vectors", lambda: False)
    example = Example(replace(CASES["some tiles"], narrow=True))
    made = example.made()
    assert error(made.back, example.expected_back(made.records)) < 2e-6


@narrow_or_not
@pytest.mark.parametrize("name", ["many tiles", "none at the ends", "128 channels"])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_row_gets_the_same_bits_wherever_it_stands(name: str, narrow: bool, threads: int) -> None:
    """Beside others, whatever these are, and alone."""
    example, count = Example(replace(CASES[name], narrow=narrow)), torch.get_num_threads()
    alone = [
        example.made(torch.stack([example.values[0], reference]), StepShape(1, 1))
        for reference in example.values[STEP.sequences : STEP.sequences + 3]
    ]
    example.values[1] = torch.nan
    example.multiplier[:3] = example.multiplier[0]
    torch.set_num_threads(threads)
    made = example.made()
    torch.set_num_threads(count)
    assert made.last[1].isnan().all()
    for pair, one in enumerate(alone):
        rows = [0, STEP.sequences + pair]
        assert torch.equal(made.last[rows], one.last)
        assert torch.equal(made.back[pair : pair + 1], one.back)
        for together, own in zip(made.records, one.records, strict=True):
            assert torch.equal(together[rows], own)


@by_case
def test_only_what_is_asked_for_is_written_and_all_of_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not cleared, with some before and after that must stay as it is."""
    rooms: list[tuple[Tensor, int]] = []

    def guarded(self: Tensor, *sizes: Any) -> Tensor:
        size = torch.Size(sizes)
        room = self.new_full((size.numel() + 64,), torch.nan)
        rooms.append((room, size.numel()))
        return room[32 : 32 + size.numel()].view(size)

    example = Example(case)
    monkeypatch.setattr(Tensor, "new_empty", guarded)
    example.made()
    assert len(rooms) == 3
    for room, size in rooms:
        assert room.isnan().nonzero().flatten().tolist() == [*range(32), *range(32 + size, 64 + size)]


@pytest.mark.parametrize("place", [0, 21, 44, 89])
@pytest.mark.parametrize("name", ["none at the ends", "on one side", "some tiles"])
def test_what_is_not_a_number_stays_where_it_is_seen(name: str, place: int) -> None:
    """A tile makes two outputs together, of which only one may see it."""
    case = CASES[name]
    example = Example(case)
    example.values[3, 5, place % case.length] = torch.nan
    made, (last, records) = example.made(), example.expected()
    for own, exact in zip([made.last, *made.records], [last, *records], strict=True):
        assert torch.equal(own.isnan(), exact.isnan())
    back = example.expected_back(made.records)
    assert 0 < made.back.isnan().sum() < made.back.numel()
    assert torch.equal(made.back.isnan(), back.isnan())
