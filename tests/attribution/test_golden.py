"""Scores of the original DeepLIFT program (Rescale mode) on models rebuilt from its weights.

Where both definitions are the same, the numbers must be:

* everywhere on the TAL1-GATA1 model: convolutions, ReLU, average pooling and dense layers. The original takes
  the derivative instead of the quotient where |x - r| < 1e-7; for ReLU both are the same slope unless x and r
  lie on both sides of zero that close together.
* in the contributions, not the multipliers, of the model with PReLU, tanh and sigmoid: where a hidden value
  is unchanged the original takes the derivative at the layer's own output instead of its input.
* not behind max-pooling: the original sends everything to the maximum of the sequence and forgets that of the
  reference, so its scores do not sum to the difference of predictions; ours do.

The original gives every base a contribution m (x - r), ours only the base that is there, which gets their
sum: both are compared.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower

pytestmark = pytest.mark.real

FOLDER = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[2].parent / "shared")) / "golden"
REFERENCES = ("zeros", "bg", "shuf_mean")
LAYERS = ("first", "second", "dense", "head")
KERAS_LAYERS = ("conv1d_1", "conv1d_2", "dense_1", "dense_2")


@pytest.fixture(autouse=True)
def _golden() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"the scores of the original program are not here ({FOLDER})")


@cache
def stored(name: str) -> Any:
    return np.load(FOLDER / name)


def kernel(file: Any, name: str) -> Tensor:
    """Weights in torch's order: outputs, inputs, then the axes of the window."""
    values = torch.from_numpy(file[f"{name}/kernel"])
    return values.permute(-1, -2, *range(values.dim() - 2))


