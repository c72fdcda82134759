"""Towers against the same networks layer by layer, and in float64, with every kind of register."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import PairMultipliers
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.rewriting import put_together
from dlgenome.attribution.rules.tower import Tower

pytestmark = pytest.mark.usefixtures("registers")
narrow_or_not = pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
LENGTH, REFERENCES = 300, 3


@dataclass(frozen=True)
class Network:
    """Layers of a residual network, and the positions in the middle that its head reads."""

    dilations: tuple[int, ...] = (2, 4, 8)
    channels: int = 32
    taps: int = 3
    padded: bool | str = True
    """By how much a convolution is shorter than its value: not at all, or by what it does not see."""
    read: int | None = 120
    """All, where there is none."""
    bias: bool = True
    targets: int = 1

    def build(self) -> Network.Module:
        """With torch's own initial weights."""
        torch.manual_seed(5)
        return self.Module(self).eval()

    class Module(nn.Module):
        def __init__(self, plan: Network) -> None:
            super().__init__()
            self.plan = plan
            self.first = nn.Conv1d(4, plan.channels, 7, padding=3)
            self.layers = nn.ModuleList(
                nn.Conv1d(
                    plan.channels, plan.channels, plan.taps, dilation=dilation, bias=plan.bias,
                    padding=plan.padded if isinstance(plan.padded, str)
                    else dilation * (plan.taps - 1) // 2 * plan.padded,
                )
                for dilation in plan.dilations
            )  # fmt: skip
            self.head = nn.Linear(plan.channels, plan.targets)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x).relu()
            for layer in self.layers:
                made = layer(x).relu()
                lost = (x.shape[2] - made.shape[2]) // 2
                x = (x[:, :, lost : x.shape[2] - lost] if lost else x) + made
            if self.plan.read is not None:
                side = (x.shape[2] - self.plan.read) // 2
                x = x[:, :, side : side + self.plan.read]
            return self.head(x.mean(2))


NETWORKS = [
    Network(),
    Network(read=None),
    Network(read=None, padded=False),
    Network(padded=False, bias=False),
    Network(padded="same"),
    Network(channels=96, dilations=(1, 16)),
    Network(channels=64, dilations=(64, 32, 1, 1), read=20),
    Network(channels=128, dilations=(2, 1), read=40),
    Network(dilations=(120, 100), read=None),
    Network(dilations=(310, 150, 299), read=None),
    Network(targets=2),
]
OTHER_TAPS = [Network(taps=5, dilations=(3, 9)), Network(taps=1, dilations=(1, 1))]


def program_of(network: nn.Module, dtype: torch.dtype = torch.float32, *, narrow: bool = False) -> Program:
    program = lower(capture(network, (4, LENGTH), dtype=dtype))
    return with_narrow_products(program) if narrow else program


def found_in(program: Program) -> list[Tower]:
    return [step.rule for step in put_together(program).steps if isinstance(step.rule, Tower)]


def rows_of(step: StepShape, dtype: torch.dtype = torch.float32) -> Tensor:
    codes = torch.randint(0, 4, (step.rows, LENGTH), generator=torch.Generator().manual_seed(1))
    return torch.eye(4, dtype=dtype)[codes].transpose(1, 2)


def found_and_exact(
    program: Program, network: nn.Module, step: StepShape, targets: int = 1
) -> tuple[PairMultipliers, PairMultipliers]:
    """What the engine makes of a program, and in float64 of the network that it is of."""
    wide = program_of(deepcopy(network).double(), torch.float64)
    assert found_in(wide) == []
    found, exact = (
        DEEPLIFT.engine(some, step).run(rows_of(step, dtype), targets)
        for some, dtype in ((program, torch.float32), (wide, torch.float64))
    )
    return found, exact


@narrow_or_not
@pytest.mark.parametrize("plan", NETWORKS, ids=str)
def test_multipliers_are_those_of_the_layers_one_by_one(
    plan: Network, narrow: bool, request: pytest.FixtureRequest
) -> None:
    check_multipliers(plan, narrow, request)


@narrow_or_not
@pytest.mark.parametrize("plan", OTHER_TAPS, ids=str)
def test_other_than_three_taps_are_left_to_tiles(
    plan: Network, narrow: bool, registers: str, request: pytest.FixtureRequest
) -> None:
    if registers == "vectors":
        assert found_in(program_of(plan.build(), narrow=narrow)) == []
    else:
        check_multipliers(plan, narrow, request)


def check_multipliers(plan: Network, narrow: bool, request: pytest.FixtureRequest) -> None:
    """They are as near to those of float64 as those of the layers one by one."""
    network, step = plan.build(), StepShape(2, REFERENCES)
    program = program_of(network, narrow=narrow)
    (tower,) = found_in(program)
    assert len(tower.layers) == len(plan.dilations)
    assert tower.narrow == narrow
    assert tower.of_relu
    found, exact = found_and_exact(program, network, step, plan.targets)
    request.getfixturevalue("without_vectors")
    assert found_in(program) == []
    one_by_one = DEEPLIFT.engine(program, step).run(rows_of(step), plan.targets)
    for own, other, right in zip(found.multipliers, one_by_one.multipliers, exact.multipliers, strict=True):
        scale = right.abs().max()
        assert float((own - right).abs().max() / scale) < (1e-2 if narrow else 2e-5)
        mean_error = (own - right).square().mean().sqrt()
        assert mean_error < 1.5 * (other - right).square().mean().sqrt() + 1e-8 * scale
    torch.testing.assert_close(
        found.predictions.double(),
        exact.predictions,
        rtol=1e-3 if narrow else 1e-6,
        atol=1e-3 if narrow else 1e-6,
    )


