"""Every kind of Keras file predicts what Keras itself predicted (see make_files.py) to 1e-4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dlgenome.errors import UsageError
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.outputs import flatten_outputs

KerasFile = Callable[[str], Path]
ByKeras = Callable[[str], tuple[list[Any], list[Any]]]

FILES = sorted(
    path.name.removesuffix(".gz")
    for path in (Path(__file__).parent / "files").glob("*.gz")
    if ".json" not in path.name
)


def predictions(model: LoadedModel, inputs: list[Any]) -> list[Any]:
    """Outputs with the channels last, as Keras has them."""
    first = torch.from_numpy(inputs[0])
    first = first if model.input_length is None else first.transpose(1, 2)
    with torch.no_grad():
        outputs = flatten_outputs(model.module(first, *map(torch.from_numpy, inputs[1:])))
    return [output.movedim(1, -1).numpy() if output.dim() > 2 else output.numpy() for output in outputs]


@pytest.mark.parametrize("name", FILES)
def test_predictions_are_those_of_keras(name: str, keras_file: KerasFile, by_keras: ByKeras) -> None:
    described = f"{name.removesuffix('.weights.h5')}.json" if name.endswith(".weights.h5") else None
    model = load_model(keras_file(name), architecture=described and str(keras_file(described)))
    inputs, expected = by_keras(name)
    found = predictions(model, inputs)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.ptp(theirs, axis=0).max() > 1e-4  # the sequences differ, so equality says something
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("chrombpnet_nobias.keras2.h5", "ChromBPNet without its bias model, from a Keras file"),
        ("chrombpnet_bias.keras2.h5", "bias model of ChromBPNet, from a Keras file"),
        ("chrombpnet.keras2.h5", "ChromBPNet with its bias model, from a Keras file"),
        ("chrombpnet.keras3.keras", "ChromBPNet with its bias model, from a Keras file"),
        ("chrombpnet_lite.keras2.h5", "chrombpnet-lite, from a Keras file"),
        ("atlas.keras2.h5", "BPNet as in the ENCODE atlas, from a Keras file"),
        ("layers.keras2.h5", "a Keras model"),
    ],
)
def test_published_models_are_named_and_have_two_heads(name: str, title: str, keras_file: KerasFile) -> None:
    model = load_model(keras_file(name))
    assert (model.title, model.kind, model.architecture) == (title, "keras", "keras")
    if "Keras file" in title:
        length = 600 if "lite" in name else 2114
        assert (model.outputs, model.input_length) == (("profile", "counts"), length)
        profile, counts = model.module(torch.zeros(3, 4, length))
        width, strands = (600 if "lite" in name else 1000), (2 if "atlas" in name else 1)
        assert profile.shape == (3, strands, width)
        assert counts.shape == (3, 1)


@pytest.mark.parametrize(
    "name", ["chrombpnet_nobias.keras2.h5", "chrombpnet_bias.keras2.h5", "chrombpnet_lite.keras2.h5",
             "atlas.keras2.h5"]
)  # fmt: skip
def test_published_models_need_no_description(
    name: str, keras_file: KerasFile, by_keras: ByKeras, tmp_path: Path
) -> None:
    """The same files as Keras's save_weights leaves them: layers and their names, nothing more."""
    bare = tmp_path / "bare.h5"
    with h5py.File(keras_file(name)) as whole, h5py.File(bare, "w") as stream:
        for layer in whole["model_weights"]:
            whole.copy(f"model_weights/{layer}", stream)
        stream.attrs["layer_names"] = whole["model_weights"].attrs["layer_names"]
    sizes = {"input_length": 600} if "lite" in name else None
    model = load_model(bare, architecture_args=sizes)
    inputs, expected = by_keras(name)
    for ours, theirs in zip(predictions(model, inputs), expected, strict=True):
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=0, atol=1e-4)
    with pytest.raises(UsageError, match="Keras weights take input_length and output_length, not filters"):
        load_model(bare, architecture_args={"filters": 3})


def test_controls_are_zeros_unless_given(keras_file: KerasFile, by_keras: ByKeras) -> None:
    model = load_model(keras_file("atlas.keras2.h5"))
    inputs, _ = by_keras("atlas.keras2.h5")
    bases = torch.from_numpy(inputs[0]).transpose(1, 2)
    without = model.module(bases)
    nothing = model.module(bases, torch.zeros(2, 1000, 2), torch.zeros(2, 2))
    for first, second in zip(without, nothing, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert any("zeros unless given with --extra-input" in note for note in model.notes)


def test_log_counts_of_the_controls_follow_from_their_profile(keras_file: KerasFile) -> None:
    """The count head sees log(sum + 2): log(sum + 1) of either strand, added in count space."""
    model = load_model(keras_file("atlas.keras2.h5"))
    bases, controls = torch.zeros(2, 4, 2114), torch.rand(2, 1000, 2)
    profile, counts = model.module(bases, controls)
    totals = controls.sum(dim=1)
    by_hand = model.module(bases, controls, torch.log(totals + 1))
    torch.testing.assert_close(profile, by_hand[0])
    torch.testing.assert_close(counts, by_hand[1])
    weight = model.module.state_dict()["logcounts_predictions.weight"][0, 1]
    rise = weight * (torch.log(totals.sum(dim=1) + 2) - np.log(2))
    torch.testing.assert_close(counts - model.module(bases)[1], rise.unsqueeze(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"profile_bias_input_0 takes \(1000, 2\), not \(2, 1000\)"):
        model.module(bases, torch.zeros(2, 2, 1000))
    with pytest.raises(ValueError, match="3 extra inputs for a model that takes 2"):
        model.module(bases, controls, totals, totals)


def test_what_is_left_off_at_the_end_is_said(keras_file: KerasFile) -> None:
    assert load_model(keras_file("layers.keras2.h5")).notes == (
        "output dense_3: the logits, without the sigmoid at the end",
    )
    (note,) = load_model(keras_file("chrombpnet.keras2.h5")).notes
    assert note == "Lambda layer logcount_predictions: taken as the log of summed counts; its code is not run"
