"""The networks that are timed, in plain torch, so that every program runs the very same module.

Imported in the environments of other programs too: nothing but torch may be needed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn


class BPNetCounts(nn.Module):
    """BPNet (Avsec et al. 2021) with its counts head alone: (batch, 4, length) -> (batch, 1).

    Left without the profile head, which a counts target does not need: a program that would compute it all
    the same is spared that here.
    """

    def __init__(
        self, n_filters: int, n_layers: int, margin: int, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.margin = margin
        self.first = nn.Conv1d(4, n_filters, 21, padding=10)
        self.first_relu = activation()
        dilations = [2**layer for layer in range(1, n_layers + 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n_filters, n_filters, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.relus = nn.ModuleList(activation() for _ in dilations)
        self.linear = nn.Linear(n_filters, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """Log counts from the mean over all but ``margin`` positions at either end."""
        return self.counts(self.features(sequences))

    def features(self, sequences: Tensor) -> Tensor:
        """(batch, filters, positions), the margins cut off."""
        features = self.first_relu(self.first(sequences))
        for convolution, relu in zip(self.convolutions, self.relus, strict=True):
            features = features + relu(convolution(features))
        result: Tensor = features[:, :, self.margin : features.shape[2] - self.margin]
        return result

    def counts(self, features: Tensor) -> Tensor:
        """(batch, 1)."""
        result: Tensor = self.linear(features.mean(dim=2))
        return result


class BPNetBoth(BPNetCounts):
    """The same with the profile head of ChromBPNet: (batch, 1, positions) logits and (batch, 1) counts."""

    def __init__(self, n_filters: int, n_layers: int, margin: int) -> None:
        super().__init__(n_filters, n_layers, margin)
        self.profile = nn.Conv1d(n_filters, 1, 75)

    def forward(self, sequences: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Profile and counts, of the same features."""
        features = self.features(sequences)
        return self.profile(features), self.counts(features)


class CountsOf(nn.Module):
    """The counts alone, for programs that explain one output: the profile is not even computed."""

    def __init__(self, network: BPNetBoth) -> None:
        super().__init__()
        self.network = network

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, 1)."""
        return self.network.counts(self.network.features(sequences))


class ProfileOf(nn.Module):
    """The profile as one number: its centred logits, weighted by their own softmax, which is held fixed.

    The gradient then has the weights of the explained sequence, as dlgenome's target profile-bpnet.
    """

    def __init__(self, network: BPNetBoth) -> None:
        super().__init__()
        self.network = network

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, 1)."""
        logits = self.network.profile(self.network.features(sequences)).flatten(1)
        logits = logits - logits.mean(dim=1, keepdim=True)
        result: Tensor = (logits * logits.softmax(dim=1).detach()).sum(dim=1, keepdim=True)
        return result


def _both(network: nn.Module) -> list[nn.Module]:
    assert isinstance(network, BPNetBoth)
    return [CountsOf(network), ProfileOf(network)]


def _itself(network: nn.Module) -> list[nn.Module]:
    return [network]


