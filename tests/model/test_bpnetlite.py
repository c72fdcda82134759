"""bpnet-lite's whole-module files are rebuilt from their state, with bpnet-lite neither there nor run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UsageError
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.architectures.chrombpnet import ChromBPNet
from dlgenome.model.checkpoint import load_model


@pytest.mark.parametrize("wrapped", [True, False])
def test_pickled_bpnet_is_rebuilt_from_its_weights(
    tmp_path: Path, bpnetlite: Callable[[], Any], one_hot: Callable[..., Tensor], wrapped: bool
) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        saved = classes["BPNet"](6, 3, 2, 2)
        wrapper = classes["ControlWrapper"](saved) if wrapped else saved
        torch.save(wrapper, path)
    assert "bpnetlite" not in sys.modules
    loaded = load_model(path)
    expected = BPNet(n_filters=6, n_layers=3, n_outputs=2, n_control_tracks=2)
    expected.load_state_dict(saved.state_dict())
    sequences = one_hot(1, 2, 300)
    for found, due in zip(loaded.module(sequences), expected(sequences), strict=True):
        torch.testing.assert_close(found, due, rtol=0, atol=0)
    assert loaded.kind == "bpnet-lite"
    assert loaded.arguments["trimming"] == 61
    assert loaded.n_parameters == sum(parameter.numel() for parameter in saved.parameters())
    assert loaded.notes[0] == "2 control tracks: taken as zeros"
    assert "bpnetlite" not in sys.modules


def test_pickled_chrombpnet_is_rebuilt_with_wrapped_parts(
    tmp_path: Path, bpnetlite: Callable[[], Any], one_hot: Callable[..., Tensor]
) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        bias, accessibility = classes["BPNet"](4, 2, 1, 0), classes["BPNet"](6, 3, 1, 0)
        torch.save(classes["ChromBPNet"](classes["ControlWrapper"](bias), accessibility), path)
    loaded = load_model(path)
    expected = ChromBPNet(bias={"n_filters": 4, "n_layers": 2}, accessibility={"n_filters": 6, "n_layers": 3})
    expected.bias.load_state_dict(bias.state_dict())
    expected.accessibility.load_state_dict(accessibility.state_dict())
    sequences = one_hot(1, 2, 300)
    for found, due in zip(loaded.module(sequences), expected(sequences), strict=True):
        torch.testing.assert_close(found, due, rtol=0, atol=0)
    assert (loaded.architecture, loaded.kind) == ("chrombpnet", "bpnet-lite")


def test_settings_that_shapes_do_not_show_must_be_those_of_bpnet(
    tmp_path: Path, bpnetlite: Callable[[], Any]
) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        saved = classes["BPNet"](4, 2, 1, 0)
        saved.rconvs[1].dilation = (8,)
        torch.save(saved, path)
    with pytest.raises(InputError, match=r"layer rconvs\.1 has dilation \(8,\) where BPNet has \(4,\)"):
        load_model(path)


def test_other_activations_are_not_taken_for_relu(tmp_path: Path, bpnetlite: Callable[[], Any]) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        saved = classes["BPNet"](4, 2, 1, 0)
        saved.irelu = nn.GELU()
        torch.save(saved, path)
    with pytest.raises(InputError, match="layer irelu is a GELU where BPNet has a ReLU"):
        load_model(path)


def test_architecture_flag_must_not_contradict_the_file(tmp_path: Path, bpnetlite: Callable[[], Any]) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        torch.save(classes["BPNet"](4, 2, 1, 0), path)
    assert load_model(path, architecture="bpnet").architecture == "bpnet"
    with pytest.raises(UsageError, match="says that it is a bpnet"):
        load_model(path, architecture="basset")
    with pytest.raises(UsageError, match="is of type bpnet-lite"):
        load_model(path, model_type="safetensors")


def test_whole_modules_from_before_zip_files_are_refused_in_words(
    tmp_path: Path, bpnetlite: Callable[[], Any]
) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        torch.save(classes["BPNet"](4, 2, 1, 0), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"would import bpnetlite\.bpnet\.BPNet, .*save its state_dict"):
        load_model(path)
