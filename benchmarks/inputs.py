"""What all programs are given: weights, sequences and references, made once and written to a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cases import BPNetCounts, Case
from benchmarks.processes import BenchmarkError
from dlgenome.errors import DlgenomeError
from dlgenome.model.architectures.bpnet import COUNT_MARGIN, BPNet
from dlgenome.model.checkpoint import load_model
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome_sim.genome import random_codes


def write_inputs(
    case: Case,
    folder: Path,
    sequences: int,
    n_references: int,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> None:
    """Write `weights.pt` and `inputs.npz` (base codes and their shuffles).

    The weights are torch's initial ones, for a trained case those of the checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = case.build()
    if case.trained:
        assert checkpoint is not None, "the command has asked for it"
        network.load_state_dict(trained_weights(network, checkpoint))
    torch.save(network.state_dict(), folder / "weights.pt")
    generator = np.random.default_rng(seed)
    codes = random_codes(sequences * case.length, generator).reshape(sequences, case.length)
    references = shuffle_sequences(codes, n_references, seed, dinucleotides=True)
    np.savez(folder / "inputs.npz", sequences=codes, references=references)


def trained_weights(network: nn.Module, checkpoint: Path) -> dict[str, Tensor]:
    """The trunk and the counts head of a BPNet, under the names that `BPNetCounts` has for them.

    Raises BenchmarkError for a checkpoint that is no BPNet of its size.
    """
    assert isinstance(network, BPNetCounts)
    try:
        model = load_model(checkpoint).module
    except DlgenomeError as problem:
        raise BenchmarkError(str(problem)) from problem
    refusal = BenchmarkError(
        f"{checkpoint} is not a BPNet of {network.linear.in_features} filters and "
        f"{len(network.convolutions)} dilated layers without control tracks and with a profile of 1000 bases."
    )
    if (
        not isinstance(model, BPNet)
        or model.n_control_tracks
        or model.trimming - COUNT_MARGIN != network.margin
    ):
        raise refusal
    theirs = {"iconv": "first", "rconvs": "convolutions", "linear": "linear"}
    weights = {
        f"{theirs[layer]}.{rest}": tensor
        for name, tensor in model.state_dict().items()
        for layer, _, rest in [name.partition(".")]
        if layer in theirs
    }
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise refusal
    return weights