def basset() -> nn.Module:
    """A network with the layer sizes of Basset (Kelley et al. 2016) for 600 bases: (batch, 164)."""
    layers: list[nn.Module] = []
    for channels, filters, width, pool in ((4, 300, 19, 3), (300, 200, 11, 4), (200, 200, 7, 4)):
        layers += [nn.Conv1d(channels, filters, width, padding=width // 2), nn.BatchNorm1d(filters)]
        layers += [nn.ReLU(), nn.MaxPool1d(pool)]
    layers += [nn.Flatten(), nn.Linear(200 * 12, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1000, 164))


def deepsea() -> nn.Module:
    """A network with the layer sizes of DeepSEA (Zhou and Troyanskaya 2015) for 1000 bases: (batch, 919)."""
    layers: list[nn.Module] = []
    for channels, filters in ((4, 320), (320, 480), (480, 960)):
        layers += [nn.Conv1d(channels, filters, 8), nn.ReLU(), nn.MaxPool1d(4)]
    # what follows the last convolution is not a pool
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(960 * 53, 925), nn.ReLU(), nn.Linear(925, 919))


class Attention(nn.Module):
    """Scaled dot-product attention between all positions, its softmax a module that hooks can see."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, positions: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        query, key, value = (
            layer(positions).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = self.softmax(query @ key.transpose(2, 3) * self.scale)
        result: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return result


class EncoderBlock(nn.Module):
    """A layer of a transformer encoder, norms first (Vaswani et al. 2017; Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.dense = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, positions: Tensor) -> Tensor:
        """(batch, positions, width) to the same."""
        positions = positions + self.attention(self.attention_norm(positions))
        result: Tensor = positions + self.dense(positions)
        return result


class AttentionNetwork(nn.Module):
    """A convolution, a max-pool and two encoder blocks, one number from the mean over positions."""

    def __init__(self, width: int, heads: int, pool: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, width, 15, padding=7), nn.ReLU(), nn.MaxPool1d(pool))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(2)))
        self.linear = nn.Linear(width, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, 1) of (batch, 4, length)."""
        positions = self.blocks(self.stem(sequences).transpose(1, 2))
        result: Tensor = self.linear(positions.mean(dim=1))
        return result


@dataclass(frozen=True)
class Case:
    """One row of the table; output 0 of the network is explained where nothing else is said."""

    title: str
    build: Callable[[], nn.Module]
    length: int
    n_references: int = 20
    sequences: int = 8
    """Sequences that each program explains in one turn."""
    targets: tuple[str, ...] = ("index:0",)
    """What dlgenome explains, in one run."""
    parts: Callable[[nn.Module], list[nn.Module]] = _itself
    """A module for each target, for programs that explain output 0 of one module."""
    trained: bool = False
    """Its weights come from a checkpoint."""

    def sequences_against(self, n_references: int) -> int:
        """Sequences of a turn with another number of references: about as many pairs in all."""
        return ceil(self.sequences * self.n_references / n_references)


def sized_bpnet(n_filters: int, length: int) -> Case:
    """BPNet with its counts head in another size; half of the window is averaged over, as at 2114 bases."""
    margin = min(520, length // 4)
    title = f"BPNet, {n_filters} filters, 8 dilated layers, {length} bp, counts"
    return Case(title, lambda: BPNetCounts(n_filters, 8, margin), length)


def named(name: str) -> Case:
    """The case of that name; `bpnet/FILTERS/LENGTH` is one of another size."""
    if name.startswith("bpnet/"):
        _, n_filters, length = name.split("/")
        return sized_bpnet(int(n_filters), int(length))
    return CASES[name]


CASES = {
    "bpnet-64": Case(
        "BPNet, 64 filters, 8 dilated layers, 2114 bp, counts", lambda: BPNetCounts(64, 8, 520), 2114
    ),
    "bpnet-gelu": Case(
        "BPNet with GELU, 64 filters, 8 dilated layers, 2114 bp, counts",
        lambda: BPNetCounts(64, 8, 520, nn.GELU),
        2114,
    ),
    "chrombpnet-512": Case(
        "ChromBPNet, 512 filters, 8 dilated layers, 2114 bp, counts",
        lambda: BPNetCounts(512, 8, 520),
        2114,
        sequences=2,
    ),
    "chrombpnet-512-both": Case(
        "ChromBPNet, 512 filters, 8 dilated layers, 2114 bp, counts and profile",
        lambda: BPNetBoth(512, 8, 520),
        2114,
        sequences=2,
        targets=("counts", "profile-bpnet"),
        parts=_both,
    ),
    "bpnet-ctcf": Case(
        "BPNet trained on CTCF, 64 filters, 8 dilated layers, 2114 bp, counts",
        lambda: BPNetCounts(64, 8, 520),
        2114,
        trained=True,
    ),
    "basset": Case("Basset-like, 600 bp, max-pool, dense", basset, 600),
    "deepsea": Case("DeepSEA-like, 1000 bp, max-pool, dense", deepsea, 1000, sequences=4),
    "attention": Case(
        "convolution and two transformer encoder blocks, 128 wide, 1000 bp",
        lambda: AttentionNetwork(128, 4, 8),
        1000,
    ),
    "tiny": Case(
        "BPNet, 8 filters, 2 dilated layers, 256 bp: tries the benchmark itself",
        lambda: BPNetCounts(8, 2, 20),
        256,
        n_references=4,
        sequences=3,
    ),
    "tiny-both": Case(
        "BPNet, 8 filters, 2 dilated layers, 256 bp, counts and profile: tries the benchmark itself",
        lambda: BPNetBoth(8, 2, 20),
        256,
        n_references=4,
        sequences=3,
        targets=("counts", "profile-bpnet"),
        parts=_both,
    ),
}
