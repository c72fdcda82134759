"""The networks that are timed, in plain torch, so that every program runs the very same module.

Imported in the environments of other programs too: nothing but torch may be needed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


class BPNetCounts(nn.Module):
    """BPNet (Avsec et al. 2021) with its counts head alone: (batch, 4, length) -> (batch, 1).

    Left without the profile head, which a counts target does not need: a program that would compute it all
    the same is spared that here.
    """

    def __init__(self, n_filters: int, n_layers: int, margin: int) -> None:
        super().__init__()
        self.margin = margin
        self.first = nn.Conv1d(4, n_filters, 21, padding=10)
        self.first_relu = nn.ReLU()
        dilations = [2**layer for layer in range(1, n_layers + 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n_filters, n_filters, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in dilations)
        self.linear = nn.Linear(n_filters, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """Log counts from the mean over all but ``margin`` positions at either end."""
        features = self.first_relu(self.first(sequences))
        for convolution, relu in zip(self.convolutions, self.relus, strict=True):
            features = features + relu(convolution(features))
        pooled = features[:, :, self.margin : features.shape[2] - self.margin].mean(dim=2)
        counts: Tensor = self.linear(pooled)
        return counts


def basset() -> nn.Module:
    """A network with the layer sizes of Basset (Kelley et al. 2016) for 600 bases: (batch, 164)."""
    layers: list[nn.Module] = []
    for channels, filters, width, pool in ((4, 300, 19, 3), (300, 200, 11, 4), (200, 200, 7, 4)):
        layers += [nn.Conv1d(channels, filters, width, padding=width // 2), nn.BatchNorm1d(filters)]
        layers += [nn.ReLU(), nn.MaxPool1d(pool)]
    layers += [nn.Flatten(), nn.Linear(200 * 12, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1000, 164))


@dataclass(frozen=True)
class Case:
    """One row of the table; output 0 of the network is explained."""

    title: str
    build: Callable[[], nn.Module]
    length: int
    n_references: int = 20
    sequences: int = 8
    """Sequences that each program explains in one turn."""


CASES = {
    "bpnet-64": Case(
        "BPNet, 64 filters, 8 dilated layers, 2114 bp, counts", lambda: BPNetCounts(64, 8, 520), 2114
    ),
    "chrombpnet-512": Case(
        "ChromBPNet, 512 filters, 8 dilated layers, 2114 bp, counts",
        lambda: BPNetCounts(512, 8, 520),
        2114,
        sequences=2,
    ),
    "basset": Case("Basset-like, 600 bp, max-pool, dense", basset, 600),
    "tiny": Case(
        "BPNet, 8 filters, 2 dilated layers, 256 bp: tries the benchmark itself",
        lambda: BPNetCounts(8, 2, 20),
        256,
        n_references=4,
        sequences=3,
    ),
}
