"""DeepSTARR: enhancer activity of 249 bases in Drosophila cells (de Almeida et al. 2022).

Published in Keras; in PyTorch it is found with the parameter names of the version that comes with EvoAug,
whose convolutions are bare parameters without a bias.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors, fits, shape_of

OTHER_NAMES = {
    **{f"conv{number}_filters": f"convolutions.{number - 1}.weight" for number in range(1, 5)},
    **{f"batchnorm{number}": f"normalisations.{number - 1}" for number in range(1, 7)},
    **{f"fc{number}": f"hidden.{number - 5}" for number in (5, 6)},
    "fc7": "output",
}
"""Our path for those of EvoAug's version."""


class DeepSTARR(nn.Module):
    """Activities (batch, 2) with a developmental and a housekeeping promoter.

    Flattening goes through all positions of one filter before the next, as in PyTorch; weights from Keras,
    where it is the other way round, need their first dense layer reordered.
    """

    def __init__(
        self,
        n_filters: Sequence[int] = (256, 60, 60, 120),
        kernel_sizes: Sequence[int] = (7, 3, 5, 3),
        pool_size: int = 2,
        n_hidden: Sequence[int] = (256, 256),
        n_outputs: int = 2,
        convolution_bias: bool = True,
        input_length: int = 249,
    ) -> None:
        super().__init__()
        self.input_length = input_length
        self.convolutions = nn.ModuleList()
        self.hidden = nn.ModuleList()
        channels, length = 4, input_length
        for filters, kernel_size in zip(n_filters, kernel_sizes, strict=True):
            self.convolutions.append(
                nn.Conv1d(channels, filters, kernel_size, padding="same", bias=convolution_bias)
            )
            channels, length = filters, length // pool_size
        width = channels * length
        for size in n_hidden:
            self.hidden.append(nn.Linear(width, size))
            width = size
        widths = (*n_filters, *n_hidden)
        self.normalisations = nn.ModuleList(nn.BatchNorm1d(size) for size in widths)
        self.activations = nn.ModuleList(nn.ReLU() for _ in widths)
        self.pools = nn.ModuleList(nn.MaxPool1d(pool_size) for _ in n_filters)
        self.output = nn.Linear(width, n_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        """Activities (batch, outputs) of one-hot sequences (batch, 4, length)."""
        values = sequences
        for index, layer in enumerate((*self.convolutions, *self.hidden)):
            if index == len(self.convolutions):
                values = values.flatten(1)
            values = self.activations[index](self.normalisations[index](layer(values)))
            if index < len(self.pools):
                values = self.pools[index](values)
        activities: Tensor = self.output(values)
        return activities


def translate(tensors: Tensors) -> Tensors:
    """Weights of EvoAug's version under our names."""
    if "conv1_filters" not in tensors:
        return tensors
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        path, _, leaf = key.partition(".")
        found[".".join(part for part in (OTHER_NAMES.get(path, path), leaf) if part)] = tensor
    return found


def infer(tensors: Tensors) -> Arguments:
    """Everything but the pool size and the input length, which leave no trace in the weights."""
    convolutions = [shape_of(tensors, f"convolutions.{index}.weight", 3) for index in range(len(tensors))]
    hidden = [shape_of(tensors, f"hidden.{index}.weight", 2) for index in range(len(tensors))]
    arguments: Arguments = {}
    if found := [shape for shape in convolutions if shape]:
        arguments |= {
            "n_filters": [shape[0] for shape in found],
            "kernel_sizes": [shape[2] for shape in found],
            "convolution_bias": "convolutions.0.bias" in tensors,
        }
    if any(hidden):
        arguments["n_hidden"] = [shape[0] for shape in hidden if shape]
    if output := shape_of(tensors, "output.weight", 2):
        arguments["n_outputs"] = output[0]
    return arguments


def recognises(tensors: Tensors) -> bool:
    """True for the published kernels; filters may differ, the pools must explain the dense layer."""
    arguments = infer(tensors)
    return arguments.get("kernel_sizes") == [7, 3, 5, 3] and fits(DeepSTARR, arguments, tensors)


DEEPSTARR = Architecture(
    "deepstarr",
    ("activity",),
    DeepSTARR,
    infer,
    recognises,
    translate,
    title="DeepSTARR, developmental and housekeeping enhancer activity (published for 249 bases)",
)
