"""Narrow convolutions: near the scores of float64, and as indifferent to their neighbours as any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import allow_tf32
from dlgenome.attribution.fusing import FusingRecorder
from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.narrow import has_maxima, with_narrow_products
from dlgenome.attribution.recording import CudaRecorder
from dlgenome.attribution.rules.base import Call, Ref, Source
from dlgenome.attribution.rules.convolution import BoundConvolution, Convolution, pieces_of
from dlgenome.attribution.tiles.kernels import ALL, ONE, TWO
from dlgenome.attribution.vectors.processor import has_narrow_vectors
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.targets import TargetHead, parse_targets

pytestmark = pytest.mark.usefixtures("either_way")
LENGTH, REFERENCES = 300, 5


def program_of(dtype: torch.dtype = torch.float32) -> Program:
    torch.manual_seed(2)
    network = BPNet(n_filters=32, n_layers=3, n_outputs=1).eval()
    return lower(capture(TargetHead(network, parse_targets(["counts"])), (4, LENGTH), dtype=dtype))


def explainer(program: Program, dtype: torch.dtype = torch.float32, batch_size: int = 10) -> DeepLift:
    return DeepLift(program, targets=1, n_references=REFERENCES, batch_size=batch_size, dtype=dtype)


def test_scores_are_near_those_of_float64(random_codes: Any, either_way: str) -> None:
    """Towers of vectors are narrow only where these multiply whole numbers, and those have more digits."""
    least = 1e-4 if either_way != "vectors" else 1e-6 if has_narrow_vectors() else 0
    codes, references = random_codes(1, 6, LENGTH), random_codes(2, 6, REFERENCES, LENGTH)
    (exact,) = explainer(program_of(torch.float64), torch.float64).explain(codes, references)
    (found,) = explainer(with_narrow_products(program_of())).explain(codes, references)
    for one, other in zip(exact.hypothetical, found.hypothetical, strict=True):
        assert least * np.abs(one).max() < np.abs(one - other).max() < 0.006 * np.abs(one).max()
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9999
    assert found.hypothetical.dtype == np.float32


@pytest.mark.parametrize("width", [3, 7, 11])
def test_scores_of_many_channels_are_near_those_of_float64(width: int, random_codes: Any) -> None:
    """Wide kernels and dense layers, and all that the way back may take for them."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv1d(4, 200, 9), nn.ReLU(), nn.Conv1d(200, 224, width), nn.ReLU(),
        nn.Conv1d(224, 64, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * (119 - width), 40), nn.ReLU(), nn.Linear(40, 1),
    )  # fmt: skip
    codes, references = random_codes(1, 2, 128), random_codes(2, 2, REFERENCES, 128)
    exact_program = lower(capture(network.double(), (4, 128), dtype=torch.float64))
    (exact,) = explainer(exact_program, torch.float64).explain(codes, references)
    program = with_narrow_products(lower(capture(network.float(), (4, 128), dtype=torch.float32)))
    (found,) = explainer(program).explain(codes, references)
    for one, other in zip(exact.hypothetical, found.hypothetical, strict=True):
        assert np.abs(one - other).max() < 0.012 * np.abs(one).max()
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("shape", "pieces"),
    [
        ((32, 32, 3), (TWO, ONE)),
        ((16, 16, 1), (TWO, ONE)),
        ((32, 4, 21), (ALL, ALL)),
        ((1, 32, 75), (ALL, ALL)),
        ((64, 8, 3), (ALL, ALL)),
    ],
    ids=str,
)
def test_only_convolutions_of_many_channels_are_narrow(
    shape: tuple[int, ...], pieces: tuple[int, int]
) -> None:
    weight = torch.zeros(shape)
    assert pieces_of(weight, narrow=True) == pieces
    assert pieces_of(weight, narrow=False) == (ALL, ALL)


def test_they_round_multipliers_more_than_values() -> None:
    plain, narrow = Convolution(1), Convolution(1, narrow=True)
    weight, value = torch.randn(32, 64, 3), torch.randn(2, 64, 100)
    call = Call("made", None, (Ref("x"), weight), {}, (Ref("x"),), (ValueInfo((1, 64, 100), BatchAxis()),),
                ValueInfo((1, 32, 98), BatchAxis()), Source("", ""))  # fmt: skip
    exact, rounded = (rule.bound(call, (Ref("x"), weight)) for rule in (plain, narrow))
    assert isinstance(exact, BoundConvolution)
    assert isinstance(rounded, BoundConvolution)
    made = exact.onward(value)
    assert (rounded.onward(value) - made).abs().max() < 1e-4 * made.abs().max()
    expected = exact.back(made)
    assert 1e-3 < (rounded.back(made) - expected).abs().max() / expected.abs().max() < 1e-2