@narrow_or_not
def test_a_sequence_gets_the_same_bits_wherever_it_stands(narrow: bool, random_codes: Any) -> None:
    program = program_of(Network(channels=64).build(), narrow=narrow)
    assert len(found_in(program)) == 1
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 4, LENGTH)
    threads = torch.get_num_threads()
    scores = []
    for batch_size, count, order in [
        (4, 1, [0, 1, 2, 3, 4]),
        (8, 2, [3, 1, 4, 0, 2]),
        (20, 1, [4, 3, 2, 1, 0]),
    ]:
        torch.set_num_threads(count)
        explainer = DeepLift(program, targets=1, n_references=4, batch_size=batch_size)
        (made,) = explainer.explain(codes[order], references[order])
        scores.append(made.hypothetical[np.argsort(order)])
    torch.set_num_threads(threads)
    for other in scores[1:]:
        np.testing.assert_array_equal(scores[0], other)


@narrow_or_not
@pytest.mark.parametrize("exponent", [-80, -60, 40, 100])
def test_networks_of_any_scale_are_explained_as_well(narrow: bool, exponent: int) -> None:
    """Powers of two change no digit."""
    network, step = Network(bias=False).build(), StepShape(2, REFERENCES)
    (plain,) = DEEPLIFT.engine(program_of(network, narrow=narrow), step).run(rows_of(step), 1).multipliers
    with torch.no_grad():
        for parameter in network.first.parameters():
            parameter.mul_(2.0**exponent)
    program = program_of(network, narrow=narrow)
    assert len(found_in(program)) == 1
    (scaled,) = DEEPLIFT.engine(program, step).run(rows_of(step), 1).multipliers
    torch.testing.assert_close(scaled.double() * 2.0**-exponent, plain.double(), rtol=0, atol=0)


def test_rows_and_layers_may_have_scales_of_their_own() -> None:
    """A bias far above all else changes that of the next layers."""
    network, step = Network().build(), StepShape(2, REFERENCES)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        parameters["first.weight"].mul_(1e-3)
        parameters["layers.1.bias"][::2] += 1e5
        parameters["layers.2.weight"][:16] *= 1e-6
    program, wide = program_of(network, narrow=True), program_of(network.double(), torch.float64)
    assert len(found_in(program)) == 1
    sizes = torch.tensor([1, 1e-4, 1e3, 30, 1e5, 1e-2, 10, 300]).view(-1, 1, 1)
    found, exact = (
        DEEPLIFT.engine(some, step).run(rows_of(step, dtype) * sizes.to(dtype), 1).multipliers[0]
        for some, dtype in ((program, torch.float32), (wide, torch.float64))
    )
    for own, right in zip(found, exact, strict=True):
        assert 0 < (own - right).abs().max() < 1e-2 * right.abs().max()


@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e6])
def test_channels_may_have_scales_of_their_own(scale: float) -> None:
    """The same function, of which one channel is larger than all others."""
    network, step = Network().build(), StepShape(2, REFERENCES)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("first", "layers")):
                parameter[0] *= scale
            if name.endswith("weight") and not name.startswith("first"):
                parameter[:, 0] /= scale
    program = program_of(network, narrow=True)
    assert len(found_in(program)) == 1
    found, exact = found_and_exact(program, network, step)
    difference = (found.multipliers[0] - exact.multipliers[0]).abs().max()
    assert 0 < difference < 1e-2 * exact.multipliers[0].abs().max()


def test_a_channel_that_is_never_positive_hides_no_other() -> None:
    network, step = Network().build(), StepShape(2, REFERENCES)
    with torch.no_grad():
        dict(network.named_parameters())["layers.0.bias"][0] = -1e30
    program = program_of(network, narrow=True)
    assert len(found_in(program)) == 1
    found, exact = found_and_exact(program, network, step)
    difference = (found.multipliers[0] - exact.multipliers[0]).abs().max()
    assert 0 < difference < 1e-2 * exact.multipliers[0].abs().max()


def test_positions_that_are_no_number_spread_as_they_do_layer_by_layer(
    request: pytest.FixtureRequest,
) -> None:
    network = Network().build()
    with torch.no_grad():
        next(network.first.parameters())[3] = torch.nan
    step = StepShape(1, 2)
    program, rows = program_of(network), rows_of(step)
    found = DEEPLIFT.engine(program, step).run(rows, 1)
    request.getfixturevalue("without_vectors")
    expected = DEEPLIFT.engine(program, step).run(rows, 1)
    assert found.predictions.isnan().all()
    assert torch.equal(found.multipliers[0].isnan(), expected.multipliers[0].isnan())


def test_scores_sum_to_the_difference(explain: Callable[..., Any]) -> None:
    network = Network(channels=64, read=100).build()
    result = explain(network, (4, LENGTH), dtype=torch.float32)
    assert max(result.completeness) < 1e-5
    assert max(result.forward) < 1e-6
