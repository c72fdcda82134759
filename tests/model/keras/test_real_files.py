"""Published Keras files predict what TensorFlow predicts with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.errors import InputError, UnsupportedModelError, UsageError
from dlgenome.model.checkpoint import load_model
from dlgenome.model.outputs import flatten_outputs

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def shared() -> Path:
    folder = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[3].parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the published files are not here ({folder})")
    return folder


# TensorFlow 2.15.1, Keras 2.15.0, model(x, training=False) on codes default_rng(23).integers(0, 4, (3, 2114))
BIAS_COUNTS = [4.129818916, 4.006401539, 3.948151112]
BIAS_PROFILE = [
    [33.937568665, 32.751033783, 30.952753067, 33.439495087],
    [35.828781128, 31.822303772, 32.181285858, 31.640882492],
    [32.543411255, 32.254535675, 34.501438141, 34.298370361],
]
"""Logits at positions 0, 250, 499 and 999."""


def test_bias_model_predicts_what_tensorflow_does(shared: Path) -> None:
    model = load_model(shared / "data/models/chrombpnet_GM12878_bias.h5")
    codes = np.random.default_rng(23).integers(0, 4, size=(3, 2114))
    sequences = torch.from_numpy(np.eye(4, dtype=np.float32)[codes].transpose(0, 2, 1).copy())
    profile, counts = flatten_outputs(model.module(sequences))
    assert profile.shape == (3, 1, 1000)
    np.testing.assert_allclose(counts[:, 0].numpy(), BIAS_COUNTS, rtol=0, atol=1e-5)
    np.testing.assert_allclose(profile[:, 0, [0, 250, 499, 999]].numpy(), BIAS_PROFILE, rtol=1e-5)
    assert (model.input_length, model.outputs, model.n_parameters) == (2114, ("profile", "counts"), 217730)


def difference(found: torch.Tensor, expected: Any) -> float:
    """Largest difference, relative to the largest number."""
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


def test_tal_gata_model_predicts_the_logits_of_the_original_program(shared: Path) -> None:
    stem = shared / "data/paper/keras2_conv1d_record_5_model_PQzyq_model"
    with np.load(shared / "golden/talgata.npz") as stored:
        sequences, expected = stored["input_onehot"].astype(np.float32), stored["logits_input"]
    model = load_model(Path(f"{stem}Weights.h5"), architecture=f"{stem}Json.json")
    assert model.input_length == 200
    assert difference(model.module(torch.from_numpy(sequences).transpose(1, 2)), expected) < 1e-5
    with pytest.raises(UsageError, match=r"give the model's JSON .* with --architecture FILE\.json"):
        load_model(Path(f"{stem}Weights.h5"))


def test_mnist_model_predicts_the_logits_of_the_original_program(shared: Path) -> None:
    with np.load(shared / "golden/mnist.npz") as stored:
        images, expected = stored["input"].astype(np.float32), stored["logits_input"]
    model = load_model(shared / "data/paper/keras2_mnist_cnn_allconv.h5")
    assert model.input_length is None
    assert model.notes == ("output activation_4: the logits, without the softmax at the end",)
    assert difference(model.module(torch.from_numpy(images)), expected) < 1e-5


@pytest.mark.parametrize("name", ["A_maxbn", "B_avgprelu", "C_conv2d"])
def test_small_models_predict_the_logits_of_the_original_program(shared: Path, name: str) -> None:
    with np.load(shared / "golden/small_models.npz") as stored:
        inputs, expected = stored[f"{name}/input0"].astype(np.float32), stored[f"{name}/logits_input"]
    model = load_model(shared / f"golden/keras_small_{name}.h5")
    values = torch.from_numpy(inputs)
    values = values if model.input_length is None else values.transpose(1, 2)
    assert difference(model.module(values), expected) < 1e-5


def test_stored_code_and_foreign_layers_are_refused_by_name(shared: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(shared / "data/models/Spi1ProfileModel_rc.h5")
    message = str(caught.value)
    named = [f"rev_comp_conv1d_{number}" for number in range(1, 10)]
    named += [f"lambda_{number}" for number in range(1, 24)] + ["task0_profile"]
    assert all(name in message for name in named)
    assert "RevCompConv1D: " in message
    assert "stored code that is never run: lambda_" in message


def test_hdf5_files_of_scores_are_not_taken_for_models(shared: Path) -> None:
    with pytest.raises(InputError, match="is an HDF5 file without the weights of a Keras model"):
        load_model(shared / "data/modisco/chrombpnet_style_gkm_H1.h5")
