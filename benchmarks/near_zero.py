"""float32 error on smooth networks that the near-zero rules were not chosen on, and on saturated softmax.

Run by each program's own Python: `python -m benchmarks.near_zero PROGRAM` prints one JSON object. The error
is the largest difference from dlgenome's float64 scores over the largest of them.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.constructs_programs import PROGRAMS, Codes

LENGTH, SEQUENCES, REFERENCES = 200, 8, 10


class SoftmaxNet(nn.Module):
    """A convolution whose channels compete in a softmax; ``scale`` multiplies the logits."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first, self.softmax = nn.Conv1d(4, 16, 11), nn.Softmax(dim=1)
        self.last = nn.Linear(16, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, 1)."""
        weights = self.softmax(self.first(sequences) * self.scale)
        result: Tensor = self.last(weights.mean(2))
        return result


def _smooth(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 24, 11), activation(), nn.Conv1d(24, 24, 7, dilation=3), activation(),
        nn.AvgPool1d(8), nn.Flatten(), nn.Linear(24 * 21, 16), activation(), nn.Linear(16, 1),
    )  # fmt: skip


def networks() -> dict[str, nn.Module]:
    """Networks by name, with seeded weights."""
    torch.manual_seed(11)
    named: dict[str, nn.Module] = {
        "GELU": _smooth(nn.GELU),
        "SiLU": _smooth(nn.SiLU),
        "sigmoid": _smooth(nn.Sigmoid),
        "softplus": _smooth(nn.Softplus),
        "softmax": SoftmaxNet(4.0),
        "softmax, logits to 100 and more": SoftmaxNet(250.0),
    }
    return {name: network.eval().requires_grad_(False) for name, network in named.items()}


def inputs() -> tuple[Codes, Codes]:
    """Sequences, and references that differ from them at one base in ten: many differences are small."""
    generator = np.random.default_rng(5)
    sequences = generator.integers(0, 4, (SEQUENCES, LENGTH), dtype=np.uint8)
    references = np.repeat(sequences[:, None], REFERENCES, axis=1)
    changed = generator.random(references.shape) < 0.1
    references[changed] = generator.integers(0, 4, int(changed.sum()), dtype=np.uint8)
    return sequences, references


def scores(program: str, dtype: torch.dtype) -> dict[str, NDArray[np.float64]]:
    """(sequences, 4, length) scores of every network, by one program."""
    sequences, references = inputs()
    return {
        name: PROGRAMS[program](network.to(dtype), sequences, references, dtype).astype(np.float64)
        for name, network in networks().items()
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    single = scores(sys.argv[1], torch.float32)
    print(json.dumps({name: values.tolist() for name, values in single.items()}))
