"""Batch normalisation as part of the weights before it: wherever that is the same, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.rewriting import put_together
from dlgenome.attribution.rules.batch_norm import BatchNorm

STEP, LENGTH = StepShape(2, 3), 30
CHANNELS = 16


def trained(norm: Any) -> Any:
    """A batch normalisation with statistics and weights of its own."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.2, 3)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def headed(*layers: nn.Module) -> nn.Module:
    """With a ReLU and a head after the layers."""
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))


class ReadTwice(nn.Module):
    def __init__(self, between: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, CHANNELS, 3), trained(nn.BatchNorm1d(CHANNELS))
        self.head, self.between = nn.Linear(CHANNELS, 1), between

    def forward(self, x: Tensor) -> Any:
        made = self.conv(x)
        normalised = self.norm(made)
        other = made if self.between else normalised
        return self.head((normalised.relu() * other.sigmoid()).mean(2))


class Shared(nn.Module):
    """One convolution, used twice, with a normalisation after each use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv1d(4, CHANNELS, 3), nn.Conv1d(CHANNELS, CHANNELS, 3)
        self.norms = nn.ModuleList(trained(nn.BatchNorm1d(CHANNELS)) for _ in range(2))
        self.head = nn.Linear(CHANNELS, 1)

    def forward(self, x: Tensor) -> Any:
        value = self.first(x)
        for norm in self.norms:
            value = norm(self.conv(value)).relu()
        return self.head(value.mean(2))


def conv(**options: Any) -> nn.Module:
    return nn.Conv1d(4, CHANNELS, 5, **options)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "conv": (lambda: headed(conv(), trained(nn.BatchNorm1d(CHANNELS))), 0),
    "no-bias": (lambda: headed(conv(bias=False), trained(nn.BatchNorm1d(CHANNELS))), 0),
    "no-affine": (lambda: headed(conv(), trained(nn.BatchNorm1d(CHANNELS, affine=False))), 0),
    "strided-grouped": (lambda: headed(conv(stride=2, groups=4), trained(nn.BatchNorm1d(CHANNELS))), 0),
    "same": (lambda: headed(conv(padding="same", dilation=3), trained(nn.BatchNorm1d(CHANNELS))), 0),
    "dense": (
        lambda: headed(nn.Flatten(), nn.Linear(4 * LENGTH, CHANNELS), trained(nn.BatchNorm1d(CHANNELS))),
        0,
    ),
    "two-axes": (
        lambda: headed(
            nn.Unflatten(1, (1, 4)), nn.Conv2d(1, CHANNELS, (4, 3)), trained(nn.BatchNorm2d(CHANNELS))
        ),
        0,
    ),
    "shared": (Shared, 0),
    "dense-over-positions": (
        lambda: headed(nn.Linear(LENGTH, 7), trained(nn.BatchNorm1d(4))),
        1,
    ),
    "transposed": (lambda: headed(nn.ConvTranspose1d(4, CHANNELS, 3), trained(nn.BatchNorm1d(CHANNELS))), 1),
    "weights-of-weights": (
        lambda: headed(parametrizations.weight_norm(conv()), trained(nn.BatchNorm1d(CHANNELS))),
        1,
    ),
    "read-before": (lambda: ReadTwice(between=True), 1),
    "read-after": (lambda: ReadTwice(between=False), 0),
    "no-layer-before": (lambda: headed(conv(), nn.ReLU(), trained(nn.BatchNorm1d(CHANNELS))), 1),
}


@pytest.fixture(params=NETWORKS)
def program(request: pytest.FixtureRequest) -> tuple[Program, int]:
    torch.manual_seed(1)
    build, left = NETWORKS[request.param]
    network = build().eval()
    network(torch.zeros(2, 4, LENGTH))
    return lower(capture(network, (4, LENGTH), dtype=torch.float64)), left


def norms_of(program: Program) -> int:
    return sum(type(step.rule) is BatchNorm for step in program.steps)


def test_scores_are_the_same_and_the_normalisation_is_gone(program: tuple[Program, int]) -> None:
    captured, left = program
    assert norms_of(captured) > 0
    assert norms_of(put_together(captured)) == left
    rows = torch.randn(STEP.rows, 4, LENGTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = Engine(captured, STEP, keep_all=True).run(rows, 1)
    found = DEEPLIFT.engine(captured, STEP).run(rows, 1)
    torch.testing.assert_close(found.multipliers[0], expected.multipliers[0], rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found.predictions, expected.predictions, rtol=1e-12, atol=1e-13)
    assert not any("/" in name for name in captured.parameters), "the program itself was changed"


def test_rounded_convolutions_are_normalised_too() -> None:
    torch.manual_seed(1)
    layers = nn.Conv1d(4, CHANNELS, 3), nn.ReLU(), nn.Conv1d(CHANNELS, CHANNELS, 3)
    network = headed(*layers, trained(nn.BatchNorm1d(CHANNELS))).eval()
    network(torch.zeros(2, 4, LENGTH))
    narrow = with_narrow_products(lower(capture(network, (4, LENGTH))))
    assert norms_of(put_together(narrow)) == 0
    rows = torch.randn(STEP.rows, 4, LENGTH, generator=torch.Generator().manual_seed(2))
    expected = Engine(narrow, STEP, keep_all=True).run(rows, 1).multipliers[0]
    found = DEEPLIFT.engine(narrow, STEP).run(rows, 1).multipliers[0]
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
