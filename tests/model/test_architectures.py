"""Published architectures: recognised by their weights, and predicting what a plain restatement does.

The restatements follow the published code layer by layer, with the published names of the weights, on seeded
weights of a small size. No released file was at hand; the sizes and names are those of the releases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dlgenome.errors import UsageError
from dlgenome.model.architectures.registry import ARCHITECTURES, recognise
from dlgenome.model.checkpoint import load_model
from dlgenome.model.inputs import InputForm, adapt

Weights = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


def drawn(shapes: Shapes, seed: int = 5) -> Weights:
    """Seeded weights; variances are positive."""
    rng = np.random.default_rng(seed)
    made = {key: rng.normal(0, 0.2, shape).astype(np.float32) for key, shape in sorted(shapes.items())}
    return {
        key: torch.from_numpy(np.abs(value) + 0.5 if key.endswith("running_var") else value)
        for key, value in made.items()
    }


def layer(path: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}.weight": shape, f"{path}.bias": shape[:1]}


def normalisation(path: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}.{leaf}": (size,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def convolve2(weights: Weights, path: str, values: Tensor) -> Tensor:
    return F.conv2d(values, weights[f"{path}.weight"], weights[f"{path}.bias"])


def dense(weights: Weights, path: str, values: Tensor) -> Tensor:
    return F.linear(values, weights[f"{path}.weight"], weights[f"{path}.bias"])


def normalise(weights: Weights, path: str, values: Tensor) -> Tensor:
    mean, variance = weights[f"{path}.running_mean"], weights[f"{path}.running_var"]
    return F.batch_norm(values, mean, variance, weights[f"{path}.weight"], weights[f"{path}.bias"], eps=1e-5)


def basset_shapes(
    filters: tuple[int, ...], kernels: tuple[int, ...], width: int, hidden: int, outputs: int
) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 4
    for index, (size, kernel) in enumerate(zip(filters, kernels, strict=True)):
        shapes |= layer(f"{4 * index}", size, channels, kernel, 1) | normalisation(f"{4 * index + 1}", size)
        channels = size
    shapes |= layer("13.1", hidden, width) | normalisation("14", hidden)
    shapes |= layer("17.1", hidden, hidden) | normalisation("18", hidden)
    return shapes | layer("21.1", outputs, hidden)


def basset(weights: Weights, sequences: Tensor) -> Tensor:
    """As released for Kipoi: (batch, 4, length, 1), convolutions of width 1, sigmoid at the end."""
    values = sequences.unsqueeze(3)
    for start, pool in ((0, 3), (4, 4), (8, 4)):
        values = normalise(weights, f"{start + 1}", convolve2(weights, f"{start}", values))
        values = F.max_pool2d(torch.relu(values), (pool, 1))
    values = values.reshape(len(values), -1)
    for linear, norm in (("13.1", "14"), ("17.1", "18")):
        values = torch.relu(normalise(weights, norm, dense(weights, linear, values)))
    return torch.sigmoid(dense(weights, "21.1", values))


def deepsea_shapes(filters: tuple[int, ...], width: int, hidden: int, outputs: int) -> Shapes:
    first, second, third = filters
    return (
        layer("0", first, 4, 1, 8)
        | layer("4", second, first, 1, 8)
        | layer("8", third, second, 1, 8)
        | layer("12.1", hidden, width)
        | layer("14.1", outputs, hidden)
    )


def deepsea(weights: Weights, sequences: Tensor) -> Tensor:
    """As released for Kipoi: (batch, AGCT, 1, length), a threshold of 0 to 0.000001, sigmoid at the end."""
    values = sequences[:, [0, 2, 1, 3]].unsqueeze(2)
    for path in ("0", "4"):
        values = F.max_pool2d(F.threshold(convolve2(weights, path, values), 0, 1e-6), (1, 4))
    values = F.threshold(convolve2(weights, "8", values), 0, 1e-6).reshape(len(values), -1)
    return torch.sigmoid(dense(weights, "14.1", F.threshold(dense(weights, "12.1", values), 0, 1e-6)))


def beluga_shapes(filters: tuple[int, ...], width: int, hidden: int, outputs: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 4
    for size, numbers in zip(filters, ((0, 2), (6, 8), (12, 14)), strict=True):
        for number in numbers:
            shapes |= layer(f"model.0.{number}", size, channels, 1, 8)
            channels = size
    return shapes | layer("model.1.2.1", hidden, width) | layer("model.1.4.1", outputs, hidden)


def beluga(weights: Weights, sequences: Tensor) -> Tensor:
    """As released with ExPecto: (batch, AGCT, 1, length), sigmoid at the end."""
    values = sequences[:, [0, 2, 1, 3]].unsqueeze(2)
    for numbers, pooled in (((0, 2), True), ((6, 8), True), ((12, 14), False)):
        for number in numbers:
            values = torch.relu(convolve2(weights, f"model.0.{number}", values))
        values = F.max_pool2d(values, (1, 4)) if pooled else values
    hidden = torch.relu(dense(weights, "model.1.2.1", values.reshape(len(values), -1)))
    return torch.sigmoid(dense(weights, "model.1.4.1", hidden))


def danq_shapes(filters: int, recurrent: int, width: int, hidden: int, outputs: int) -> Shapes:
    shapes = dict(layer("conv_pool_drop_1.0", filters, 4, 26))
    for end in ("", "_reverse"):
        shapes[f"bdlstm.weight_ih_l0{end}"] = (4 * recurrent, filters)
        shapes[f"bdlstm.weight_hh_l0{end}"] = (4 * recurrent, recurrent)
        shapes |= {f"bdlstm.bias_{kind}_l0{end}": (4 * recurrent,) for kind in ("ih", "hh")}
    return shapes | layer("dense_1.0", hidden, width) | layer("dense_2.0", outputs, hidden)


def _read_one_way(weights: Weights, values: Tensor, end: str) -> Tensor:
    """An LSTM step by step, in the order input, forget, cell, output gate."""
    size = weights["bdlstm.weight_hh_l0"].shape[1]
    state, cell = torch.zeros(len(values), size), torch.zeros(len(values), size)
    states = []
    for step in values.unbind(1):
        gates = sum(
            F.linear(value, weights[f"bdlstm.weight_{kind}_l0{end}"], weights[f"bdlstm.bias_{kind}_l0{end}"])
            for kind, value in (("ih", step), ("hh", state))
        )
        assert isinstance(gates, Tensor)
        into, forget, new, out = gates.chunk(4, dim=1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        state = torch.sigmoid(out) * torch.tanh(cell)
        states.append(state)
    return torch.stack(states, dim=1)


def danq(weights: Weights, sequences: Tensor) -> Tensor:
    path = "conv_pool_drop_1.0"
    values = torch.relu(F.conv1d(sequences, weights[f"{path}.weight"], weights[f"{path}.bias"]))
    values = F.max_pool1d(values, 13).transpose(1, 2)
    there = _read_one_way(weights, values, "")
    back = _read_one_way(weights, values.flip(1), "_reverse").flip(1)
    values = torch.cat([there, back], dim=2).reshape(len(values), -1)
    return torch.sigmoid(dense(weights, "dense_2.0", torch.relu(dense(weights, "dense_1.0", values))))


def deepstarr_shapes(filters: tuple[int, ...], width: int, hidden: int, outputs: int) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 4
    for number, (size, kernel) in enumerate(zip(filters, (7, 3, 5, 3), strict=True), start=1):
        shapes |= {f"conv{number}_filters": (size, channels, kernel)}
        shapes |= normalisation(f"batchnorm{number}", size)
        channels = size
    shapes |= layer("fc5", hidden, width) | normalisation("batchnorm5", hidden)
    shapes |= layer("fc6", hidden, hidden) | normalisation("batchnorm6", hidden)
    return shapes | layer("fc7", outputs, hidden)


def deepstarr(weights: Weights, sequences: Tensor) -> Tensor:
    values = sequences
    for number in range(1, 5):
        values = F.conv1d(values, weights[f"conv{number}_filters"], padding="same")
        values = F.max_pool1d(torch.relu(normalise(weights, f"batchnorm{number}", values)), 2)
    values = values.reshape(len(values), -1)
    for number in (5, 6):
        values = torch.relu(normalise(weights, f"batchnorm{number}", dense(weights, f"fc{number}", values)))
    return dense(weights, "fc7", values)


PANGOLIN_KERNELS = (11,) * 8 + (21,) * 4 + (41,) * 4
PANGOLIN_DILATIONS = (1,) * 4 + (4,) * 4 + (10,) * 4 + (25,) * 4


def pangolin_shapes(size: int, kernels: tuple[int, ...]) -> Shapes:
    shapes = dict(layer("conv1", size, 4, 1) | layer("skip", size, size, 1))
    for index, kernel in enumerate(kernels):
        for half in (1, 2):
            shapes |= normalisation(f"resblocks.{index}.bn{half}", size)
            shapes |= layer(f"resblocks.{index}.conv{half}", size, size, kernel)
    for index in range((len(kernels) + 3) // 4):
        shapes |= layer(f"convs.{index}", size, size, 1)
    for number in range(1, 9):
        shapes |= layer(f"conv_last{number}", 2 - (number + 1) % 2, size, 1)
    return shapes


def pangolin(
    weights: Weights, sequences: Tensor, kernels: tuple[int, ...], dilations: tuple[int, ...]
) -> Tensor:
    def convolve(path: str, values: Tensor, dilation: int = 1) -> Tensor:
        weight = weights[f"{path}.weight"]
        return F.conv1d(values, weight, weights[f"{path}.bias"], padding="same", dilation=dilation)

    values = convolve("conv1", sequences)
    total = convolve("skip", values)
    for index, dilation in enumerate(dilations):
        inner = values
        for half in (1, 2):
            path = f"resblocks.{index}"
            inner = torch.relu(normalise(weights, f"{path}.bn{half}", inner))
            inner = convolve(f"{path}.conv{half}", inner, dilation)
        values = values + inner
        if (index + 1) % 4 == 0 or index + 1 == len(kernels):
            total = total + convolve(f"convs.{index // 4}", values)
    context = 2 * sum(d * (k - 1) for k, d in zip(kernels, dilations, strict=True))
    total = F.pad(total, (-context // 2, -context // 2))
    heads = [convolve(f"conv_last{number}", total) for number in range(1, 9)]
    return torch.cat(
        [torch.softmax(head, 1) if head.shape[1] == 2 else torch.sigmoid(head) for head in heads], dim=1
    )


SMALL: dict[str, tuple[Shapes, Callable[[Weights, Tensor], Tensor], dict[str, Any]]] = {
    "basset": (basset_shapes((6, 5, 4), (19, 11, 7), 8, 9, 3), basset, {"input_length": 260}),
    "deepsea": (deepsea_shapes((6, 5, 4), 4 * 3, 9, 3), deepsea, {"input_length": 200}),
    "beluga": (beluga_shapes((6, 5, 4), 12, 9, 3), beluga, {"input_length": 350}),
    "danq": (danq_shapes(6, 5, 13 * 10, 9, 3), danq, {"input_length": 200}),
}


@pytest.mark.parametrize("name", SMALL)
def test_classifiers_predict_what_the_published_code_does(
    name: str, tmp_path: Path, one_hot: Callable[..., Tensor]
) -> None:
    shapes, restated, arguments = SMALL[name]
    length = arguments["input_length"]
    weights = drawn(shapes)
    torch.save(weights, tmp_path / "model.pth")
    loaded = load_model(
        tmp_path / "model.pth", architecture=name, architecture_args=arguments | {"probabilities": True}
    )
    sequences = one_hot(6, 3, length)
    found = adapt(loaded, InputForm(), length).module(sequences)
    expected = restated(weights, sequences)
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    logits = load_model(tmp_path / "model.pth", architecture=name, architecture_args=arguments)
    torch.testing.assert_close(
        torch.sigmoid(adapt(logits, InputForm(), length).module(sequences)), expected, rtol=1e-5, atol=1e-6
    )


def test_deepstarr_predicts_what_its_pytorch_version_does(
    tmp_path: Path, one_hot: Callable[..., Tensor]
) -> None:
    weights = drawn(deepstarr_shapes((8, 6, 5, 4), 4 * 15, 9, 2))
    torch.save(weights, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth")
    assert (loaded.architecture, loaded.input_length) == ("deepstarr", 249)
    sequences = one_hot(6, 3, 249)
    torch.testing.assert_close(loaded.module(sequences), deepstarr(weights, sequences), rtol=1e-5, atol=1e-5)


def test_pangolin_predicts_what_the_published_code_does(
    tmp_path: Path, one_hot: Callable[..., Tensor]
) -> None:
    kernels, dilations = (11, 11, 11, 11, 21), (1, 1, 1, 4, 10)
    weights = drawn(pangolin_shapes(6, kernels))
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(UsageError, match="dilations leave no trace"):
        load_model(tmp_path / "model.pth", architecture="pangolin")
    arguments = {"dilations": list(dilations), "input_length": 700, "probabilities": True}
    loaded = load_model(tmp_path / "model.pth", architecture="pangolin", architecture_args=arguments)
    sequences = one_hot(6, 2, 700)
    expected = pangolin(weights, sequences, kernels, dilations)
    assert expected.shape == (2, 12, 700 - 2 * (10 + 10 + 10 + 40 + 200))
    torch.testing.assert_close(loaded.module(sequences), expected, rtol=1e-5, atol=1e-6)


RELEASED: dict[str, Shapes] = {
    "basset": basset_shapes((300, 200, 200), (19, 11, 7), 2000, 1000, 164),
    "deepsea": deepsea_shapes((320, 480, 960), 50880, 925, 919),
    "beluga": beluga_shapes((320, 480, 640), 67840, 2003, 2002),
    "danq": danq_shapes(320, 320, 48000, 925, 919),
    "deepstarr": deepstarr_shapes((256, 60, 60, 120), 1800, 256, 2),
    "pangolin": pangolin_shapes(32, PANGOLIN_KERNELS),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_weights_are_recognised_by_names_and_shapes(name: str) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in RELEASED[name].items()}
    readings = [tensors, {key.removeprefix("model."): tensor for key, tensor in tensors.items()}]
    for reading in readings:
        assert [found.name for found in recognise(reading)] == [name]
    largest = max(tensors, key=lambda key: tensors[key].numel())
    wrong = tensors | {largest: torch.empty(*tensors[largest].shape[:-1], 3, device="meta")}
    assert recognise(wrong) == []


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_recognises_its_own_names(name: str) -> None:
    with torch.device("meta"):
        tensors = ARCHITECTURES[name].build().state_dict()
    expected = "bpnet" if name == "basepairnet" else name
    assert [found.name for found in recognise(tensors)] == [expected]


def test_ambiguous_weights_ask_which_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    twin = replace(ARCHITECTURES["bpnet"], name="twin")
    monkeypatch.setitem(ARCHITECTURES, "twin", twin)
    torch.save(ARCHITECTURES["bpnet"].build(n_filters=4, n_layers=2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match="can belong to bpnet or twin; say which with --architecture"):
        load_model(tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt", architecture="twin").architecture == "twin"


def test_the_order_of_bases_of_an_architecture_yields_to_the_user(tmp_path: Path) -> None:
    shapes, _, arguments = SMALL["deepsea"]
    torch.save(drawn(shapes), tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth", architecture="deepsea", architecture_args=arguments)
    assert loaded.alphabet == "AGCT"
    assert adapt(loaded, InputForm(alphabet="ACGT"), 200) is loaded
    assert "bases in the order AGCT" in adapt(loaded, InputForm(), 200).notes
