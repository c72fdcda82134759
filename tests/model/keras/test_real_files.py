"""Published Keras files predict what TensorFlow does with them; test_full_size.py has that of ChromBPNet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.errors import InputError, UnsupportedModelError, UsageError
from dlgenome.model.checkpoint import load_model

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def shared() -> Path:
    folder = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[3].parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the published files are not here ({folder})")
    return folder


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
