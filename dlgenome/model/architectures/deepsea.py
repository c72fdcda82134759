"""DeepSEA: three convolutions and two dense layers (Zhou and Troyanskaya 2015).

The published weights (919 chromatin features, converted from Torch 7, in the Kipoi collection) are those of
two-dimensional convolutions of height 1 on bases in the order A, G, C, T. Their activation is not a ReLU: it
gives 0.000001 instead of 0.
"""

from __future__ import annotations

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
    "0": "convolutions.0",
    "4": "convolutions.1",
    "8": "convolutions.2",
    "12.1": "hidden",
    "14.1": "output",
}
"""Our module path for every one of the published state_dict."""

FLOOR = 1e-06


class DeepSEA(nn.Module):
    """One logit per chromatin feature; the published last sigmoid is put on with ``probabilities``."""

    def __init__(
        self,
        n_filters: Sequence[int] = (320, 480, 960),
        kernel_size: int = 8,
        pool_size: int = 4,
        n_hidden: int = 925,
        n_outputs: int = 919,
        input_length: int = 1000,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.input_length = input_length
        self.convolutions = nn.ModuleList()
        self.activations = nn.ModuleList()
        self.pools = nn.ModuleList()
        channels, length = 4, input_length
        for index, filters in enumerate(n_filters):
            last = index == len(n_filters) - 1
            self.convolutions.append(nn.Conv2d(channels, filters, (1, kernel_size)))
            self.activations.append(nn.Threshold(0, FLOOR))
            self.pools.append(nn.Identity() if last else nn.MaxPool2d((1, pool_size)))
            length = length - kernel_size + 1 if last else (length - kernel_size + 1) // pool_size
            channels = filters
        self.hidden = nn.Linear(channels * max(length, 0), n_hidden)
        self.hidden_activation = nn.Threshold(0, FLOOR)
        self.output = nn.Linear(n_hidden, n_outputs)
        self.probability = nn.Sigmoid() if probabilities else nn.Identity()

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (batch, features) of one-hot sequences (batch, 4, length)."""
        values = sequences.unsqueeze(2)
        for convolution, activation, pool in zip(
            self.convolutions, self.activations, self.pools, strict=True
        ):
            values = pool(activation(convolution(values)))
        values = self.hidden_activation(self.hidden(values.flatten(1)))
        logits: Tensor = self.probability(self.output(values))
        return logits


def translate(tensors: Tensors) -> Tensors:
    """The published weights under our names."""
    return renamed(tensors, PUBLISHED)


def infer(tensors: Tensors) -> Arguments:
    """Filters, kernel size, hidden units and features; pools and length leave no trace in the weights."""
    shapes = [shape_of(tensors, f"convolutions.{index}.weight", 4) for index in range(len(tensors))]
    found = [shape for shape in shapes if shape is not None]
    arguments: Arguments = {}
    if found:
        arguments |= {"n_filters": [shape[0] for shape in found], "kernel_size": found[0][3]}
    if hidden := shape_of(tensors, "hidden.weight", 2):
        arguments["n_hidden"] = hidden[0]
    if output := shape_of(tensors, "output.weight", 2):
        arguments["n_outputs"] = output[0]
    return arguments


def recognises(tensors: Tensors) -> bool:
    """True for the published sizes with any number of features."""
    output = shape_of(tensors, "output.weight", 2)
    return output is not None and fits(DeepSEA, {"n_outputs": output[0]}, tensors)


DEEPSEA = Architecture(
    "deepsea",
    ("logits",),
    DeepSEA,
    infer,
    recognises,
    translate,
    title="DeepSEA, a classifier of chromatin features (published for 1,000 bases)",
    alphabet="AGCT",
)
