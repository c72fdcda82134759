"""Convolutions in bfloat16: near the scores of float64, and as indifferent to their neighbours as any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.narrow import NarrowConvolution, with_narrow_convolutions
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.targets import TargetHead, parse_targets

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
    engine = explainer(program).engine
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
