"""Convolutions in bfloat16: near the scores of float64, and as indifferent to their neighbours as any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.kernels import add_relu, add_rounded, pair_rows, relu_multiplier
from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.narrow import BoundNarrow, NarrowConvolution, has_maxima, with_narrow_convolutions
from dlgenome.attribution.rewriting import put_together
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.targets import TargetHead, parse_targets

pytestmark = pytest.mark.usefixtures("either_way")
LENGTH, REFERENCES = 300, 5


def program_of(dtype: torch.dtype = torch.float32, target: str = "counts") -> Program:
    torch.manual_seed(2)
    network = BPNet(n_filters=32, n_layers=3, n_outputs=1).eval()
    return lower(capture(TargetHead(network, parse_targets([target])), (4, LENGTH), dtype=dtype))


def explainer(program: Program, dtype: torch.dtype = torch.float32, batch_size: int = 10) -> DeepLift:
    return DeepLift(program, targets=1, n_references=REFERENCES, batch_size=batch_size, dtype=dtype)


def test_scores_are_near_those_of_float64(random_codes: Any) -> None:
    codes, references = random_codes(1, 6, LENGTH), random_codes(2, 6, REFERENCES, LENGTH)
    (exact,) = explainer(program_of(torch.float64), torch.float64).explain(codes, references)
    (found,) = explainer(with_narrow_convolutions(program_of())).explain(codes, references)
    for one, other in zip(exact.hypothetical, found.hypothetical, strict=True):
        assert 1e-4 * np.abs(one).max() < np.abs(one - other).max() < 0.03 * np.abs(one).max()
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9995
    assert found.hypothetical.dtype == np.float32


def test_only_convolutions_of_many_channels_are_rounded() -> None:
    program = with_narrow_convolutions(program_of(target="index:0,100"))
    engine = Engine(program, StepShape(2, REFERENCES))
    kinds = [
        type(engine._rules[step.call.name]).__name__
        for step in program.steps
        if isinstance(step.rule, NarrowConvolution)
    ]
    assert kinds == ["BoundConvolution", *["BoundNarrow"] * 3, "BoundConvolution"]


def test_transposed_convolutions_stay_as_they_are(random_codes: Any) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.ConvTranspose1d(4, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1)
    ).eval()
    program = lower(capture(network, (4, LENGTH)))
    codes, references = random_codes(3, 2, LENGTH), random_codes(4, 2, REFERENCES, LENGTH)
    (expected,) = explainer(program).explain(codes, references)
    (found,) = explainer(with_narrow_convolutions(program)).explain(codes, references)
    np.testing.assert_array_equal(expected.hypothetical, found.hypothetical)


@pytest.mark.parametrize("batch_size", [3, 10])
def test_neighbours_and_threads_change_no_bit(batch_size: int, random_codes: Any) -> None:
    codes, references = random_codes(5, 5, LENGTH), random_codes(6, 5, REFERENCES, LENGTH)
    program, before = with_narrow_convolutions(program_of()), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        (together,) = explainer(program, batch_size=batch_size).explain(codes, references)
        torch.set_num_threads(1)
        (alone,) = explainer(program, batch_size=batch_size).explain(codes[3:4], references[3:4])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(together.hypothetical[3], alone.hypothetical[0])


def halves(seed: int, *shape: int) -> torch.Tensor:
    """Numbers of every size and sign, with all that are none among them."""
    bits = torch.randint(-(2**15), 2**15, shape, generator=torch.Generator().manual_seed(seed))
    return bits.to(torch.int16).view(torch.bfloat16)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("spare", [False, True])
def test_the_pass_back_through_a_relu_rounds_as_torch_does(spare: bool) -> None:
    step = StepShape(2, 3)
    x, r = halves(1, 2, 16, 3000), halves(2, 6, 16, 3000)
    multiplier = torch.randn(6, 16, 3000, generator=torch.Generator().manual_seed(3)) * halves(4, 6, 16, 3000)
    wide_x, wide_r = x.float().repeat_interleave(3, 0), r.float()
    width = (wide_x - wide_r).abs().clamp_min(torch.finfo(torch.float32).tiny)
    slope = (torch.maximum(wide_x, wide_r) / width).clamp(0, 1)
    known = ~slope.isnan() & wide_x.isfinite() & wide_r.isfinite()
    expected = (multiplier * slope).bfloat16()
    found = relu_multiplier(pair_rows(x, r, multiplier, step, BatchAxis(), spare))
    assert found is not None
    assert (found.data_ptr() == r.data_ptr()) == spare
    assert known.float().mean() > 0.9
    assert same(found[known], expected[known])


def test_what_is_added_is_what_torch_adds() -> None:
    value = halves(5, 2, 16, 3000)
    total = torch.randn(2, 16, 3000, generator=torch.Generator().manual_seed(6))
    whole, positive = total.clone(), total.clone()
    assert add_rounded(whole, value)
    assert add_relu(positive, value)
    assert same(whole, total + value.float())
    assert same(positive, total + value.float().relu())
    assert not add_rounded(total, value.transpose(1, 2).contiguous().transpose(1, 2))
    assert not add_rounded(total.double(), value)
    assert not add_rounded(total, value.float())


class Tails(nn.Module):
    """Convolutions whose values go into a ReLU, into two ReLUs, into another function, and out."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(n, 32, 3, padding=1) for n in (4, 32, 32, 32, 32))

    def forward(self, x: torch.Tensor) -> Any:
        first, second, third, fourth, last = self.convs
        x = second(first(x).relu()).relu()
        made = third(x)
        x = made.relu() + made.sigmoid()
        return last(fourth(x).tanh())[:, :, :1].flatten(1)


