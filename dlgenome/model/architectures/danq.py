"""DanQ: a pooled convolution and a recurrent layer read in both directions (Quang and Xie 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from dlgenome.model.architectures.definition import (
    Architecture,
    Arguments,
    Tensors,
    fits,
    renamed,
    shape_of,
)

OTHER_NAMES = {
    "conv_pool_drop_1.0": "convolution",
    "bdlstm": "recurrent",
    "dense_1.0": "hidden",
    "dense_2.0": "output",
}
"""Our module path for those of a widespread PyTorch version; DanQ itself was published in Keras only."""


class DanQ(nn.Module):
    """One logit per chromatin feature; the published last sigmoid is put on with ``probabilities``."""

    def __init__(
        self,
        n_filters: int = 320,
        kernel_size: int = 26,
        pool_size: int = 13,
        n_recurrent: int = 320,
        n_hidden: int = 925,
        n_outputs: int = 919,
        input_length: int = 1000,
        probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.input_length = input_length
        self.convolution = nn.Conv1d(4, n_filters, kernel_size)
        self.activation = nn.ReLU()
        self.pool = nn.MaxPool1d(pool_size)
        self.recurrent = nn.LSTM(n_filters, n_recurrent, batch_first=True, bidirectional=True)
        steps = max(input_length - kernel_size + 1, 0) // pool_size
        self.hidden = nn.Linear(steps * 2 * n_recurrent, n_hidden)
        self.hidden_activation = nn.ReLU()
        self.output = nn.Linear(n_hidden, n_outputs)
        self.probability = nn.Sigmoid() if probabilities else nn.Identity()

    def forward(self, sequences: Tensor) -> Tensor:
        """Logits (batch, features) of one-hot sequences (batch, 4, length)."""
        values = self.pool(self.activation(self.convolution(sequences)))
        values, _ = self.recurrent(values.transpose(1, 2))
        values = self.hidden_activation(self.hidden(values.flatten(1)))
        logits: Tensor = self.probability(self.output(values))
        return logits


def translate(tensors: Tensors) -> Tensors:
    """Weights of the other version under our names."""
    return renamed(tensors, OTHER_NAMES)


def infer(tensors: Tensors) -> Arguments:
    """Filters, kernel size, recurrent and hidden units, features; the pool leaves no trace."""
    arguments: Arguments = {}
    if first := shape_of(tensors, "convolution.weight", 3):
        arguments |= {"n_filters": first[0], "kernel_size": first[2]}
    if recurrent := shape_of(tensors, "recurrent.weight_hh_l0", 2):
        arguments["n_recurrent"] = recurrent[1]
    if hidden := shape_of(tensors, "hidden.weight", 2):
        arguments["n_hidden"] = hidden[0]
    if output := shape_of(tensors, "output.weight", 2):
        arguments["n_outputs"] = output[0]
    return arguments


def recognises(tensors: Tensors) -> bool:
    """True for the published sizes with any number of features."""
    output = shape_of(tensors, "output.weight", 2)
    return output is not None and fits(DanQ, {"n_outputs": output[0]}, tensors)


DANQ = Architecture(
    "danq",
    ("logits",),
    DanQ,
    infer,
    recognises,
    translate,
    title="DanQ, a classifier of chromatin features with a recurrent layer (published for 1,000 bases)",
)
