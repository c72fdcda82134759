"""Integrated gradients against a plain loop over the points of the line from reference to sequence."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method

STEP = StepShape(2, 3)


class Curved(nn.Module):
    """Convolutions with a gate, a maximum and a smooth dense layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.first, self.left, self.right = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 5, 3), nn.Conv1d(6, 5, 3)
        self.dense, self.head = nn.Linear(15, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        x = self.first(x).relu()
        x = torch.tanh(self.left(x)) * torch.sigmoid(self.right(x))
        x = nn.functional.max_pool1d(x, 3, 2)
        made: Tensor = self.head(nn.functional.gelu(self.dense(x.flatten(1))))
        return made


@cache
def network() -> nn.Module:
    """The network in float64."""
    return Curved().double().eval()


@cache
def program() -> Program:
    """The network ready to be explained."""
    return lower(capture(network(), (4, 11), dtype=torch.float64))


def drawn() -> Tensor:
    """Rows of two sequences and three references each; one reference is its sequence."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(STEP.rows, 4, 11, generator=generator, dtype=torch.float64)
    rows[2] = rows[0]
    return rows


def run(intervals: int) -> Any:
    """What the engine makes of the rows."""
    return Method(intervals=intervals).engine(program(), STEP).run(drawn(), 2)


def looped(x: Tensor, r: Tensor, target: int, intervals: int) -> Tensor:
    """Mean gradient at the midpoints of equal intervals, one point after the other."""
    total = torch.zeros_like(x)
    for interval in range(intervals):
        point = (r + (interval + 0.5) / intervals * (x - r)).requires_grad_()
        (gradient,) = torch.autograd.grad(network()(point[None])[0, target], point)
        total += gradient
    return total / intervals


@pytest.mark.parametrize("intervals", [1, 7])
def test_multipliers_are_gradients_averaged_over_midpoints(intervals: int) -> None:
    rows, result = drawn(), run(intervals)
    for target in range(2):
        expected = [looped(rows[pair // 3], rows[2 + pair], target, intervals) for pair in range(STEP.pairs)]
        torch.testing.assert_close(result.multipliers[target], torch.stack(expected), rtol=0, atol=1e-14)


def test_predictions_are_those_of_the_rows_themselves() -> None:
    result = run(2)
    with torch.no_grad():
        made = network()(drawn())
    torch.testing.assert_close(result.predictions, made[:2], rtol=0, atol=1e-14)
    torch.testing.assert_close(result.reference_predictions.flatten(0, 1), made[2:], rtol=0, atol=1e-14)


def test_the_sum_approaches_the_difference_with_more_intervals() -> None:
    rows, errors = drawn(), []
    gap = rows[:2].repeat_interleave(3, 0) - rows[2:]
    for intervals in (2, 10, 250):
        result = run(intervals)
        delta = (result.predictions[:, None] - result.reference_predictions).flatten(0, 1)
        sums = torch.stack([(m * gap).flatten(1).sum(1) for m in result.multipliers], 1)
        errors.append(float((sums - delta).abs().max() / delta.abs().mean()))
    assert errors[0] > 1e-3
    assert errors[2] < errors[1] / 5 < errors[0] / 10


def test_one_interval_is_enough_for_a_linear_network() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv1d(4, 3, 3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 1)).double()
    linear = lower(capture(net, (4, 11), dtype=torch.float64))
    single = Method(intervals=1).engine(linear, STEP).run(drawn(), 1).multipliers[0]
    torch.testing.assert_close(single, Method().engine(linear, STEP).run(drawn(), 1).multipliers[0])


def test_scores_are_averaged_over_references_whatever_the_batch_size() -> None:
    generator = np.random.default_rng(2)
    codes = generator.integers(0, 4, (2, 11)).astype(np.uint8)
    references = generator.integers(0, 4, (2, 3, 11)).astype(np.uint8)

    def scores(batch_size: int) -> Any:
        deeplift = DeepLift(
            program(), targets=2, n_references=3, batch_size=batch_size, dtype=torch.float64,
            method=Method(intervals=4),
        )  # fmt: skip
        step = deeplift.sequences_at_once
        found = [deeplift.explain(codes[i : i + step], references[i : i + step]) for i in range(0, 2, step)]
        return np.concatenate([np.stack([task.hypothetical for task in part]) for part in found], 1)

    eye = torch.eye(4, dtype=torch.float64)
    whole = scores(6)
    np.testing.assert_allclose(scores(2), whole, rtol=0, atol=1e-14)
    for sequence in range(2):
        expected = []
        for reference in references[sequence]:
            r = eye[reference.astype(int)].T
            m = looped(eye[codes[sequence].astype(int)].T, r, 1, 4)
            expected.append(m - (m * r).sum(0))
        np.testing.assert_allclose(whole[1, sequence], torch.stack(expected).mean(0), rtol=0, atol=1e-14)