def test_values_stay_narrow_only_on_their_way_into_one_relu(random_codes: Any) -> None:
    torch.manual_seed(5)
    program = with_narrow_convolutions(lower(capture(Tails().eval(), (4, LENGTH))))
    steps = put_together(program).steps
    rules = [step.rule for step in steps if isinstance(step.rule, NarrowConvolution)]
    assert [rule.leaves_narrow for rule in rules] == [True, True, False, False, False]
    explaining = DeepLift(program, targets=32, n_references=REFERENCES, batch_size=10)
    bound = [rule for rule in explaining.engine._rules.values() if isinstance(rule, BoundNarrow)]
    assert len(bound) == 4
    torch.manual_seed(5)
    wide = lower(capture(Tails().eval(), (4, LENGTH), dtype=torch.float64))
    exact = DeepLift(wide, targets=32, n_references=REFERENCES, batch_size=10, dtype=torch.float64)
    codes, references = random_codes(7, 2, LENGTH), random_codes(8, 2, REFERENCES, LENGTH)
    pairs = zip(explaining.explain(codes, references), exact.explain(codes, references), strict=True)
    for found, expected in pairs:
        scale = np.abs(expected.hypothetical).max()
        assert np.abs(found.hypothetical - expected.hypothetical).max() < 0.05 * scale


def test_small_values_take_the_plain_path_to_the_same_scores(random_codes: Any) -> None:
    codes, references = random_codes(9, 2, LENGTH), random_codes(10, 2, REFERENCES, LENGTH)
    program = with_narrow_convolutions(program_of())
    (fused,) = explainer(program).explain(codes, references)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", 1 << 40)
        (plain,) = explainer(program).explain(codes, references)
    scale = np.abs(plain.hypothetical).max()
    assert np.abs(fused.hypothetical - plain.hypothetical).max() < 1e-3 * scale


@pytest.mark.parametrize("pooling", [nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(5), nn.AvgPool1d(2)])
def test_networks_that_choose_among_values_are_known(pooling: nn.Module) -> None:
    network = nn.Sequential(nn.Conv1d(4, 16, 3), nn.ReLU(), pooling, nn.Flatten(), nn.LazyLinear(1)).eval()
    network(torch.zeros(1, 4, LENGTH))
    chooses = not isinstance(pooling, nn.AvgPool1d)
    assert has_maxima(with_narrow_convolutions(lower(capture(network, (4, LENGTH))))) == chooses


METHODS = {
    "passthrough": Method(rules="passthrough"),
    "gradient": Method(rules="gradient"),
    "guided": Method(rules="guided-backprop"),
    "deconvnet": Method(rules="deconvnet"),
    "argmax": Method(max_pool="argmax"),
    "integrated": Method(intervals=4),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("pooling", [nn.MaxPool1d(4), nn.Identity()], ids=["pooled", "whole"])
def test_every_other_way_of_explaining_gets_float32_from_its_relus(
    method: Method, pooling: nn.Module, random_codes: Any
) -> None:
    torch.manual_seed(6)
    network = nn.Sequential(
        nn.Conv1d(4, 32, 5), nn.ReLU(), nn.Conv1d(32, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), pooling,
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 1),
    ).eval()  # fmt: skip
    codes, references = random_codes(11, 2, LENGTH), random_codes(12, 2, REFERENCES, LENGTH)
    found = []
    for narrow in (with_narrow_convolutions, lambda program: program):
        program = narrow(lower(capture(network, (4, LENGTH))))
        explaining = DeepLift(program, targets=1, n_references=REFERENCES, batch_size=10, method=method)
        found.append(explaining.explain(codes, references)[0].hypothetical)
    rounded, exact = found
    assert rounded.dtype == np.float32
    assert np.abs(rounded - exact).mean() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("moves", [{"stride": 2}, {"groups": 2}, {"padding": 4}], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_any_convolution_may_be_rounded(
    moves: dict[str, Any], activation: type[nn.Module], random_codes: Any
) -> None:
    """Those that move otherwise have another way back."""
    network = nn.Sequential(
        nn.Conv1d(4, 32, 7), nn.ReLU(), nn.Conv1d(32, 32, 3, **moves), activation(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1),
    ).eval()  # fmt: skip
    codes, references = random_codes(7, 2, 60), random_codes(8, 2, REFERENCES, 60)
    program = lower(capture(network, (4, 60)))
    wide = lower(capture(network.double(), (4, 60), dtype=torch.float64))
    (exact,) = explainer(wide, torch.float64).explain(codes, references)
    (found,) = explainer(with_narrow_convolutions(program)).explain(codes, references)
    difference = np.abs(found.hypothetical - exact.hypothetical).max()
    assert 0 < difference < 0.03 * np.abs(exact.hypothetical).max()
