"""RevealCancel against its equations, number by number.

The equations are those of the paper (arXiv 1704.02685, sections 3.5.1 to 3.5.3). Factors, sums and
differences, which it leaves open, carry both parts; a negative factor lets them change places. Where a part
is zero its slope is the limit: the mean of two derivatives instead of two quotients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.methods import Method

Numbers = list[float]
Matrix = list[list[float]]
Signed = list[tuple[float, float]]
"""Positive and negative part of every difference, or the multipliers of both."""
Function = Callable[[float], float]
STEP = StepShape(2, 3)


def relu(value: float) -> float:
    """max(0, value)."""
    return max(0.0, value)


def relu_slope(value: float) -> float:
    """Derivative of ReLU."""
    return float(value > 0)


def tanh_slope(value: float) -> float:
    """Derivative of tanh."""
    return 1 - math.tanh(value) ** 2


def gaps(values: Numbers, references: Numbers) -> Numbers:
    """Differences."""
    return [x - r for x, r in zip(values, references, strict=True)]


def dense(weights: Matrix, differences: Numbers) -> Signed:
    """P from weights and differences of equal sign, N from those of opposite sign."""
    made = []
    for row in weights:
        terms = [w * d for w, d in zip(row, differences, strict=True)]
        made.append((sum(t for t in terms if t > 0), sum(t for t in terms if t < 0)))
    return made


def through_dense(weights: Matrix, differences: Numbers, multipliers: Signed) -> Signed:
    """Both multipliers of an input are one, which depends on the sign of its difference."""
    back = []
    for place, d in enumerate(differences):
        total = 0.0
        for row, (up, down) in zip(weights, multipliers, strict=True):
            w = row[place]
            total += w * ((up + down) / 2 if d == 0 else up if w * d > 0 else down)
        back.append((total, total))
    return back


def slopes(function: Function, derivative: Function, references: Numbers, parts: Signed) -> Signed:
    """s+ and s- of an activation: each part added to the reference alone, and after the other part."""

    def quotient(start: float, step: float) -> float:
        return (function(start + step) - function(start)) / step if step else derivative(start)

    return [
        ((quotient(r, p) + quotient(r + n, p)) / 2, (quotient(r, n) + quotient(r + p, n)) / 2)
        for r, (p, n) in zip(references, parts, strict=True)
    ]


def scaled(factors: Numbers, pairs: Signed) -> Signed:
    """Both times a factor, in each other's place where it is negative."""
    return [(k * a, k * b) if k > 0 else (k * b, k * a) for k, (a, b) in zip(factors, pairs, strict=True)]


def times(first: Signed, second: Signed) -> Signed:
    """Products sign by sign."""
    return [(a * c, b * d) for (a, b), (c, d) in zip(first, second, strict=True)]


def plus(first: Signed, second: Signed) -> Signed:
    """Sums sign by sign."""
    return [(a + c, b + d) for (a, b), (c, d) in zip(first, second, strict=True)]


class Network(nn.Module):
    """Dense layers, a batch-norm that turns some signs, constant factors, a difference of two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 7), nn.Linear(7, 5), nn.Linear(5, 2)
        self.norm = nn.BatchNorm1d(7)
        self.norm.weight.data = torch.tensor([1.0, -2.0, 0.5, -0.5, 1.5, -1.0, 1.0])
        assert self.norm.running_var is not None
        self.norm.running_var.uniform_(0.5, 2)
        self.register_buffer("factors", torch.tensor([0.5, -0.5, 1.0, -1.0, 2.0]))

    def hidden(self, x: Tensor) -> dict[str, Tensor]:
        """All values on the way."""
        normed = self.norm(self.first(x.flatten(1)))
        bent = torch.tanh(normed)
        second = self.second(bent)
        factored = second * self.get_buffer("factors")
        joined = factored.relu() - second
        return {"normed": normed, "bent": bent, "second": second, "factored": factored, "joined": joined}

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        made: Tensor = self.head(torch.tanh(self.hidden(x)["joined"]))
        return made


def twin(net: Network, x: Tensor, r: Tensor, target: int) -> Numbers:
    """Multipliers of the twelve inputs."""
    first, second, head = (layer.weight.tolist() for layer in (net.first, net.second, net.head))
    assert net.norm.running_var is not None
    norm = (net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()).tolist()
    factors, minus = net.get_buffer("factors").tolist(), [-1.0] * 5
    own, other = ({k: v[0].tolist() for k, v in net.hidden(row[None]).items()} for row in (x, r))

    inputs = gaps(x.flatten().tolist(), r.flatten().tolist())
    normed = scaled(norm, dense(first, inputs))
    s_bent = slopes(math.tanh, tanh_slope, other["normed"], normed)
    bent = gaps(own["bent"], other["bent"])
    p_second = dense(second, bent)
    factored = scaled(factors, p_second)
    s_relu = slopes(relu, relu_slope, other["factored"], factored)
    joined = plus(times(s_relu, factored), scaled(minus, p_second))
    s_joined = slopes(math.tanh, tanh_slope, other["joined"], joined)

    m_joined = times([(w, w) for w in head[target]], s_joined)
    m_second = plus(scaled(factors, times(m_joined, s_relu)), scaled(minus, m_joined))
    m_normed = times(through_dense(second, bent, m_second), s_bent)
    return [up for up, _ in through_dense(first, inputs, scaled(norm, m_normed))]


def test_revealcancel_equals_its_equations_number_by_number() -> None:
    net = Network().double().eval()
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(STEP.rows, 4, 3, generator=generator, dtype=torch.float64)
    rows[2], rows[3, :, :2] = rows[0], rows[0, :, :2]
    program = lower(capture(net, (4, 3), dtype=torch.float64))
    result = Method("revealcancel").engine(program, STEP).run(rows, 2)
    for target, multipliers in enumerate(result.multipliers):
        for pair in range(STEP.pairs):
            with torch.no_grad():
                expected = twin(net, rows[pair // 3], rows[2 + pair], target)
            np.testing.assert_allclose(multipliers[pair].flatten(), expected, rtol=0, atol=1e-13)
