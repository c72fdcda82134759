"""Networks built as the field builds them, small: every operation has a rule and contributions add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.methods import Method
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.architectures.chrombpnet import ChromBPNet

Forward = Callable[[Any, Tensor], Tensor]


class ConvBlock(nn.Sequential):
    """Batch-norm, GELU by a sigmoid, convolution: Enformer's order."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.BatchNorm1d(channels), SigmoidGelu(), nn.Conv1d(channels, channels, width, padding="same")
        )


class SigmoidGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(1.702 * x) * x


class AttentionPool(nn.Module):
    """Pairs of positions weighted by a softmax of a linear map of themselves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.unflatten(2, (-1, 2))  # type: ignore[no-untyped-call]
        weights = self.logits(pairs).softmax(-1)
        pooled: Tensor = (pairs * weights).sum(-1)
        return pooled


class RelativeAttention(nn.Module):
    """Multi-head attention whose logits add a term for the distance, shifted into place as in Enformer."""

    def __init__(self, channels: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.size = heads, channels // heads
        self.norm = nn.LayerNorm(channels)
        self.to_all = nn.Linear(channels, 3 * channels, bias=False)
        self.position = nn.Parameter(torch.randn(heads, 2 * length - 1, self.size) / 3)
        self.content_bias = nn.Parameter(torch.randn(heads, 1, self.size) / 3)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        query, key, value = (
            part.reshape(batch, length, self.heads, self.size).transpose(1, 2)
            for part in self.to_all(self.norm(x)).chunk(3, -1)
        )
        query = query / math.sqrt(self.size)
        content = torch.einsum("bhid,bhjd->bhij", query + self.content_bias, key)
        relative = self._shifted(torch.einsum("bhid,hjd->bhij", query, self.position))
        weights = (content + relative).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, length, channels)
        return torch.add(x, self.out(mixed))

    @staticmethod
    def _shifted(logits: Tensor) -> Tensor:
        batch, heads, length, distances = logits.shape
        padded = F.pad(logits, (1, 0)).reshape(batch, heads, distances + 1, length)
        shifted: Tensor = padded[:, :, 1:].reshape(batch, heads, length, distances)[..., :length]
        return shifted


class EnformerLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 8, 15, padding=7)
        self.tower = nn.ModuleList([ConvBlock(8, 5), ConvBlock(8, 1)])
        self.pools = nn.ModuleList([AttentionPool(8), AttentionPool(8)])
        self.attention = RelativeAttention(8, 2, 16)
        self.feed = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, pool in zip(self.tower, self.pools, strict=True):
            x = pool(x + block(x))
        x = self.attention(x.transpose(1, 2))
        x = (x + self.feed(x))[:, 4:-4]
        return F.softplus(self.head(SigmoidGelu()(x))).sum(1)


class BorzoiLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 8, 15, padding=7)
        self.down = nn.ModuleList([ConvBlock(8, 5), ConvBlock(8, 5)])
        self.attention = RelativeAttention(8, 2, 16)
        self.across = nn.ModuleList([nn.Conv1d(8, 8, 1), nn.Conv1d(8, 8, 1)])
        self.up = nn.ModuleList([nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.Conv1d(8, 8, 3, padding=1)])
        self.head = nn.Conv1d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, seen = self.stem(x), []
        for block in self.down:
            x = block(x)
            seen.append(x)
            x = F.max_pool1d(x, 2)
        x = self.attention(x.transpose(1, 2)).transpose(1, 2)
        for up, across, before in zip(self.up, self.across, reversed(seen), strict=True):
            x = up(F.interpolate(x, scale_factor=2)) + across(before)
        return F.softplus(self.head(F.gelu(x, approximate="tanh"))).mean(2)


class BelugaLike(nn.Module):
    """Two-dimensional convolutions over an axis of one, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(4, 8, (1, 8)), nn.ReLU(), nn.Conv2d(8, 8, (1, 8)), nn.ReLU(), nn.Dropout(0.2),
            nn.MaxPool2d((1, 4), (1, 4)), nn.Conv2d(8, 6, (1, 8)), nn.ReLU(), nn.Flatten(),
            nn.Linear(30, 10), nn.ReLU(), nn.Linear(10, 3), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        return self.net(x.unsqueeze(2))


class BassetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(4, 8, 9), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3),
            nn.Conv1d(8, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4),
            nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class DanQLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 9)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10 * 7, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool1d(F.relu(self.conv(x)), 8)
        return self.head(self.lstm(x.transpose(1, 2))[0].flatten(1))


