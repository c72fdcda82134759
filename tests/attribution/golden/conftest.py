"""The networks of the original DeepLIFT program, rebuilt from its weights, and its scores of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.parts import Parts

FOLDER = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[3].parent / "shared")) / "golden"
Floats = NDArray[np.floating]


@cache
def stored(name: str) -> dict[str, Any]:
    """All arrays of one file."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def channels_first(values: Any, behind: int = 1) -> Any:
    """Float32 numbers whose last axis, the channels, becomes axis ``behind``."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(values, dtype=np.float32), -1, behind))


class Weights(nn.Module):
    """A network whose layers are called by the names that the original has for them."""

    def __init__(self, file: dict[str, Any], prefix: str = "") -> None:
        super().__init__()
        for key, value in file.items():
            if key.startswith(prefix) and isinstance(value, np.ndarray) and value.dtype == np.float32:
                self.register_buffer(key.removeprefix(prefix).replace("/", "_"), torch.from_numpy(value))

    def weights(self, layer: str) -> tuple[Tensor, Tensor]:
        """Kernel in torch's order (outputs, inputs, then the axes of the window), and bias."""
        values = self.get_buffer(f"{layer}_kernel")
        return values.permute(-1, -2, *range(values.dim() - 2)), self.get_buffer(f"{layer}_bias")

    def normalise(self, x: Tensor, layer: str) -> Tensor:
        """Batch-norm."""
        mean, variance, gamma, beta = (
            self.get_buffer(f"{layer}_{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def dense(self, x: Tensor, layer: str) -> Tensor:
        """Fully connected layer."""
        return F.linear(x, *self.weights(layer))


class TalGata(Weights):
    """Two convolutions, the mean over positions and two dense layers; logits of three tasks."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.conv1d(F.conv1d(x, *self.weights("conv1d_1")).relu(), *self.weights("conv1d_2")).relu()
        return self.dense(self.dense(F.avg_pool1d(x, 180).flatten(1), "dense_1").relu(), "dense_2")


class Digits(Weights):
    """Two strided convolutions and two dense layers; logits of ten digits."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.conv2d(x, *self.weights("conv2d_1"), stride=2).relu()
        x = F.conv2d(x, *self.weights("conv2d_2"), stride=2).relu()
        x = F.dropout(x, 0.25, self.training).permute(0, 2, 3, 1).flatten(1)
        return self.dense(F.dropout(self.dense(x, "dense_1").relu(), 0.5, self.training), "dense_2")


class MaxPoolNorm(Weights):
    """Strided convolution, max-pooling, batch norm with a negative factor, global maximum."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool1d(F.conv1d(x, *self.weights("conv1d_1"), stride=2, padding=2).relu(), 3, 2)
        x = self.normalise(F.conv1d(x, *self.weights("conv1d_2")), "batch_normalization_1").relu()
        return self.dense(self.dense(x.amax(-1), "dense_1").relu(), "dense_2")


class AveragePoolPRelu(Weights):
    """PReLU with a slope for every position and channel, average pooling over an open end, tanh, sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.conv1d(x, *self.weights("conv1d_3"))
        slopes = self.get_buffer("p_re_lu_1_alpha").T.flatten()
        x = F.prelu(x.flatten(1), slopes).reshape(x.shape)
        x = torch.tanh(F.conv1d(F.avg_pool1d(x, 4, 3, ceil_mode=True), *self.weights("conv1d_4")))
        x = self.normalise(self.dense(x.transpose(1, 2).flatten(1), "dense_3"), "batch_normalization_2")
        return self.dense(torch.sigmoid(x), "dense_4")


class Images(Weights):
    """Two-dimensional convolutions, max- and average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(F.conv2d(x, *self.weights("conv2d_1"), stride=(2, 1)).relu(), 2, (1, 2))
        x = F.conv2d(F.pad(x, (1, 1, 0, 1)), *self.weights("conv2d_2")).relu()
        x = F.avg_pool2d(x, 2, (2, 1)).permute(0, 2, 3, 1).flatten(1)
        return self.dense(self.dense(x, "dense_5").relu(), "dense_6")


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "talgata": lambda: TalGata(stored("talgata_weights")),
    "mnist": lambda: Digits(stored("mnist_weights")),
    "A_maxbn": lambda: MaxPoolNorm(stored("small_models"), "A_maxbn/w/"),
    "B_avgprelu": lambda: AveragePoolPRelu(stored("small_models"), "B_avgprelu/w/"),
    "C_conv2d": lambda: Images(stored("small_models"), "C_conv2d/w/"),
}


@cache
def program(name: str, shape: tuple[int, ...]) -> Program:
    """The network as a program."""
    return lower(capture(NETWORKS[name](), shape))


@dataclass(frozen=True)
class Scores:
    """Scores of all targets, averaged over references: (targets, sequences, bases, ...)."""

    contrib: Floats
    mult: Floats
    hyp: Floats
    predictions: Floats
    reference_predictions: Floats
    """(sequences, references, targets)."""


SCORES: dict[Any, Scores] = {}


@dataclass(frozen=True)
class Golden:
    """One network with inputs, references and the scores that the original gives them."""

    network: str
    kind: str
    inputs: Floats
    references: Floats
    """(sequences, references, bases, ...)."""
    logits: Floats
    reference_logits: Floats
    theirs: Callable[[str, str], Floats | None]
    """``theirs("contrib" | "mult" | "hyp", mode)``, shaped as ours; None where there are none."""

    def ours(self, method: Method) -> Scores:
        """Our scores, kept from test to test; those with the original's arithmetic apart from the others."""
        key = (self.network, self.kind, method, Parts._slopes)
        if key not in SCORES:
            SCORES[key] = self._scored(method)
        return SCORES[key]

    def _scored(self, method: Method) -> Scores:
        count, per = self.references.shape[:2]
        inputs, references = torch.from_numpy(self.inputs), torch.from_numpy(self.references)
        engine = method.engine(self.program, StepShape(count, per))
        result = engine.run(torch.cat([inputs, references.flatten(0, 1)]), self.logits.shape[1])
        m = torch.stack([part.reshape(references.shape) for part in result.multipliers])
        contributions = m * (inputs[:, None] - references)
        hypothetical = m - (m * references).sum(3, keepdim=True)
        contrib, mult, hyp = (part.mean(2).numpy() for part in (contributions, m, hypothetical))
        return Scores(contrib, mult, hyp, result.predictions.numpy(), result.reference_predictions.numpy())

    @property
    def program(self) -> Program:
        """The network as a program."""
        return program(self.network, self.inputs.shape[1:])

    @property
    def changed(self) -> Any:
        """Where the input differs from all of its references."""
        return (self.inputs[:, None] != self.references).all(1)


def talgata(kind: str) -> Golden:
    """Sequences of the TAL1-GATA1 test set against one of three kinds of reference."""
    file = stored("talgata")
    if kind == "shuf_mean":
        references, logits = channels_first(file["ref_shuf_onehot"], 2), file["logits_ref_shuf"]
    else:
        single = channels_first(file[f"ref_{kind}"])
        references, logits = (
            np.repeat(single[None], 20, 0),
            np.repeat(file[f"logits_ref_{kind}"][None], 20, 0),
        )

    def theirs(array: str, mode: str) -> Floats | None:
        keys = [f"{array}/{mode}/task{task}/{kind}" for task in range(3)]
        return (
            np.stack([channels_first(file[key]) for key in keys if key in file]) if keys[0] in file else None
        )

    inputs = channels_first(file["input_onehot"])
    return Golden("talgata", kind, inputs, references, file["logits_input"], logits, theirs)


def mnist() -> Golden:
    """Digits against black."""
    file = stored("mnist")
    inputs = channels_first(file["input"])
    logits = np.repeat(file["logits_ref_zeros"][None], len(inputs), 0)

    def theirs(array: str, mode: str) -> Floats | None:
        scores = file.get(f"{array}/{mode}/zeros")
        return None if scores is None else channels_first(scores, 2).swapaxes(0, 1)

    references = np.zeros_like(inputs)[:, None]
    return Golden("mnist", "zeros", inputs, references, file["logits_input"], logits, theirs)


def small(name: str) -> Golden:
    """One of the small random networks."""
    file = stored("small_models")
    inputs, references = (channels_first(file[f"{name}/{part}"]) for part in ("input0", "ref0"))
    logits = file[f"{name}/logits_input"]

    def theirs(array: str, mode: str) -> Floats | None:
        keys = [f"{name}/{array}/{mode}/task{task}/input0" for task in range(logits.shape[1])]
        return np.stack([channels_first(file[key]) for key in keys]) if set(keys) <= set(file) else None

    reference_logits = file[f"{name}/logits_ref"][:, None]
    return Golden(name, "input0", inputs, references[:, None], logits, reference_logits, theirs)


@pytest.fixture
def golden() -> Callable[..., Golden]:
    """``golden(network, kind of reference)``."""
    if not FOLDER.is_dir():
        pytest.skip(f"the scores of the original program are not here ({FOLDER})")

    def find(name: str, kind: str) -> Golden:
        return {"talgata": lambda: talgata(kind), "mnist": mnist}.get(name, lambda: small(name))()

    return find
