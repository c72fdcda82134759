"""What a program under test is given. Imported in the environments of other programs too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.cases import Case, named

Scores = NDArray[np.floating[Any]]
Explain = Callable[[], Scores]
"""Hypothetical contributions, (targets, sequences, 4, length), of every target and sequence of the task."""


@dataclass(frozen=True)
class Task:
    """One program, told what to explain and how."""

    program: str
    case: str
    folder: Path
    """Holds the weights, the sequences and the references."""
    precision: str
    threads: int
    batch_size: int | None = None
    """Sequence-reference pairs a step; None leaves the program its own way."""
    device: str = "cpu"

    @property
    def facts(self) -> Case:
        """The case by its name."""
        return named(self.case)

    @property
    def dtype(self) -> torch.dtype:
        """Numbers that the network computes with; bfloat16 is only inside convolutions of dlgenome."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def network(self) -> nn.Module:
        """The network with the weights of the task, in prediction mode."""
        network = self.facts.build()
        network.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        return network.eval()

    def parts(self) -> list[nn.Module]:
        """A network for each target, whose output 0 it is: for programs that explain one output a call."""
        return [part.to(self.dtype) for part in self.facts.parts(self.network())]

    def as_torch_comes(self) -> None:
        """Torch's own settings for another program where it may round; else all of the precision.

        On CUDA torch lets convolutions round to tf32 by itself.
        """
        if self.precision in ("float32", "float64"):
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False

    def codes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Base codes of the sequences (sequences, length) and references (sequences, references, length)."""
        with np.load(self.folder / "inputs.npz") as inputs:
            return inputs["sequences"], inputs["references"]

    def one_hot(self) -> tuple[Tensor, Tensor]:
        """Sequences (sequences, 4, length) and references (sequences, references, 4, length)."""
        bases = torch.eye(4, dtype=self.dtype)
        sequences, references = (
            bases[torch.from_numpy(codes).long()].movedim(-1, -2).contiguous() for codes in self.codes()
        )
        return sequences, references


@dataclass(frozen=True)
class Prepared:
    """A program with everything loaded: all that is left to do is what is timed."""

    explain: Explain
    batch_size: int
    versions: Mapping[str, str]