class PangolinLike(nn.Module):
    """Dilated residual blocks with functional activations only, and skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.skip = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 1)
        self.norms = nn.ModuleList([nn.BatchNorm1d(8) for _ in range(4)])
        self.convs = nn.ModuleList([nn.Conv1d(8, 8, 5, padding=2 * d, dilation=d) for d in (1, 1, 4, 4)])
        self.head = nn.Conv1d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skip = self.skip(x)
        for index in range(0, 4, 2):
            y = self.convs[index](torch.relu(self.norms[index](x)))
            x = x + self.convs[index + 1](torch.relu(self.norms[index + 1](y)))
            skip = skip + self.skip(x)
        return F.pad(self.head(skip), (-10, -10)).log_softmax(1).mean(2)


class TransformerLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 8, 8, stride=8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(self.stem(x).transpose(1, 2)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 6, 8, stride=8)
        self.gru, self.lstm = nn.GRU(6, 5), nn.LSTM(5, 4, num_layers=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.lstm(self.gru(self.stem(x).permute(2, 0, 1))[0])[0][-1])


class ReverseComplementEquivariant(nn.Module):
    """Filters shared between the strands: each is applied as it is and reverse-complemented."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4, 7) / 3)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        both = torch.cat([self.weight, self.weight.flip(1, 2)])
        forward, backward = F.relu(F.conv1d(x, both)).chunk(2, 1)
        return self.head(torch.maximum(forward, backward).amax(2))


class Tables(nn.Module):
    """All outputs of a model that returns several, side by side."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        profile, counts = self.model(x)
        return torch.cat([profile.flatten(1).log_softmax(1)[:, :2], counts], 1)


def _bpnet() -> nn.Module:
    return Tables(BPNet(n_filters=6, n_layers=2, input_length=100, trimming=20))


def _chrombpnet() -> nn.Module:
    size = {"n_layers": 2, "trimming": 20, "n_outputs": 1}
    model = ChromBPNet({"n_filters": 4, **size}, {"n_filters": 6, **size}, input_length=100)
    return Tables(model)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Enformer": (EnformerLike, 64),
    "Borzoi": (BorzoiLike, 64),
    "DeepSEA/Beluga": (BelugaLike, 64),
    "Basset": (BassetLike, 64),
    "DanQ": (DanQLike, 64),
    "Pangolin": (PangolinLike, 64),
    "Transformer": (TransformerLike, 64),
    "LSTM and GRU": (Recurrent, 64),
    "reverse-complement equivariant": (ReverseComplementEquivariant, 64),
    "BPNet with profile": (_bpnet, 100),
    "ChromBPNet with bias": (_chrombpnet, 100),
}


def network_of(name: str) -> tuple[nn.Module, int]:
    torch.manual_seed(3)
    build, length = NETWORKS[name]
    network = build().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network, length


def error_of(network: nn.Module, length: int, dtype: torch.dtype, method: Method) -> float:
    program = lower(capture(network, (4, length), dtype=dtype))
    program.require_supported()
    columns = program.single_infos()[-1].dims[-1]
    step = StepShape(3, 4)
    rows = F.one_hot(torch.randint(0, 4, (step.rows, length)), 4).transpose(1, 2).to(dtype)
    result = method.engine(program, step).run(rows, columns)
    gap = rows[: step.sequences].repeat_interleave(step.references, 0) - rows[step.sequences :]
    worst = 0.0
    for target in range(columns):
        total = (result.multipliers[target] * gap).flatten(1).sum(1).view(step.sequences, step.references)
        delta = result.pair_predictions[..., target] - result.reference_predictions[..., target]
        worst = max(worst, float((total - delta).abs().max() / delta.abs().mean()))
    return worst


@pytest.mark.parametrize("name", NETWORKS)
def test_contributions_add_up_in_float64(name: str) -> None:
    network, length = network_of(name)
    assert error_of(network, length, torch.float64, Method()) < 1e-9
    assert error_of(network, length, torch.float64, Method(rules="revealcancel")) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_contributions_add_up_in_float32(name: str) -> None:
    """To 5e-4: untrained networks answer sequence and reference almost alike, which magnifies rounding."""
    network, length = network_of(name)
    assert error_of(network, length, torch.float32, Method()) < 5e-4
