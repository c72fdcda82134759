"""BasePairNet against numbers of bpnet-lite 1.1.0, made as those of test_bpnet are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.model.architectures.basepairnet import BasePairNet
from dlgenome.model.checkpoint import load_model

BASEPAIRNET: dict[str, dict[str, Any]] = {
    "given": {
        "log_counts": [0.406589, 0.438923],
        "profile": [0.158678, -4.353182, -6.314426, 0.324929, -6.496302, -2.808128],
        "profile_sum": -2860.3752,
    },
    "zero": {
        "log_counts": [-0.458275, -0.459023],
        "profile": [-0.930355, -4.064524, -5.918632, 0.096568, -6.250612, -3.737966],
        "profile_sum": -2935.1801,
    },
}
"""Printed by the BasePairNet of bpnet-lite 1.1.0 for the same seeded weights, sequences and controls."""


@pytest.mark.parametrize("controls", ["given", "zero", "none"])
def test_basepairnet_predicts_what_bpnet_lite_predicts(
    one_hot: Callable[..., Tensor], fill: Callable[[nn.Module, int], nn.Module], controls: str
) -> None:
    module = fill(BasePairNet(n_filters=6, n_layers=3, n_outputs=2, n_control_tracks=2), 1)
    given = torch.from_numpy(np.random.default_rng(22).poisson(0.3, size=(2, 2, 400)).astype(np.float32))
    tracks = {"given": given, "zero": torch.zeros(2, 2, 400), "none": None}[controls]
    with torch.no_grad():
        profile, log_counts = module(one_hot(21, 2, 400), tracks)
    expected = BASEPAIRNET["zero" if controls == "none" else controls]
    np.testing.assert_allclose(log_counts[:, 0], expected["log_counts"], atol=2e-5)
    spots = profile[:, 0, :: profile.shape[2] // 3][:, :3].flatten()
    np.testing.assert_allclose(spots, expected["profile"], atol=2e-5)
    assert float(profile.double().sum()) == pytest.approx(expected["profile_sum"], rel=1e-5)


def test_weights_of_a_bpnet_say_that_they_may_be_a_basepairnet(tmp_path: Path) -> None:
    torch.save(BasePairNet(n_filters=4, n_layers=2).state_dict(), tmp_path / "model.pt")
    assert any("--architecture basepairnet" in note for note in load_model(tmp_path / "model.pt").notes)
    named = load_model(tmp_path / "model.pt", architecture="basepairnet")
    assert isinstance(named.module, BasePairNet)
    assert not any("--architecture" in note for note in named.notes)
