"""Pangolin: dilated residual blocks for splice sites in four tissues (Zeng and Li 2022).

Parameter names are the published ones, so the released weights fit unchanged. Activations are functional and
the network is the one that SpliceAI introduced (Jaganathan et al. 2019) with other heads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors, fits, shape_of

KERNEL_SIZES = (11,) * 8 + (21,) * 4 + (41,) * 4
DILATIONS = (1,) * 4 + (4,) * 4 + (10,) * 4 + (25,) * 4
BLOCKS_PER_SKIP = 4
HEADS = (2, 1) * 4
"""Channels of each head: two for being a splice site, one for its usage, in heart, liver, brain, testis."""


class ResidualBlock(nn.Module):
    """Two normalised, activated, dilated convolutions beside the identity."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.bn1 = nn.BatchNorm1d(channels)
        self.conv1 = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
        self.bn2 = nn.BatchNorm1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)

    def forward(self, values: Tensor) -> Tensor:
        """Values of the same shape."""
        inner = self.conv1(torch.relu(self.bn1(values)))
        total: Tensor = values + self.conv2(torch.relu(self.bn2(inner)))
        return total


class Pangolin(nn.Module):
    """Logits (batch, 12, positions) of the positions that lie ``context / 2`` from either end.

    With ``probabilities`` softmax and sigmoid follow, as published.
    """

    def __init__(
        self,
        n_filters: int = 32,
        kernel_sizes: Sequence[int] = KERNEL_SIZES,
        dilations: Sequence[int] = DILATIONS,
        heads: Sequence[int] = HEADS,
        input_length: int = 15000,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        if len(kernel_sizes) != len(dilations):
            raise ValueError(
                f"{len(kernel_sizes)} kernel sizes need as many dilations, not {len(dilations)};"
                " dilations leave no trace in the weights"
            )
        self.input_length = input_length
        self.probabilities = probabilities
        self.margin = sum(
            dilation * (size - 1) for size, dilation in zip(kernel_sizes, dilations, strict=True)
        )
        self.conv1 = nn.Conv1d(4, n_filters, 1)
        self.skip = nn.Conv1d(n_filters, n_filters, 1)
        self.resblocks = nn.ModuleList(
            ResidualBlock(n_filters, size, dilation)
            for size, dilation in zip(kernel_sizes, dilations, strict=True)
        )
        n_skips = -(-len(kernel_sizes) // BLOCKS_PER_SKIP)
        self.convs = nn.ModuleList(nn.Conv1d(n_filters, n_filters, 1) for _ in range(n_skips))
        self.n_heads = len(heads)
        for number, channels in enumerate(heads, start=1):
            self.add_module(f"conv_last{number}", nn.Conv1d(n_filters, channels, 1))

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits of one-hot sequences (batch, 4, length)."""
        values = self.conv1(sequences)
        total = self.skip(values)
        for index, block in enumerate(self.resblocks, start=1):
            values = block(values)
            if index % BLOCKS_PER_SKIP == 0 or index == len(self.resblocks):
                total = total + self.convs[(index - 1) // BLOCKS_PER_SKIP](values)
        total = total[:, :, self.margin : total.shape[2] - self.margin]
        return torch.cat([self._head(number, total) for number in range(1, self.n_heads + 1)], dim=1)

    def _head(self, number: int, values: Tensor) -> Tensor:
        logits: Tensor = self.get_submodule(f"conv_last{number}")(values)
        if not self.probabilities:
            return logits
        return F.softmax(logits, dim=1) if logits.shape[1] > 1 else torch.sigmoid(logits)


def infer(tensors: Tensors) -> Arguments:
    """Everything but the dilations and the input length, which leave no trace in the weights."""
    arguments: Arguments = {}
    if first := shape_of(tensors, "conv1.weight", 3):
        arguments["n_filters"] = first[0]
    for argument, pattern, axis in (
        ("kernel_sizes", r"resblocks\.(\d+)\.conv1\.weight", 2),
        ("heads", r"conv_last(\d+)\.weight", 0),
    ):
        numbered = {int(match[1]): key for key in tensors if (match := re.fullmatch(pattern, key))}
        shapes = [shape_of(tensors, numbered[number], 3) for number in sorted(numbered)]
        if shapes:
            arguments[argument] = [shape[axis] for shape in shapes if shape]
    return arguments


def recognises(tensors: Tensors) -> bool:
    """True for the published kernel sizes, whose dilations are known, with any filters and heads."""
    arguments = infer(tensors)
    return arguments.get("kernel_sizes") == list(KERNEL_SIZES) and fits(Pangolin, arguments, tensors)


PANGOLIN = Architecture(
    "pangolin",
    ("logits",),
    Pangolin,
    infer,
    recognises,
    title="Pangolin, splice sites and their usage in four tissues, at base resolution",
)
