"""A Keras model as a torch module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlgenome.model.keras.axes import from_keras
from dlgenome.model.keras.topology import ModelInput


@dataclass(frozen=True)
class Step:
    """One layer at work: the module of that path on values by number."""

    path: str
    inputs: tuple[int, ...]
    output: int


class KerasModel(nn.Module):
    """Layers of a Keras model under their own names.

    The first input of shape (length, 4), also with an axis of size 1, is the sequence and is taken as
    (batch, 4, length); another first input is taken in the shape that Keras has. Further inputs follow in
    the order of the file, in the shape that Keras has, and are zeros where they are not given. Outputs with
    positions are (batch, channels, positions).
    """

    def __init__(self, inputs: Sequence[ModelInput]) -> None:
        super().__init__()
        first = next((entry for entry in inputs if sequence_axes(entry.shape)), inputs[0])
        self.inputs = (first, *(entry for entry in inputs if entry is not first))
        self.steps: tuple[Step, ...] = ()
        self.outputs: tuple[int, ...] = ()
        self.profile_first = False
        """Whether the first output gets an axis for the strands, as the profiles of BPNet have."""
        for index, entry in enumerate(self.inputs[1:]):
            self.register_buffer(f"zeros_{index}", torch.zeros([size or 1 for size in entry.shape]), False)

    def forward(self, sequences: Tensor, *further: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs, in the order of the file."""
        values = {self.inputs[0].value: self._first(sequences)}
        for entry, value in zip(self.inputs[1:], self._further(sequences, further), strict=True):
            values[entry.value] = from_keras(value)
        for step in self.steps:
            values[step.output] = self.get_submodule(step.path)(*[values[number] for number in step.inputs])
        results = [values[number] for number in self.outputs]
        if self.profile_first:
            results[0] = results[0].unsqueeze(1)
        return results[0] if len(results) == 1 else tuple(results)

    def _first(self, value: Tensor) -> Tensor:
        axes = sequence_axes(self.inputs[0].shape)
        if axes is None:
            return from_keras(value)
        if axes == ("length", "base"):
            return value
        positions = {"base": 1, "length": 2, "one": 3}
        value = value.unsqueeze(3) if "one" in axes else value
        return from_keras(value.permute(0, *[positions[axis] for axis in axes]))

    def _further(self, sequences: Tensor, given: Sequence[Tensor]) -> list[Tensor]:
        """Every further input; of BPNet's controls the log counts follow from the profile."""
        entries = self.inputs[1:]
        if len(given) > len(entries):
            raise ValueError(f"{len(given)} extra inputs for a model that takes {len(entries)}")
        values = list(given)
        names = [entry.name.rpartition("_input_")[0] for entry in entries]
        if len(values) == 1 and names == ["profile_bias", "counts_bias"]:
            values.append(torch.log(values[0].sum(dim=1) + 1))
        for index in range(len(values), len(entries)):
            zeros = getattr(self, f"zeros_{index}")
            values.append(zeros.expand(sequences.shape[0], *zeros.shape))
        for entry, value in zip(entries, values, strict=True):
            if tuple(value.shape[1:]) != entry.shape and None not in entry.shape:
                raise ValueError(f"input {entry.name} takes {entry.shape}, not {tuple(value.shape[1:])}")
        return values


def sequence_axes(shape: Sequence[int | None]) -> tuple[str, ...] | None:
    """What the axes of an input are where it takes a sequence; None where it takes something else."""
    if len(shape) not in (2, 3) or shape.count(4) != 1 or (len(shape) == 3 and shape.count(1) != 1):
        return None
    if len(shape) == 2 and 1 in shape:
        return None
    return tuple({4: "base", 1: "one"}.get(size or 0, "length") for size in shape)


def input_length(shape: Sequence[int | None]) -> int | None:
    """Bases of a sequence input of this shape."""
    axes = sequence_axes(shape)
    return None if axes is None else shape[axes.index("length")]
