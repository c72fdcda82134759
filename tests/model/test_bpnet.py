"""BPNet and ChromBPNet against numbers of bpnet-lite 1.1.0.

The expected values were printed by bpnet-lite 1.1.0 (torch 2.13, CPU, float32) for the sequences and the
weights that the fixtures `one_hot` and `fill` make, with controls of zeros from its ControlWrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.architectures.chrombpnet import ChromBPNet
from dlgenome.model.checkpoint import load_model

REAL: dict[str, dict[str, Any]] = {
    "bpnetlite_CTCF_K562_ENCSR000AKO.torch": {
        "log_counts": [3.867837, 3.9079, 4.175731],
        "profile": [
            *(-2.605282, -1.951774, -2.666404, -2.183315, -3.572711),
            *(-3.174505, -1.954313, -1.418009, -2.774275),
        ],
        "profile_sum": -12686.094,
    },
    "GATA2.torch": {
        "log_counts": [0.716895, 0.379471, 1.523891],
        "profile": [
            0.068663,
            0.24128,
            0.464873,
            -0.544446,
            0.143877,
            0.417846,
            -0.591147,
            -0.136645,
            2.264195,
        ],
        "profile_sum": 1426.3509,
    },
}
REAL["bpnetlite_CTCF_K562_state_dict.pt"] = REAL["bpnetlite_CTCF_K562_ENCSR000AKO.torch"]
REAL["GATA2_state_dict.pt"] = REAL["GATA2.torch"]

CONTROLS_GIVEN = {
    "log_counts": [0.261256, 0.269245],
    "profile": [-5.201681, -7.419553, -6.763533, -4.172771, -2.865041, -4.124897],
    "profile_sum": -4308.2806,
}
CONTROLS_ZERO = {
    "log_counts": [-0.721037, -0.736328],
    "profile": [-4.554244, -5.964049, -7.043095, -2.164238, -3.850312, -3.108176],
    "profile_sum": -4357.8522,
}
CHROMBPNET = {
    "log_counts": [0.611054, 0.619361],
    "profile": [-2.213954, -1.481215, -2.57807, -1.956524, -0.132116, -4.88167],
    "profile_sum": -1489.9483,
}


def _assert_predicts(outputs: tuple[Tensor, Tensor], expected: dict[str, Any]) -> None:
    profile, log_counts = outputs
    assert log_counts.shape == (profile.shape[0], 1)
    np.testing.assert_allclose(log_counts[:, 0], expected["log_counts"], atol=2e-5)
    spots = profile[:, 0, :: profile.shape[2] // 3][:, :3].flatten()
    np.testing.assert_allclose(spots, expected["profile"], atol=2e-5)
    assert float(profile.double().sum()) == pytest.approx(expected["profile_sum"], rel=1e-5)


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_checkpoints_predict_what_bpnet_lite_predicts(
    models: Path, one_hot: Callable[..., Tensor], name: str
) -> None:
    loaded = load_model(models / name)
    assert (loaded.architecture, loaded.input_length, loaded.outputs) == (
        "bpnet",
        2114,
        ("profile", "counts"),
    )
    assert loaded.kind == ("bpnet-lite" if name.endswith(".torch") else "state-dict")
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert any("2 control tracks" in note for note in loaded.notes) == name.startswith("GATA2")
    _assert_predicts(loaded.module(one_hot(20, 3, 2114)), REAL[name])


def test_control_tracks_enter_as_in_bpnet_lite(
    one_hot: Callable[..., Tensor], fill: Callable[[nn.Module, int], nn.Module]
) -> None:
    module = fill(BPNet(n_filters=6, n_layers=3, n_outputs=2, n_control_tracks=2), 1)
    sequences = one_hot(21, 2, 400)
    controls = torch.from_numpy(np.random.default_rng(22).poisson(0.3, size=(2, 2, 400)).astype(np.float32))
    with torch.no_grad():
        _assert_predicts(module(sequences, controls), CONTROLS_GIVEN)
        _assert_predicts(module(sequences), CONTROLS_ZERO)
        _assert_predicts(module(sequences, torch.zeros(2, 2, 400)), CONTROLS_ZERO)


def test_chrombpnet_adds_profiles_and_counts_of_both_parts(
    one_hot: Callable[..., Tensor], fill: Callable[[nn.Module, int], nn.Module]
) -> None:
    bias = {"n_filters": 5, "n_layers": 2}
    module = fill(ChromBPNet(bias=bias, accessibility={"n_filters": 6, "n_layers": 3}), 2)
    with torch.no_grad():
        _assert_predicts(module(one_hot(21, 2, 400)), CHROMBPNET)


@pytest.mark.parametrize("n_control_tracks", [0, 2])
def test_counts_do_not_depend_on_the_profile_head(
    one_hot: Callable[..., Tensor], n_control_tracks: int
) -> None:
    module = BPNet(n_filters=4, n_layers=2, n_control_tracks=n_control_tracks)
    _, log_counts = module(one_hot(1, 2, 200))
    head = [module.fconv.weight, module.linear.weight]
    in_profile, in_counts = torch.autograd.grad(log_counts.sum(), head, allow_unused=True)
    assert in_profile is None
    assert in_counts is not None


@pytest.mark.parametrize("n_control_tracks", [0, 2])
def test_forward_exports_with_a_symbolic_batch(one_hot: Callable[..., Tensor], n_control_tracks: int) -> None:
    module = BPNet(n_filters=4, n_layers=2, n_control_tracks=n_control_tracks).eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    program = torch.export.export(module, (one_hot(1, 2, 200),), dynamic_shapes=shapes)
    for count in (1, 5):
        sequences = one_hot(2, count, 200)
        torch.testing.assert_close(program.module()(sequences), module(sequences))
