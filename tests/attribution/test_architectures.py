"""Networks built as the published ones are, small: nothing refused, and contributions that sum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.model.architectures.basset import Basset
from dlgenome.model.architectures.beluga import Beluga
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.architectures.chrombpnet import ChromBPNet
from dlgenome.model.architectures.danq import DanQ
from dlgenome.model.architectures.deepsea import DeepSEA
from dlgenome.model.architectures.deepstarr import DeepSTARR
from dlgenome.model.architectures.pangolin import Pangolin

STEP = StepShape(2, 3)


def sigmoid_gelu(x: Tensor) -> Tensor:
    """Enformer's GELU."""
    return torch.sigmoid(1.702 * x) * x


class ConvBlock(nn.Module):
    """Batch-norm, GELU, convolution."""

    def __init__(self, channels: int, filters: int, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm1d(channels), nn.Conv1d(channels, filters, width, padding="same")

    def forward(self, x: Tensor) -> Any:
        return self.conv(sigmoid_gelu(self.norm(x)))


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Any:
        return x + self.inner(x)


class SoftmaxPool(nn.Module):
    """Pairs of positions weighed by a softmax of their channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Any:
        pairs = x.reshape(x.shape[0], x.shape[1], -1, 2)
        return (pairs * self.weigh(pairs).softmax(-1)).sum(-1)


def relative_features(length: int, count: int, like: Tensor) -> Tensor:
    """Enformer's features of the distance between two positions: exponential, central mask, gamma."""
    distances = torch.arange(1 - length, length, device=like.device, dtype=like.dtype)
    size = distances.abs()[:, None]
    each = count // 6
    half_lives = 2.0 ** torch.linspace(1, math.log2(length), each, dtype=like.dtype)
    exponential = torch.exp(-math.log(2) / half_lives * size)
    mask = (2.0 ** torch.arange(1, each + 1, dtype=like.dtype) > size).to(like.dtype)
    mean = torch.linspace(length / each, length, each, dtype=like.dtype)
    shape, rate = (mean / 2) ** 2, mean / 4
    gamma = (torch.xlogy(shape - 1, size + 1e-8) - rate * size - torch.lgamma(shape)).exp()
    features = torch.cat([exponential, mask, gamma / gamma.amax(0)], -1)
    return torch.cat([features, torch.sign(distances)[:, None] * features], -1)


def relative_shift(x: Tensor) -> Tensor:
    """(batch, heads, i, distance) to (batch, heads, i, j): a column of zeros, and lines drawn anew."""
    _, heads, rows, columns = x.shape
    padded = torch.cat([torch.zeros_like(x[..., :1]), x], -1).reshape(-1, heads, columns + 1, rows)
    return padded[:, :, 1:].reshape(-1, heads, rows, columns)[..., : (columns + 1) // 2]


class RelativeAttention(nn.Module):
    """Attention with content and position biases, as in Enformer and Borzoi."""

    def __init__(self, channels: int, heads: int = 2, width: int = 4, features: int = 12) -> None:
        super().__init__()
        self.heads, self.features = heads, features
        self.query, self.key, self.value = (nn.Linear(channels, heads * width, bias=False) for _ in range(3))
        self.position = nn.Linear(features, heads * width, bias=False)
        self.out = nn.Linear(heads * width, channels)
        self.content_bias = nn.Parameter(torch.randn(1, heads, 1, width))
        self.position_bias = nn.Parameter(torch.randn(1, heads, 1, width))

    def forward(self, x: Tensor) -> Any:
        batch, length, _ = x.shape
        query, key, value = (
            part(x).reshape(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        query = query * query.shape[-1] ** -0.5
        features = self.position(relative_features(length, self.features, x))
        features = features.reshape(2 * length - 1, self.heads, -1).transpose(0, 1)
        content = torch.einsum("bhid,bhjd->bhij", query + self.content_bias, key)
        places = torch.einsum("bhid,hjd->bhij", query + self.position_bias, features)
        weights = (content + relative_shift(places)).softmax(-1)
        mixed = torch.einsum("bhij,bhjd->bhid", weights, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


def transformer_block(channels: int) -> nn.Module:
    """Two residual halves, norm first."""
    return nn.Sequential(
        Residual(nn.LayerNorm(channels), RelativeAttention(channels), nn.Dropout(0.4)),
        Residual(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.Dropout(0.4), nn.ReLU(),
            nn.Linear(2 * channels, channels), nn.Dropout(0.4),
        ),
    )  # fmt: skip


class EnformerLike(nn.Module):
    """Stem, tower with attention pooling, transformer, cropping, pointwise layer, softplus head."""

    def __init__(self, channels: int = 8, tower: tuple[int, ...] = (8, 12), crop: int = 1) -> None:
        super().__init__()
        sizes = [channels, *tower]
        self.stem = nn.Sequential(
            nn.Conv1d(4, channels, 15, padding="same"), Residual(ConvBlock(channels, channels, 1)),
            SoftmaxPool(channels),
        )  # fmt: skip
        self.tower = nn.Sequential(
            *[
                nn.Sequential(ConvBlock(a, b, 5), Residual(ConvBlock(b, b, 1)), SoftmaxPool(b))
                for a, b in itertools.pairwise(sizes)
            ]
        )
        self.blocks = nn.Sequential(transformer_block(sizes[-1]), transformer_block(sizes[-1]))
        self.pointwise, self.crop = ConvBlock(sizes[-1], 2 * sizes[-1], 1), crop
        self.head = nn.Sequential(nn.Linear(2 * sizes[-1], 3), nn.Softplus())

    def forward(self, x: Tensor) -> Any:
        x = self.tower(self.stem(x)).transpose(1, 2)
        x = self.blocks(x)[:, self.crop : -self.crop]
        x = sigmoid_gelu(F.dropout(self.pointwise(x.transpose(1, 2)).transpose(1, 2), 0.05, self.training))
        return self.head(x)[:, 2:4].mean(1)


class BorzoiLike(nn.Module):
    """Convolution tower, transformer, and a U-net that goes back up with separable convolutions."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, channels, 11, padding="same"), nn.MaxPool1d(2))
        self.down = nn.ModuleList([ConvBlock(channels, channels, 5) for _ in range(2)])
        self.pool = nn.MaxPool1d(2)
        self.blocks = transformer_block(channels)
        self.side = nn.ModuleList([ConvBlock(channels, channels, 1) for _ in range(2)])
        self.level = nn.ModuleList([ConvBlock(channels, channels, 1) for _ in range(2)])
        self.up = nn.Upsample(scale_factor=2)
        self.separable = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv1d(channels, channels, 3, padding="same", groups=channels, bias=False),
                    nn.Conv1d(channels, channels, 1),
                )
                for _ in range(2)
            ]
        )
        self.head = nn.Conv1d(channels, 2, 1)

    def forward(self, x: Tensor) -> Any:
        levels = [self.stem(x)]
        for block in self.down:
            levels.append(self.pool(block(levels[-1])))
        x = self.blocks(levels.pop().transpose(1, 2)).transpose(1, 2)
        for side, level, separable in zip(self.side, self.level, self.separable, strict=True):
            x = separable(self.up(level(x)) + side(levels.pop()))
        return F.softplus(self.head(F.gelu(x, approximate="tanh")[..., 2:-2])).sum(-1)


class TransformerEncoder(nn.Module):
    """k-mers as tokens, a class token, sinusoidal positions, torch's own encoder layers."""

    def __init__(self, width: int = 8, tokens: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv1d(4, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        angles = torch.arange(tokens + 1)[:, None] / 100 ** (torch.arange(0, width, 2) / width)
        self.positions: Tensor
        self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
        layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Any:
        tokens = self.embed(x).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


class RecurrentModel(nn.Module):
    """Convolution, two LSTM layers over time first, attention over their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(4, 6, 9, padding=4), nn.ReLU(), nn.MaxPool1d(16))
        self.lstm = nn.LSTM(6, 4, 2)
        self.attend, self.head = nn.Linear(4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        states, _ = self.lstm(self.conv(x).permute(2, 0, 1))
        weights = torch.tanh(self.attend(states)).softmax(0)
        return torch.sigmoid(self.head((weights * states).sum(0)))


class Profile(nn.Module):
    """Expected logit of a BPNet's profile, and its log counts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        logits, counts = self.model(x)
        logits = logits.flatten(1)
        return torch.cat([(logits * logits.softmax(1)).sum(1, keepdim=True), counts], 1)


class PerBase(nn.Module):
    """Mean over positions of what a model says for each, one number a channel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x).mean(-1)


class BothStrands(nn.Module):
    """Filters shared between the strands, each as it is and reverse-complemented, and the larger kept."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4, 7))
        self.hidden, self.head = nn.Conv1d(5, 5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        both = F.relu(F.conv1d(x, torch.cat([self.weight, self.weight.flip(1, 2)])))
        forward, backward = both.chunk(2, 1)
        return self.head(torch.maximum(self.hidden(forward), self.hidden(backward.flip(2)).flip(2)).amax(2))


class HeightOne(nn.Module):
    """A network of images of height one that takes (batch, 4, 1, length) itself, in the order AGCT."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 6, (1, 8)), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(6, 6, (1, 8)), nn.ReLU(),
            nn.MaxPool2d((1, 4), (1, 4)), nn.Flatten(), nn.Linear(72, 8), nn.ReLU(),
            nn.Linear(8, 2), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        return self.body(x[:, [0, 2, 1, 3]].unsqueeze(2))


def bpnet(**arguments: Any) -> dict[str, Any]:
    return {"n_filters": 6, "n_layers": 2, "first_kernel_size": 7, "profile_kernel_size": 9, **arguments}


ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "Enformer": (EnformerLike, 64, 3),
    "Borzoi": (BorzoiLike, 64, 2),
    "Transformer": (TransformerEncoder, 64, 2),
    "LSTM": (RecurrentModel, 64, 2),
    "shared strands": (BothStrands, 64, 2),
    "Beluga": (
        lambda: Beluga((6, 6, 6), 5, n_hidden=8, n_outputs=2, input_length=200, probabilities=True), 200, 2,
    ),
    "DeepSEA": (lambda: DeepSEA((6, 6, 6), n_hidden=8, n_outputs=2, input_length=200), 200, 2),
    "images of height one": (HeightOne, 64, 2),
    "Basset": (
        lambda: Basset((6, 6, 6), n_hidden=(8, 8), n_outputs=2, input_length=200, probabilities=True), 200, 2,
    ),
    "DanQ": (
        lambda: DanQ(6, 10, 13, 4, 8, 2, input_length=62, probabilities=True), 62, 2,
    ),
    "DeepSTARR": (lambda: DeepSTARR((6, 4, 4, 4), n_hidden=(8, 8), input_length=64), 64, 2),
    "BPNet": (lambda: Profile(BPNet(**bpnet(trimming=10, input_length=64))), 64, 2),
    "ChromBPNet": (
        lambda: Profile(
            ChromBPNet(bpnet(n_outputs=1, trimming=10), bpnet(n_outputs=1, trimming=12), input_length=64)
        ), 64, 2,
    ),
    "Pangolin": (lambda: PerBase(Pangolin(4, (5, 5, 7), (1, 2, 2), (2, 1), 64)), 64, 3),
}  # fmt: skip
"""Network, length of its sequences, number of its targets."""


def build(name: str) -> nn.Module:
    """The network with weights that keep its values spread, and batch statistics of its own."""
    torch.manual_seed(3)
    module = ARCHITECTURES[name][0]()
    for key, buffer in module.named_buffers():
        if key.endswith("running_var"):
            buffer.uniform_(0.3, 1.5)
        elif key.endswith("running_mean"):
            buffer.uniform_(-0.3, 0.3)
    for key, parameter in module.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
        elif key.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.1)
    return module.eval()


def one_hot(length: int) -> Tensor:
    """Sequences, then for each its references: its own bases at half of the places, others elsewhere."""
    generator = torch.Generator().manual_seed(4)
    codes = torch.randint(4, (STEP.rows, length), generator=generator)
    own = codes[: STEP.sequences].repeat_interleave(STEP.references, 0)
    kept = torch.rand(own.shape, generator=generator) < 1 / 2
    codes[STEP.sequences :] = torch.where(kept, own, codes[STEP.sequences :])
    return F.one_hot(codes, 4).transpose(1, 2)


@pytest.fixture(scope="module")
def program() -> Callable[[str, torch.dtype], Program]:
    """The program of a network, captured once for each precision."""
    made: dict[tuple[str, torch.dtype], Program] = {}

    def of(name: str, dtype: torch.dtype) -> Program:
        if (name, dtype) not in made:
            made[name, dtype] = lower(capture(build(name), (4, ARCHITECTURES[name][1]), dtype=dtype))
        return made[name, dtype]

    return of


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_operation_of_an_architecture_is_refused_or_approximated(
    name: str, program: Callable[[str, torch.dtype], Program]
) -> None:
    lowered = program(name, torch.float64)
    assert lowered.refusals == ()
    assert lowered.approximations == ()


@pytest.mark.parametrize(
    ("rules", "dtype", "limit"),
    [
        ("rescale", torch.float64, 1e-9),
        ("revealcancel", torch.float64, 1e-9),
        ("genomics-default", torch.float64, 1e-9),
        ("rescale", torch.float32, 1e-4),
    ],
    ids=["rescale", "revealcancel", "genomics-default", "rescale in float32"],
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_contributions_of_an_architecture_sum_to_the_output_difference(
    name: str,
    rules: Any,
    dtype: torch.dtype,
    limit: float,
    program: Callable[[str, torch.dtype], Program],
    explain: Callable[..., Any],
) -> None:
    _, length, targets = ARCHITECTURES[name]
    found = explain(
        build(name), (4, length), targets, Method(rules=rules), program=program(name, dtype),
        rows=one_hot(length), step=STEP, dtype=dtype,
    )  # fmt: skip
    print(f"{name}, {rules}, {dtype}: {max(found.completeness):.1e}")
    assert max(found.completeness) < limit
    assert max(found.forward) < (1e-12 if dtype is torch.float64 else 1e-5)
