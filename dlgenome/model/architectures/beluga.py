"""Beluga: the deeper DeepSEA of 2,000 bases and 2,002 features (Zhou et al. 2018), the base of ExPecto.

The published weights are those of two-dimensional convolutions of height 1 on bases in the order A, G, C, T.
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
    "0.0": "convolutions.0",
    "0.2": "convolutions.1",
    "0.6": "convolutions.2",
    "0.8": "convolutions.3",
    "0.12": "convolutions.4",
    "0.14": "convolutions.5",
    "1.2.1": "hidden",
    "1.4.1": "output",
}
"""Our module path for every one of the published state_dict."""


class Beluga(nn.Module):
    """One logit per chromatin feature; the published last sigmoid is put on with ``probabilities``.

    Convolutions come in pairs; all pairs but the last are followed by a pool.
    """

    def __init__(
        self,
        n_filters: Sequence[int] = (320, 480, 640),
        kernel_size: int = 8,
        pool_size: int = 4,
        n_hidden: int = 2003,
        n_outputs: int = 2002,
        input_length: int = 2000,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.input_length = input_length
        self.convolutions = nn.ModuleList()
        self.activations = nn.ModuleList()
        self.pools = nn.ModuleList()
        channels, length = 4, input_length
        for index, filters in enumerate(n_filters):
            for source in (channels, filters):
                self.convolutions.append(nn.Conv2d(source, filters, (1, kernel_size)))
                self.activations.append(nn.ReLU())
                length -= kernel_size - 1
            if index < len(n_filters) - 1:
                self.pools.append(nn.MaxPool2d((1, pool_size)))
                length //= pool_size
            channels = filters
        self.hidden = nn.Linear(channels * max(length, 0), n_hidden)
        self.hidden_activation = nn.ReLU()
        self.output = nn.Linear(n_hidden, n_outputs)
        self.probability = nn.Sigmoid() if probabilities else nn.Identity()

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (batch, features) of one-hot sequences (batch, 4, length)."""
        values = sequences.unsqueeze(2)
        for index, (convolution, activation) in enumerate(
            zip(self.convolutions, self.activations, strict=True)
        ):
            if index and index % 2 == 0:
                values = self.pools[index // 2 - 1](values)
            values = activation(convolution(values))
        values = self.hidden_activation(self.hidden(values.flatten(1)))
        logits: Tensor = self.probability(self.output(values))
        return logits


def translate(tensors: Tensors) -> Tensors:
    """The published weights, with or without their word ``model.``, under our names."""
    bare = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    found = renamed(bare, PUBLISHED)
    return tensors if found is bare else found


def infer(tensors: Tensors) -> Arguments:
    """Filters, kernel size, hidden units and features; pools and length leave no trace in the weights."""
    shapes = [shape_of(tensors, f"convolutions.{index}.weight", 4) for index in range(len(tensors))]
    found = [shape for shape in shapes if shape is not None]
    arguments: Arguments = {}
    if found:
        arguments |= {"n_filters": [shape[0] for shape in found[::2]], "kernel_size": found[0][3]}
    if hidden := shape_of(tensors, "hidden.weight", 2):
        arguments["n_hidden"] = hidden[0]
    if output := shape_of(tensors, "output.weight", 2):
        arguments["n_outputs"] = output[0]
    return arguments


def recognises(tensors: Tensors) -> bool:
    """True for the published sizes with any number of features."""
    output = shape_of(tensors, "output.weight", 2)
    return output is not None and fits(Beluga, {"n_outputs": output[0]}, tensors)


BELUGA = Architecture(
    "beluga",
    ("logits",),
    Beluga,
    infer,
    recognises,
    translate,
    title="Beluga, the deeper DeepSEA, a classifier of chromatin features (published for 2,000 bases)",
    alphabet="AGCT",
)
