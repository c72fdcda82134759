"""Which residual layers become a tower, which do not, and what may stand around one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution import towers
from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.rewriting import put_together
from dlgenome.attribution.rules.tower import Tower
from dlgenome.attribution.rulesets import RuleSet

with_registers = pytest.mark.usefixtures("registers")
LENGTH = 300


class Residual(nn.Module):
    """Residual layers of some taps each, padded, and perhaps with one thing that towers do not have.

    Of "weights" those of one layer are made of others.
    """

    def __init__(self, change: str = "", taps: tuple[int, ...] = (3, 3, 3)) -> None:
        super().__init__()
        channels = 40 if change == "channels" else 32
        self.change, self.first = change, nn.Conv1d(4, channels, 7, padding=3)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, width, dilation=2 << number, padding=(width // 2) * (2 << number))
            for number, width in enumerate(taps)
        )
        if change == "groups":
            self.layers[1] = nn.Conv1d(32, 32, 3, dilation=4, padding=4, groups=2)
        if change == "weights":
            self.layers[1] = nn.utils.parametrizations.weight_norm(self.layers[1])
        self.head = nn.Linear(channels, 1)

    def body(self, x: Tensor) -> Tensor:
        """All layers."""
        for layer in self.layers:
            x = x + layer(x).relu()
        return x

    def forward(self, x: Tensor) -> Any:
        """One number."""
        x = self.first(x).relu()
        several = []
        for layer in self.layers:
            made = layer(x)
            made = nn.functional.gelu(made) if self.change == "activation" else made.relu()
            x = (x * 2 if self.change == "scale" else x) + made
            several.append(x)
        if self.change == "read again":
            x = x + several[0] + several[1]
        return self.head(x.mean(2))


def program_of(network: nn.Module, dtype: torch.dtype = torch.float32) -> Program:
    return lower(capture(network.eval().to(dtype), (4, LENGTH), dtype=dtype))


def check_towers(network: nn.Module, found: list[int], most: float, *, narrow: bool = False) -> list[Tower]:
    """It has towers of so many layers, and multipliers that are wrong by no more than a share of the largest.

    Gives the towers back.
    """
    program, step = program_of(network), StepShape(2, 3)
    program = with_narrow_products(program) if narrow else program
    assert sizes(program) == found
    wide = program_of(deepcopy(network), torch.float64)
    codes = torch.randint(0, 4, (step.rows, LENGTH), generator=torch.Generator().manual_seed(1))
    rows = torch.eye(4)[codes].transpose(1, 2)
    own, exact = (
        DEEPLIFT.engine(some, step).run(rows.to(dtype), 1).multipliers[0]
        for some, dtype in ((program, torch.float32), (wide, torch.float64))
    )
    assert (own - exact).abs().max() < most * exact.abs().max()
    return towers_of(program)


def towers_of(program: Program) -> list[Tower]:
    return [step.rule for step in put_together(program).steps if isinstance(step.rule, Tower)]


def sizes(program: Program) -> list[int]:
    """Layers of every tower that is found."""
    return [len(tower.layers) for tower in towers_of(program)]


@with_registers
def test_layers_that_follow_one_another_are_one_tower() -> None:
    assert sizes(program_of(Residual())) == [3]
    assert sizes(with_narrow_products(program_of(Residual()))) == [3]
    assert sizes(program_of(Residual(), torch.float64)) == []


@pytest.mark.usefixtures("without_vectors")
def test_other_processors_have_no_towers() -> None:
    assert sizes(program_of(Residual())) == []
    assert sizes(with_narrow_products(program_of(Residual()))) == []


@pytest.mark.parametrize(
    ("taps", "of_tiles", "of_vectors"),
    [
        ((3, 3, 5, 3, 3, 3), [6], [2, 3]),
        ((5, 3, 3), [3], [2]),
        ((3, 3, 1), [3], [2]),
        ((3, 7, 3), [3], []),
        ((1, 5), [2], []),
    ],
    ids=str,
)
def test_layers_of_vectors_have_three_taps(
    taps: tuple[int, ...], of_tiles: list[int], of_vectors: list[int], registers: str
) -> None:
    assert sizes(program_of(Residual(taps=taps))) == (of_tiles if registers == "tiles" else of_vectors)


@with_registers
@pytest.mark.parametrize("change", ["channels", "activation", "scale", "read again"])
def test_other_networks_have_no_towers(change: str) -> None:
    assert sizes(program_of(Residual(change))) == []


@with_registers
@pytest.mark.parametrize("change", ["groups", "weights"])
def test_a_layer_of_another_kind_is_no_part_of_a_tower(change: str) -> None:
    """One layer before it and one after it are not enough."""
    assert sizes(program_of(Residual(change))) == []


@with_registers
def test_a_row_too_large_for_the_cache_is_explained_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(Residual())
    monkeypatch.setattr(towers, "_CACHE", 32 * 4 * LENGTH)
    assert sizes(program) == [3]
    monkeypatch.setattr(towers, "_CACHE", 32 * 4 * LENGTH - 1)
    assert sizes(program) == []


@with_registers
@pytest.mark.parametrize("rules", ["gradient", "guided-backprop", "passthrough"])
def test_other_ways_of_explaining_have_no_towers(rules: RuleSet) -> None:
    engine = Method(rules).engine(program_of(Residual()), StepShape(1, 3))
    assert not any(isinstance(step.rule, Tower) for step in engine.program.steps)


@with_registers
def test_the_first_value_may_be_read_elsewhere() -> None:
    class Again(Residual):
        def forward(self, x: Tensor) -> Any:
            x = self.first(x).relu()
            return self.head((self.body(x) + x)[:, :, 100:150].mean(2))

    (tower,) = check_towers(Again(), [3], 1e-5)
    assert not tower.of_relu


@with_registers
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "first", [nn.ReLU(), nn.Identity(), nn.GELU(), nn.LeakyReLU()], ids=["relu", "none", "gelu", "leaky"]
)
def test_the_first_value_need_not_be_a_relu(first: nn.Module, narrow: bool) -> None:
    class Other(Residual):
        def forward(self, x: Tensor) -> Any:
            return self.head(self.body(first(self.first(x)))[:, :, 100:150].mean(2))

    (tower,) = check_towers(Other(), [3], 1e-2 if narrow else 2e-5, narrow=narrow)
    assert tower.of_relu == isinstance(first, nn.ReLU)


@with_registers
def test_a_tower_may_end_where_several_operations_read_it() -> None:
    class Twice(Residual):
        def forward(self, x: Tensor) -> Any:
            x = self.body(self.first(x).relu())
            return self.head(x.mean(2)) + self.head(x[:, :, 50:100].mean(2))

    check_towers(Twice(), [3], 1e-5)


@with_registers
def test_two_towers_follow_one_another() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = Residual(), Residual(taps=(3, 3))
            self.between = nn.Conv1d(32, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Any:
            return self.above(self.between(self.below.body(self.below.first(x).relu())))

    check_towers(Two(), [3, 2], 1e-4)
