"""Layers against slow twins in the order of Keras, and settings that few files have."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlgenome.model.keras import activations, shapes, windows
from dlgenome.model.keras.axes import ChannelsFirst, from_keras, to_keras, torch_axis
from dlgenome.model.keras.read import read_keras

WriteKeras = Callable[..., Path]
WINDOWS = list(itertools.product([7, 8, 11], [1, 2, 3, 4, 5], [1, 2, 3, 6]))


def places(size: int, width: int, stride: int, dilation: int = 1) -> list[list[int]]:
    """Positions under each window as TensorFlow pads with "same"; some lie outside."""
    count = (size + stride - 1) // stride
    reach = (width - 1) * dilation + 1
    total = max((count - 1) * stride + reach - size, 0)
    return [
        [start * stride - total // 2 + dilation * step for step in range(width)] for start in range(count)
    ]


@pytest.mark.parametrize(("size", "width", "stride"), WINDOWS)
def test_pools_pad_as_tensorflow_does(size: int, width: int, stride: int) -> None:
    value = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(size)) - 3
    inside = [[place for place in window if 0 <= place < size] for window in places(size, width, stride)]
    largest = torch.stack([value[:, :, window].amax(2) for window in inside], dim=2)
    mean = torch.stack([value[:, :, window].mean(2) for window in inside], dim=2)
    torch.testing.assert_close(windows.MaxPooling((width,), (stride,), "same")(value), largest)
    torch.testing.assert_close(windows.AveragePooling((width,), (stride,), "same")(value), mean)


@pytest.mark.parametrize(
    ("size", "width", "stride", "dilation"),
    [(*window, 1) for window in WINDOWS] + [(*window, 2) for window in WINDOWS if window[2] == 1],
)
def test_convolutions_pad_as_tensorflow_does(size: int, width: int, stride: int, dilation: int) -> None:
    value, kernel = torch.randn(2, 3, size), torch.randn(width, 3, 5)
    columns = []
    for window in places(size, width, stride, dilation):
        taps = [(value[:, :, at] @ kernel[tap]) for tap, at in enumerate(window) if 0 <= at < size]
        columns.append(sum(taps, torch.zeros(2, 5)))
    layer = windows.Convolution(kernel, None, (stride,), (dilation,), "same", 1)
    torch.testing.assert_close(layer(value), torch.stack(columns, dim=2), rtol=1e-4, atol=1e-5)


def test_images_mix_the_two_ways_of_padding() -> None:
    value = torch.randn(2, 3, 8, 9) - 5
    rows = windows.MaxPooling((2, 1), (1, 1), "same")(value)
    both = windows.MaxPooling((2, 4), (1, 3), "same")(value)
    torch.testing.assert_close(both, windows.MaxPooling((1, 4), (1, 3), "same")(rows))


@pytest.mark.parametrize("dims", [2, 3, 4])
def test_keras_axes_are_found_again(dims: int) -> None:
    value = torch.rand(*range(2, 2 + dims))
    held = from_keras(value)
    assert torch.equal(to_keras(held), value)
    for axis in range(-dims, dims):
        assert held.shape[torch_axis(axis, dims)] == value.shape[axis]
    with pytest.raises(ValueError, match="axis 7"):
        torch_axis(7, dims)


def test_layers_with_channels_first_see_the_other_axes() -> None:
    kernel, bias = torch.randn(3, 4, 5), torch.randn(5)
    layer = windows.Convolution(kernel, bias, (1,), (1,), "valid", 1)
    in_keras = torch.randn(2, 4, 9)  # (batch, channels, positions) in Keras's own order
    found = to_keras(ChannelsFirst(layer)(from_keras(in_keras)))
    torch.testing.assert_close(found, layer(in_keras))
    flat = shapes.Flatten(channels_first=True)(from_keras(in_keras))
    assert torch.equal(flat, in_keras.transpose(1, 2).flatten(1))


@pytest.mark.parametrize(
    ("layer", "twin"),
    [
        (activations.ReLU(None, 0.0, 0.0), lambda x: max(x, 0.0)),
        (activations.ReLU(0.5, 0.0, 0.0), lambda x: min(max(x, 0.0), 0.5)),
        (activations.ReLU(0.9, 0.1, 0.3), lambda x: min(x, 0.9) if x > 0.3 else 0.1 * (x - 0.3)),
        (activations.LeakyReLU(0.2), lambda x: x if x > 0 else 0.2 * x),
        (activations.ELU(0.5), lambda x: x if x > 0 else 0.5 * np.expm1(x)),
        (activations.PReLU(torch.tensor([-0.3])), lambda x: x if x > 0 else -0.3 * x),
        (activations.Activation("hard_sigmoid", 2), lambda x: min(max(0.2 * x + 0.5, 0), 1)),
        (activations.Activation("hard_sigmoid", 3), lambda x: min(max(x / 6 + 0.5, 0), 1)),
    ],
)
def test_activations_match_their_formulas(layer: Any, twin: Callable[[float], float]) -> None:
    values = torch.linspace(-4, 4, 83).reshape(83, 1)
    expected = [[twin(float(value))] for value in values[:, 0]]
    torch.testing.assert_close(layer(values), torch.tensor(expected, dtype=torch.float32))


def one_convolution(shape: list[Any], **settings: Any) -> list[Any]:
    return [
        ("InputLayer", "in", [], {"batch_input_shape": [None, *shape]}),
        ("Conv1D", "c", ["in"], settings),
    ]


IMAGES = {(1, 20, 4): (1, 3, 4), (20, 1, 4): (3, 1, 4), (20, 4, 1): (3, 4, 1), (4, 20, 1): (4, 3, 1)}


@pytest.mark.parametrize("shape", IMAGES)
def test_sequences_as_images_are_taken_as_sequences(
    write_keras: WriteKeras, one_hot: Callable[[int, int, int], Tensor], shape: tuple[int, int, int]
) -> None:
    """Basset-like models read a sequence as an image; one kernel, laid out four ways, finds the same."""
    kernel = np.random.default_rng(3).normal(size=(3, 4, 5))
    window = IMAGES[shape]
    order = (1, 0) if window[0] == 4 else (0, 1)
    laid_out = kernel.transpose(*order, 2).reshape(*window[:2], -1, 5)
    path = write_keras(
        [
            ("InputLayer", "in", [], {"batch_input_shape": [None, *shape]}),
            ("Conv2D", "c", ["in"], {"activation": "relu"}),
            ("GlobalMaxPooling2D", "top", ["c"], {}),
        ],
        {"c": {"kernel": laid_out, "bias": np.zeros(5)}},
    )
    found, sequences = read_keras(path), one_hot(1, 3, 20)
    weight = torch.from_numpy(kernel.transpose(2, 1, 0).astype(np.float32))
    expected = torch.conv1d(sequences, weight).relu().amax(2)
    assert found.input_length == 20
    torch.testing.assert_close(found.module(sequences), expected)


def test_activations_may_be_written_as_layers(write_keras: WriteKeras) -> None:
    kernel = {"c": {"kernel": (3, 4, 5), "bias": (5,)}}
    leaky = {"class_name": "LeakyReLU", "config": {"alpha": 0.1}}
    function = {"class_name": "function", "config": "relu"}
    sequences = torch.randn(2, 4, 9)
    plain = read_keras(write_keras(one_convolution([9, 4]), kernel)).module(sequences)
    for activation, slope in ((leaky, 0.1), (function, 0.0)):
        path = write_keras(one_convolution([9, 4], activation=activation), kernel)
        expected = torch.nn.functional.leaky_relu(plain, slope)
        torch.testing.assert_close(read_keras(path).module(sequences), expected)


def test_names_that_torch_uses_itself_are_allowed(write_keras: WriteKeras) -> None:
    layers = [
        ("InputLayer", "in", [], {"batch_input_shape": [None, 9, 4]}),
        ("Conv1D", "forward", ["in"], {"activation": "relu"}),
        ("Flatten", "train", ["forward"], {}),
        ("Dense", "a.b/c", ["train"], {}),
    ]
    kernels = {"kernel": (3, 4, 5), "bias": (5,)}
    path = write_keras(layers, {"forward": kernels, "a.b/c": {"kernel": (35, 1), "bias": (1,)}})
    module = read_keras(path).module
    assert [name for name, _ in module.named_children()] == [
        "forward_",
        "forward_activation",
        "train_",
        "a_b_c",
    ]
    assert module(torch.zeros(2, 4, 9)).shape == (2, 1)


def test_lengths_may_be_left_open(write_keras: WriteKeras) -> None:
    path = write_keras(one_convolution([None, 4]), {"c": {"kernel": (3, 4, 5), "bias": (5,)}})
    found = read_keras(path)
    assert found.input_length is None
    assert found.module(torch.zeros(1, 4, 30)).shape == (1, 5, 28)


def test_first_version_of_hard_sigmoid_goes_by_the_file(write_keras: WriteKeras) -> None:
    kernel = {"c": {"kernel": np.zeros((1, 4, 1)), "bias": np.ones(1)}}
    for version, expected in (("2.4.0", 0.7), ("3.1.0", 1 / 6 + 0.5)):
        path = write_keras(one_convolution([2, 4], activation="hard_sigmoid"), kernel, version=version)
        assert read_keras(path).module(torch.zeros(1, 4, 2))[0, 0, 0].item() == pytest.approx(expected)
