"""What all programs are given: weights, sequences and references, made once and written to a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import Case
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome_sim.genome import random_codes


def write_inputs(case: Case, folder: Path, sequences: int, n_references: int, seed: int = 0) -> None:
    """Write `weights.pt` (torch's initial weights) and `inputs.npz` (base codes and their shuffles)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(case.build().state_dict(), folder / "weights.pt")
    generator = np.random.default_rng(seed)
    codes = random_codes(sequences * case.length, generator).reshape(sequences, case.length)
    references = shuffle_sequences(codes, n_references, seed, dinucleotides=True)
    np.savez(folder / "inputs.npz", sequences=codes, references=references)