class TalGata(nn.Module):
    """Two convolutions, the mean over positions and two dense layers; logits of three tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 50, 11), nn.Conv1d(50, 50, 11)
        self.dense, self.head = nn.Linear(50, 50), nn.Linear(50, 3)
        weights = stored("talgata_weights.npz")
        self.load_state_dict(
            {
                f"{layer}.{part}": value
                for layer, name in zip(LAYERS, KERAS_LAYERS, strict=True)
                for part, value in (
                    ("weight", kernel(weights, name)),
                    ("bias", torch.from_numpy(weights[f"{name}/bias"])),
                )
            }
        )

    def forward(self, x: Tensor) -> Any:
        x = F.avg_pool1d(self.second(self.first(x).relu()).relu(), 180)
        return self.head(self.dense(x.flatten(1)).relu())


def channels_first(values: Any) -> Any:
    return np.swapaxes(np.asarray(values, dtype=np.float32), -1, -2)


def talgata_references(kind: str) -> Any:
    """(20 sequences, references, 4, 200)."""
    file = stored("talgata.npz")
    if kind == "shuf_mean":
        return channels_first(file["ref_shuf_onehot"])
    return np.repeat(channels_first(file[f"ref_{kind}"])[None], 20, axis=0)


@cache
def talgata_program() -> Program:
    return lower(capture(TalGata(), (4, 200)))


@cache
def talgata_scores(kind: str) -> tuple[Any, Any]:
    """Scores as users get them, and multipliers (targets, sequences, references, 4, 200)."""
    inputs = channels_first(stored("talgata.npz")["input_onehot"])
    references = talgata_references(kind)
    count = references.shape[1]
    deeplift = DeepLift(talgata_program(), targets=3, n_references=count, batch_size=20 * count)
    scores = deeplift.explain(inputs.argmax(1).astype(np.uint8), references)
    rows = torch.from_numpy(np.concatenate([inputs, references.reshape(-1, 4, 200)]))
    result = Engine(talgata_program(), StepShape(20, count)).run(rows, 3)
    return scores, torch.stack(result.multipliers).reshape(3, 20, count, 4, 200).numpy()


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference as a share of the largest score."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("task", [0, 1, 2])
@pytest.mark.parametrize("kind", REFERENCES)
def test_talgata_scores_are_those_of_the_original(kind: str, task: int) -> None:
    file = stored("talgata.npz")
    inputs, references = channels_first(file["input_onehot"]), talgata_references(kind)
    scores, multipliers = talgata_scores(kind)
    theirs = {
        name: channels_first(file[f"{name}/Rescale/task{task}/{kind}"]) for name in ("contrib", "mult", "hyp")
    }
    single = multipliers[task] * (inputs[:, None] - references)
    found = {
        "hypothetical": difference(scores[task].hypothetical, theirs["hyp"]),
        "projected": difference(scores[task].projected.sum(1), theirs["contrib"].sum(1)),
        "multipliers": difference(multipliers[task].mean(1), theirs["mult"]),
        "contributions": difference(single.mean(1), theirs["contrib"]),
    }
    print(f"TAL-GATA {kind} task {task}: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("kind", REFERENCES)
def test_talgata_predictions_are_those_of_the_original(kind: str) -> None:
    file = stored("talgata.npz")
    scores, _ = talgata_scores(kind)
    theirs = file["logits_ref_shuf"].mean(1) if kind == "shuf_mean" else file[f"logits_ref_{kind}"]
    for task in range(3):
        assert np.abs(scores[task].prediction - file["logits_input"][:, task]).max() < 2e-5
        assert np.abs(scores[task].reference_prediction - theirs[..., task]).max() < 2e-5


@pytest.mark.parametrize("kind", REFERENCES)
def test_talgata_scores_are_complete(kind: str) -> None:
    scores, _ = talgata_scores(kind)
    for task in scores:
        delta = task.prediction - task.reference_prediction
        error = np.abs(task.contribution_sum - delta) / task.mean_abs_delta
        print(f"TAL-GATA {kind}: completeness {error.max():.1e}")
        assert error.max() < 1e-5


class Small(nn.Module):
    """One of the small random networks; channels-last in the original, channels-first here."""

    def __init__(self, name: str) -> None:
        super().__init__()
        file = stored("small_models.npz")
        for key in file.files:
            if key.startswith(f"{name}/w/"):
                self.register_buffer(
                    key.removeprefix(f"{name}/w/").replace("/", "_"), torch.from_numpy(file[key])
                )

    def weights(self, layer: str) -> tuple[Tensor, Tensor]:
        values = self.get_buffer(f"{layer}_kernel")
        return values.permute(-1, -2, *range(values.dim() - 2)), self.get_buffer(f"{layer}_bias")

    def normalise(self, x: Tensor, layer: str) -> Tensor:
        mean, variance, gamma, beta = (
            self.get_buffer(f"{layer}_{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def dense(self, x: Tensor, layer: str) -> Tensor:
        return F.linear(x, *self.weights(layer))


class MaxPoolNorm(Small):
    """Strided convolution, max-pooling, batch norm with a negative factor, global maximum."""

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool1d(F.conv1d(x, *self.weights("conv1d_1"), stride=2, padding=2).relu(), 3, 2)
        x = self.normalise(F.conv1d(x, *self.weights("conv1d_2")), "batch_normalization_1").relu()
        return self.dense(self.dense(x.amax(-1), "dense_1").relu(), "dense_2")


class AveragePoolPRelu(Small):
    """PReLU with a slope for every position and channel, average pooling over an open end, tanh, sigmoid."""

    def forward(self, x: Tensor) -> Any:
        x = F.conv1d(x, *self.weights("conv1d_3"))
        x = x.relu() - self.get_buffer("p_re_lu_1_alpha").T * (-x).relu()
        x = torch.tanh(F.conv1d(F.avg_pool1d(x, 4, 3, ceil_mode=True), *self.weights("conv1d_4")))
        x = self.normalise(self.dense(x.transpose(1, 2).flatten(1), "dense_3"), "batch_normalization_2")
        return self.dense(torch.sigmoid(x), "dense_4")


class Images(Small):
    """Two-dimensional convolutions, max- and average pooling."""

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(F.conv2d(x, *self.weights("conv2d_1"), stride=(2, 1)).relu(), 2, (1, 2))
        x = F.conv2d(F.pad(x, (1, 1, 0, 1)), *self.weights("conv2d_2")).relu()
        x = F.avg_pool2d(x, 2, (2, 1)).permute(0, 2, 3, 1).flatten(1)
        return self.dense(self.dense(x, "dense_5").relu(), "dense_6")


MODELS: dict[str, tuple[type[Small], int]] = {
    "A_maxbn": (MaxPoolNorm, 2),
    "B_avgprelu": (AveragePoolPRelu, 3),
    "C_conv2d": (Images, 2),
}


def small_scores(name: str) -> tuple[Any, Any, Any, Any]:
    """Result of the engine, inputs, references, and (targets, pairs, ...) multipliers, one reference each."""
    file = stored("small_models.npz")
    inputs, references = (
        torch.from_numpy(np.moveaxis(file[f"{name}/{kind}"], -1, 1).copy()) for kind in ("input0", "ref0")
    )
    model, targets = MODELS[name]
    program = lower(capture(model(name), tuple(inputs.shape[1:])))
    result = Engine(program, StepShape(len(inputs), 1)).run(torch.cat([inputs, references]), targets)
    return result, inputs.numpy(), references.numpy(), torch.stack(result.multipliers).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_small_models_predict_as_the_original_and_are_complete(name: str) -> None:
    file = stored("small_models.npz")
    result, inputs, references, multipliers = small_scores(name)
    np.testing.assert_allclose(result.predictions, file[f"{name}/logits_input"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        result.reference_predictions[:, 0], file[f"{name}/logits_ref"], rtol=1e-4, atol=1e-5
    )
    delta = (result.predictions - result.reference_predictions[:, 0]).numpy()
    for task in range(MODELS[name][1]):
        total = (multipliers[task] * (inputs - references)).reshape(len(inputs), -1).sum(1)
        assert np.abs(total - delta[:, task]).max() < 1e-5 * np.abs(delta[:, task]).max()


@pytest.mark.parametrize("task", [0, 1, 2])
def test_contributions_of_the_prelu_network_are_those_of_the_original(task: int) -> None:
    theirs = stored("small_models.npz")[f"B_avgprelu/contrib/Rescale/task{task}/input0"]
    _, inputs, references, multipliers = small_scores("B_avgprelu")
    found = difference(multipliers[task] * (inputs - references), np.moveaxis(theirs, -1, 1))
    print(f"B_avgprelu task {task}: contributions {found:.1e}")
    assert found < 1e-5


@pytest.mark.parametrize("name", ["A_maxbn", "C_conv2d"])
def test_behind_max_pooling_the_original_does_not_sum_to_the_difference(name: str) -> None:
    file = stored("small_models.npz")
    worst = 0.0
    for task in range(MODELS[name][1]):
        theirs = file[f"{name}/contrib/Rescale/task{task}/input0"]
        delta = file[f"{name}/logits_input"][:, task] - file[f"{name}/logits_ref"][:, task]
        worst = max(worst, float(np.abs(theirs.reshape(len(theirs), -1).sum(1) - delta).max()))
    assert worst > 1e-3
