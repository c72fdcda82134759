"""The argument of the DeepLIFT paper (Shrikumar et al. 2017, arXiv 1704.02685), claim by claim.

Networks and numbers are those of its figures 1 to 3 and of sections 2 and 3; inputs and references are pairs
of numbers. Integrated gradients, which the paper sets beside its own rules, use midpoints.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method

RESCALE, REVEAL_CANCEL = Method("rescale"), Method("revealcancel")
GRADIENT, GUIDED = Method("gradient"), Method("guided-backprop")
INTEGRATED = Method(intervals=50)
BELOW, ABOVE = 10 - 1e-3, 10 + 1e-3


class Saturating(nn.Module):
    """Figure 1: y = 1 - max(0, 1 - i1 - i2), which is 1 from i1 + i2 = 1 on."""

    def forward(self, x: Tensor) -> Tensor:
        """Output, (batch, 1)."""
        return 1 - (1 - x.sum(1, keepdim=True)).relu()


class Thresholded(nn.Module):
    """Figure 2: y = max(0, x + b); the bias stands among the inputs so that it gets a score, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Output, (batch, 1)."""
        return x.sum(1, keepdim=True).relu()


class Minimum(nn.Module):
    """Figure 3: h1 = i1 - i2, h2 = max(0, h1), o = i1 - h2, which is min(i1, i2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Output, (batch, 1)."""
        first, second = x[:, :1], x[:, 1:]
        return first - (first - second).relu()


class MinimumInLayers(nn.Module):
    """Figure 3 with every sum written as a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        self.hidden.weight.data = torch.tensor([[1.0, -1.0], [1.0, 0.0]])
        self.output.weight.data = torch.tensor([[-1.0, 1.0]])

    def forward(self, x: Tensor) -> Tensor:
        """Output, (batch, 1); max(0, i1) is i1 for the inputs of the figure, which are not negative."""
        made: Tensor = self.output(self.hidden(x).relu())
        return made


class SumThen(nn.Module):
    """A function of i1 + i2 + bias."""

    def __init__(self, function: Any, bias: float = 0.0) -> None:
        super().__init__()
        self.function, self.sum = function, nn.Linear(2, 1)
        self.sum.weight.data.fill_(1)
        self.sum.bias.data.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Output, (batch, 1)."""
        made: Tensor = self.function(self.sum(x))
        return made


SATURATING, THRESHOLDED = Saturating(), Thresholded()
BIASED, LOGIT, PROBABILITY = SumThen(torch.relu, -10), SumThen(nn.Identity()), SumThen(torch.sigmoid)
MINIMA = {"as one expression": Minimum(), "in layers": MinimumInLayers()}


@cache
def program(network: nn.Module) -> Program:
    """The network ready to be explained."""
    return lower(capture(network, (2,), dtype=torch.float64))


def scores(
    network: nn.Module, inputs: Sequence[float], method: Method, reference: Sequence[float] = (0, 0)
) -> list[float]:
    """Contributions of both inputs to the output's difference from its reference."""
    rows = torch.tensor([list(inputs), list(reference)], dtype=torch.float64)
    (multiplier,) = method.engine(program(network), StepShape(1, 1)).run(rows, 1).multipliers
    found: list[float] = (multiplier[0] * (rows[0] - rows[1])).tolist()
    return found


def output(network: nn.Module, *inputs: float) -> float:
    """What the network says."""
    with torch.no_grad():
        return float(network(torch.tensor([inputs])))


def test_setting_either_input_of_a_saturated_sum_to_zero_changes_nothing() -> None:
    assert output(SATURATING, 1, 1) == output(SATURATING, 0, 1) == output(SATURATING, 1, 0) == 1


@pytest.mark.parametrize("method", [GRADIENT, GUIDED])
def test_gradients_of_a_saturated_sum_are_zero(method: Method) -> None:
    assert scores(SATURATING, (1, 1), method) == [0, 0]


@pytest.mark.parametrize("method", [RESCALE, REVEAL_CANCEL, INTEGRATED])
def test_deeplift_and_integrated_gradients_give_each_saturating_input_a_half(method: Method) -> None:
    assert scores(SATURATING, (1, 1), method) == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize("method", [RESCALE, REVEAL_CANCEL])
def test_unequal_saturating_inputs_share_the_output_in_proportion(method: Method) -> None:
    assert scores(SATURATING, (3, 1), method) == pytest.approx([0.75, 0.25], abs=1e-12)


def test_gradient_times_input_jumps_by_ten_at_the_threshold_and_blames_the_bias() -> None:
    assert scores(THRESHOLDED, (BELOW, -10), GRADIENT) == [0, 0]
    assert scores(THRESHOLDED, (ABOVE, -10), GRADIENT) == [ABOVE, -10]


@pytest.mark.parametrize("method", [RESCALE, REVEAL_CANCEL])
def test_deeplift_gives_the_bias_nothing_and_the_input_what_exceeds_the_threshold(method: Method) -> None:
    against = (0, -10)
    assert scores(THRESHOLDED, (BELOW, -10), method, against) == [0, 0]
    assert scores(THRESHOLDED, (ABOVE, -10), method, against) == pytest.approx([1e-3, 0], abs=1e-12)
    assert scores(THRESHOLDED, (30, -10), method, against) == pytest.approx([20, 0], abs=1e-12)


@pytest.mark.parametrize(("method", "bound"), [(RESCALE, 0.1), (REVEAL_CANCEL, 0.1), (GRADIENT, 10.0)])
def test_only_deeplift_rises_continuously_through_the_threshold(method: Method, bound: float) -> None:
    rising = [scores(BIASED, (9.5 + 0.1 * step, 0), method)[0] for step in range(11)]
    largest = max(after - before for before, after in itertools.pairwise(rising))
    assert (largest <= bound + 1e-9) if method != GRADIENT else (largest > bound)


def test_integrated_gradients_miss_what_lies_between_their_points() -> None:
    assert scores(BIASED, (10.1, 0), INTEGRATED)[0] == 0
    assert scores(BIASED, (10.2, 0), INTEGRATED)[0] == pytest.approx(10.2 / 50, abs=1e-12)
    assert scores(BIASED, (10.1, 0), RESCALE)[0] == pytest.approx(0.1, abs=1e-12)


INPUTS = [(3.0, 2.0), (2.0, 3.0), (1.0, 1.0), (1.0, 0.0), (0.25, 4.0)]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("written", MINIMA)
def test_revealcancel_gives_each_input_half_of_their_minimum(
    written: str, inputs: tuple[float, float]
) -> None:
    half = 0.5 * min(inputs)
    assert output(MINIMA[written], *inputs) == min(inputs)
    assert scores(MINIMA[written], inputs, REVEAL_CANCEL) == pytest.approx([half, half], abs=1e-12)


@pytest.mark.parametrize("inputs", [(3.0, 2.0), (2.0, 3.0), (0.25, 4.0)])
@pytest.mark.parametrize("method", [RESCALE, GRADIENT, INTEGRATED])
@pytest.mark.parametrize("written", MINIMA)
def test_other_methods_give_the_smaller_input_everything(
    written: str, method: Method, inputs: tuple[float, float]
) -> None:
    expected = [value if value == min(inputs) else 0.0 for value in inputs]
    assert scores(MINIMA[written], inputs, method) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("inputs", [(3.0, 2.0), (2.0, 3.0)])
@pytest.mark.parametrize("written", MINIMA)
def test_guided_backprop_sees_one_input_of_a_minimum_only(written: str, inputs: tuple[float, float]) -> None:
    assert scores(MINIMA[written], inputs, GUIDED) == pytest.approx([inputs[0], 0], abs=1e-12)


def test_rescale_ignores_noise_below_a_threshold_and_revealcancel_does_not() -> None:
    """Section 3.5.3: i1 and i2 cancel below the threshold; i1 alone would have passed it."""
    network = SumThen(torch.relu, bias=-1)
    assert output(network, 2, -1.5) == 0
    assert scores(network, (2, -1.5), RESCALE) == [0, 0]
    assert scores(network, (2, -1.5), REVEAL_CANCEL) == pytest.approx([0.5, -0.5], abs=1e-12)


def test_scores_of_a_sigmoid_shrink_with_the_input_and_those_of_its_logit_do_not() -> None:
    """Section 3.6, choice of target: 0.5 and 0 for inputs 50 and 0, but 0.25 each for 100 and 100."""
    assert scores(PROBABILITY, (50, 0), RESCALE) == pytest.approx([0.5, 0], abs=1e-12)
    assert scores(PROBABILITY, (100, 100), RESCALE) == pytest.approx([0.25, 0.25], abs=1e-12)
    assert scores(LOGIT, (50, 0), RESCALE) == [50, 0]
    assert scores(LOGIT, (100, 100), RESCALE) == [100, 100]


@pytest.mark.parametrize("method", [RESCALE, REVEAL_CANCEL])
def test_subtracting_the_mean_over_classes_is_normalising_the_last_layer(method: Method) -> None:
    """A number added to all logits changes no softmax output and should change no score (section 3.6)."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    rows = torch.tensor([[1.0, -2.0], [0.5, 0.25]], dtype=torch.float64)

    def multipliers() -> Tensor:
        program = lower(capture(network, (2,), dtype=torch.float64))
        return torch.stack(method.engine(program, StepShape(1, 1)).run(rows, 4).multipliers)

    plain = multipliers()
    with torch.no_grad():
        for values in network[2].parameters():
            values.sub_(values.mean(0, keepdim=True))
    torch.testing.assert_close(multipliers(), plain - plain.mean(0), rtol=0, atol=1e-12)