@pytest.mark.gpu
@pytest.mark.parametrize("fuses", [False, True], ids=["as it is", "compiled"])
@pytest.mark.parametrize("moves", [{}, {"stride": 2}, {"groups": 2}], ids=str)
def test_cuda_rounds_as_much(
    moves: dict[str, Any], fuses: bool, random_codes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    device = torch.device("cuda", 0)
    network = nn.Sequential(
        nn.Conv1d(4, 32, 7), nn.ReLU(), nn.Conv1d(32, 32, 3, **moves), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1),
    ).eval()  # fmt: skip
    codes, references = random_codes(7, 2, 60), random_codes(8, 2, REFERENCES, 60)
    program = with_narrow_products(lower(capture(network, (4, 60))))
    moved = replace(program, parameters={name: p.to(device) for name, p in program.parameters.items()})
    wide = lower(capture(network.double(), (4, 60), dtype=torch.float64))
    (exact,) = explainer(wide, torch.float64).explain(codes, references)
    allow_tf32("bfloat16")
    recorder = FusingRecorder(CudaRecorder(device)) if fuses else None
    explaining = DeepLift(
        moved, targets=1, n_references=REFERENCES, batch_size=10, device=device, recorder=recorder
    )
    with caplog.at_level("WARNING"):
        (found,) = explaining.explain(codes, references)
    difference = np.abs(found.hypothetical - exact.hypothetical).max()
    assert 0 < difference < 0.01 * np.abs(exact.hypothetical).max()
    assert not caplog.messages


def test_what_is_predicted_is_hardly_rounded(random_codes: Any) -> None:
    codes, references = random_codes(1, 6, LENGTH), random_codes(2, 6, REFERENCES, LENGTH)
    (exact,) = explainer(program_of(torch.float64), torch.float64).explain(codes, references)
    (found,) = explainer(with_narrow_products(program_of())).explain(codes, references)
    np.testing.assert_allclose(found.prediction, exact.prediction, rtol=1e-3)


def test_transposed_convolutions_stay_as_they_are(random_codes: Any) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.ConvTranspose1d(4, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 1)
    ).eval()
    program = lower(capture(network, (4, LENGTH)))
    codes, references = random_codes(3, 2, LENGTH), random_codes(4, 2, REFERENCES, LENGTH)
    (expected,) = explainer(program).explain(codes, references)
    (found,) = explainer(with_narrow_products(program)).explain(codes, references)
    np.testing.assert_array_equal(expected.hypothetical, found.hypothetical)


@pytest.mark.parametrize("batch_size", [3, 10])
def test_neighbours_and_threads_change_no_bit(batch_size: int, random_codes: Any) -> None:
    codes, references = random_codes(5, 5, LENGTH), random_codes(6, 5, REFERENCES, LENGTH)
    program, before = with_narrow_products(program_of()), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        (together,) = explainer(program, batch_size=batch_size).explain(codes, references)
        torch.set_num_threads(1)
        (alone,) = explainer(program, batch_size=batch_size).explain(codes[3:4], references[3:4])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(together.hypothetical[3], alone.hypothetical[0])


def test_small_values_take_the_plain_path_to_the_same_scores(random_codes: Any) -> None:
    codes, references = random_codes(9, 2, LENGTH), random_codes(10, 2, REFERENCES, LENGTH)
    program = with_narrow_products(program_of())
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
    assert has_maxima(with_narrow_products(lower(capture(network, (4, LENGTH))))) == chooses


@pytest.mark.parametrize(
    ("precision", "convolutions", "products"),
    [("float64", False, False), ("float32", False, False), ("bfloat16", True, False), ("tf32", True, True)],
)
def test_cuda_rounds_what_the_precision_says(precision: str, convolutions: bool, products: bool) -> None:
    backends = torch.backends
    before = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
    try:
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = not convolutions, not products
        allow_tf32(precision)
        assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32) == (convolutions, products)
    finally:
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = before


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
def test_every_other_way_of_explaining_may_have_them(
    method: Method, pooling: nn.Module, random_codes: Any
) -> None:
    torch.manual_seed(6)
    network = nn.Sequential(
        nn.Conv1d(4, 32, 5), nn.ReLU(), nn.Conv1d(32, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), pooling,
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 1),
    ).eval()  # fmt: skip
    codes, references = random_codes(11, 2, LENGTH), random_codes(12, 2, REFERENCES, LENGTH)
    found = []
    for narrow in (with_narrow_products, lambda program: program):
        program = narrow(lower(capture(network, (4, LENGTH))))
        explaining = DeepLift(program, targets=1, n_references=REFERENCES, batch_size=10, method=method)
        found.append(explaining.explain(codes, references)[0].hypothetical)
    rounded, exact = found
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).mean() < 0.005 * np.abs(exact).max()


@pytest.mark.parametrize("moves", [{"stride": 2}, {"groups": 2}, {"padding": 4}], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_any_convolution_may_be_narrow(
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
    (found,) = explainer(with_narrow_products(program)).explain(codes, references)
    difference = np.abs(found.hypothetical - exact.hypothetical).max()
    assert 0 < difference < 0.01 * np.abs(exact.hypothetical).max()
