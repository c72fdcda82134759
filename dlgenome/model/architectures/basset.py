"""Basset: three pooled convolutions and two hidden layers (Kelley, Snoek and Rinn 2016)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from dlgenome.model.architectures.definition import (
    Architecture,
    Arguments,
    Tensors,
    fits,
    renamed,
    shape_of,
)

PUBLISHED = {
    "0": "convolutions.0.0",
    "1": "convolutions.0.1",
    "4": "convolutions.1.0",
    "5": "convolutions.1.1",
    "8": "convolutions.2.0",
    "9": "convolutions.2.1",
    "13.1": "hidden.0.0",
    "14": "hidden.0.1",
    "17.1": "hidden.1.0",
    "18": "hidden.1.1",
    "21.1": "output",
}
"""Our module path for every one of the published weights (164 cell types, in the Kipoi collection)."""


class Basset(nn.Module):
    """One logit per cell type, with unpadded convolutions; ``probabilities`` puts the last sigmoid on."""

    def __init__(
        self,
        n_filters: Sequence[int] = (300, 200, 200),
        kernel_sizes: Sequence[int] = (19, 11, 7),
        pool_sizes: Sequence[int] = (3, 4, 4),
        n_hidden: Sequence[int] = (1000, 1000),
        n_outputs: int = 164,
        input_length: int = 600,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.input_length = input_length
        self.convolutions = nn.ModuleList()
        self.pools = nn.ModuleList()
        channels, length = 4, input_length
        for filters, kernel_size, pool_size in zip(n_filters, kernel_sizes, pool_sizes, strict=True):
            self.convolutions.append(_block(nn.Conv1d(channels, filters, kernel_size), filters))
            self.pools.append(nn.MaxPool1d(pool_size))
            channels, length = filters, (length - kernel_size + 1) // pool_size
        width = channels * max(length, 0)
        self.hidden = nn.ModuleList()
        for size in n_hidden:
            self.hidden.append(_block(nn.Linear(width, size), size, dropout=0.3))
            width = size
        self.output = nn.Linear(width, n_outputs)
        self.probability = nn.Sigmoid() if probabilities else nn.Identity()

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (batch, tasks) of one-hot sequences (batch, 4, length)."""
        values = sequences
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            values = pool(convolution(values))
        values = values.flatten(1)
        for layer in self.hidden:
            values = layer(values)
        logits: Tensor = self.probability(self.output(values))
        return logits


def _block(layer: nn.Module, width: int, dropout: float = 0.0) -> nn.Sequential:
    parts = [layer, nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Dropout(dropout)) if dropout else nn.Sequential(*parts)


def infer(tensors: Tensors) -> Arguments:
    """Filters, kernel sizes, hidden layers and tasks; pool sizes leave no trace in the weights."""
    convolutions = _shapes(tensors, "convolutions", 3)
    hidden = _shapes(tensors, "hidden", 2)
    arguments: Arguments = {}
    if convolutions:
        arguments["n_filters"] = [shape[0] for shape in convolutions]
        arguments["kernel_sizes"] = [shape[2] for shape in convolutions]
    if hidden:
        arguments["n_hidden"] = [shape[0] for shape in hidden]
    if output := shape_of(tensors, "output.weight", 2):
        arguments["n_outputs"] = output[0]
    return arguments


def _shapes(tensors: Tensors, group: str, dimensions: int) -> list[tuple[int, ...]]:
    numbers = {int(match[1]) for key in tensors if (match := re.match(rf"{group}\.(\d+)\.0\.weight$", key))}
    found = [shape_of(tensors, f"{group}.{number}.0.weight", dimensions) for number in sorted(numbers)]
    return [shape for shape in found if shape is not None]


def translate(tensors: Tensors) -> Tensors:
    """The published weights, whose convolutions are two-dimensional of width 1, under our names."""
    found = renamed(tensors, PUBLISHED)
    return {key: tensor.squeeze(3) if tensor.dim() == 4 else tensor for key, tensor in found.items()}


def recognises(tensors: Tensors) -> bool:
    """True for the published sizes with any number of tasks: pools and length leave no trace."""
    output = shape_of(tensors, "output.weight", 2)
    return output is not None and fits(Basset, {"n_outputs": output[0]}, tensors)


BASSET = Architecture(
    "basset",
    ("logits",),
    Basset,
    infer,
    recognises,
    translate,
    title="Basset, a classifier of chromatin accessibility (published for 600 bases)",
)
