"""Contributions of random networks add up: graphs drawn from the list of operations, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.rulesets import RuleSet

CHANNELS, LENGTH = 4, 12

Operation = Callable[..., Tensor]
UNARY: dict[str, Operation] = {
    "relu": lambda x, _: F.relu(x),
    "gelu": lambda x, _: F.gelu(x),
    "silu": lambda x, _: F.silu(x),
    "elu": lambda x, _: F.elu(x, 0.7),
    "softplus": lambda x, _: F.softplus(x),
    "tanh": lambda x, _: torch.tanh(x),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "leaky": lambda x, _: F.leaky_relu(x, 0.1),
    "where": lambda x, _: torch.where(x > 0, x, torch.exp(x) - 1),
    "conv": lambda x, net: net.conv(x),
    "dilated": lambda x, net: net.dilated(x),
    "depthwise": lambda x, net: net.depthwise(x),
    "batch_norm": lambda x, net: net.batch_norm(x),
    "layer_norm": lambda x, net: net.layer_norm(x),
    "group_norm": lambda x, net: net.group_norm(x),
    "max_pool": lambda x, _: F.max_pool1d(x, 3, 1, 1),
    "avg_pool": lambda x, _: F.avg_pool1d(x, 3, 1, 1),
    "softmax": lambda x, _: x.softmax(1),
    "log_softmax": lambda x, _: x.log_softmax(2),
    "attention": lambda x, net: net.attend(x),
    "flip": lambda x, _: x.flip(2),
    "roll": lambda x, _: x.roll(2, 2),
    "cumsum": lambda x, _: x.cumsum(2) / LENGTH,
    "centred": lambda x, _: x - x.mean(2, keepdim=True),
    "scaled by maximum": lambda x, _: x - x.amax(2, keepdim=True),
    "halves": lambda x, _: torch.cat([x[:, 2:], x[:, :2] * torch.sigmoid(x[:, 2:])], 1),
    "down and up": lambda x, _: F.interpolate(F.max_pool1d(x, 2), scale_factor=2),
    "positions first": lambda x, _: (
        torch.tanh(x.permute(2, 0, 1).reshape(-1, CHANNELS)).reshape(LENGTH, -1, CHANNELS).permute(1, 2, 0)
    ),
}
BINARY: dict[str, Operation] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "gate": lambda a, b: torch.tanh(a) * torch.sigmoid(b),
    "product": lambda a, b: a * b / 2,
    "maximum": lambda a, b: torch.maximum(a, b),
    "quotient": lambda a, b: a / (1 + b.abs()),
}
Node = tuple[str, int, int]


class Drawn(nn.Module):
    """Nodes in order; each names an operation and which earlier values it reads.

    The result is a sum of all values, the input too, with weights that let none cancel another.
    """

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__()
        self.nodes = nodes
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.dilated = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=2, dilation=2)
        self.depthwise = nn.Conv1d(CHANNELS, CHANNELS, 5, padding="same", groups=CHANNELS)
        self.batch_norm = nn.BatchNorm1d(CHANNELS)
        self.layer_norm = nn.LayerNorm(LENGTH)
        self.group_norm = nn.GroupNorm(2, CHANNELS)
        self.project = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.head = nn.Linear(CHANNELS * LENGTH, 1)

    def attend(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x.transpose(1, 2)).chunk(3, -1)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for name, first, second in self.nodes:
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(UNARY[name](a, self) if name in UNARY else BINARY[name](a, b))
        weighted = [value * (1 + 0.37 * place) for place, value in enumerate(values)]
        return self.head(torch.tanh(torch.stack(weighted).sum(0) / len(values)).flatten(1))


def completeness_error(program: Program, rules: RuleSet) -> float:
    """Largest |sum - delta| over pairs, relative to the mean |delta|.

    Where the output all but ignores its input (x - x), relative to a millionth of what the contributions
    move in all, or to one where they move nothing.
    """
    step = StepShape(2, 3)
    rows = torch.randn(step.rows, CHANNELS, LENGTH, dtype=torch.float64)
    result = Method(rules=rules).engine(program, step).run(rows, 1)
    gap = rows[: step.sequences].repeat_interleave(step.references, 0) - rows[step.sequences :]
    contributions = (result.multipliers[0] * gap).flatten(1)
    total = contributions.sum(1).view(step.sequences, step.references)
    delta = result.predictions - result.reference_predictions[..., 0]
    scale = max(float(delta.abs().mean()), 1e-6 * float(contributions.abs().sum(1).mean())) or 1.0
    return float((total - delta).abs().max()) / scale


nodes = st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 20), st.integers(0, 20))


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # every try captures a network: shrinking one failure would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.lists(nodes, min_size=2, max_size=7), seed=st.integers(0, 99))
def test_contributions_of_random_graphs_add_up(drawn: list[Node], seed: int) -> None:
    torch.manual_seed(seed)
    network = Drawn(drawn)
    network.batch_norm.weight.data.normal_()
    network.batch_norm.bias.data.normal_()
    program = lower(capture(network, (CHANNELS, LENGTH), dtype=torch.float64))
    program.require_supported()
    assert completeness_error(program, "rescale") < 1e-9
    assert completeness_error(program, "revealcancel") < 1e-9
    assert completeness_error(program, "genomics-default") < 1e-9
