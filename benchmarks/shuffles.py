"""Dinucleotide shuffles a second, ours and tangermeme's, in turns on one machine.

``python -m benchmarks.shuffles --peer-python PYTHON`` starts both programs anew for every pair of turns, with
the same random sequences; each shuffles once before anything counts, and reports the median of five times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

_START = """
import sys, time, statistics
import numpy as np
sequences, length, count, threads = map(int, sys.argv[1:])
codes = np.random.default_rng(0).integers(0, 4, (sequences, length)).astype(np.uint8)
"""
_END = """
shuffle(0)
seconds = []
for seed in range(1, 6):
    begun = time.perf_counter()
    shuffle(seed)
    seconds.append(time.perf_counter() - begun)
print(sequences * count / statistics.median(seconds))
"""
_OURS = """
from dlgenome.references.shuffled import shuffle_sequences
def shuffle(seed):
    return shuffle_sequences(codes, count, seed, dinucleotides=True, threads=threads)
"""
_PEER = """
import torch
from tangermeme.ersatz import dinucleotide_shuffle
torch.set_num_threads(threads)
one_hot = torch.nn.functional.one_hot(torch.from_numpy(codes.astype(np.int64)), 4).permute(0, 2, 1).float()
def shuffle(seed):
    return dinucleotide_shuffle(one_hot, n=count, random_state=seed)
"""


def rate(python: str, program: str, arguments: list[str]) -> float:
    """Shuffles a second of one program, in a process of its own."""
    command = [python, "-c", _START + program + _END, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the medians of both programs, and of the ratios of the pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shuffles", description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("DLGENOME_PEER_PYTHON"), required=False)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=2114)
    parser.add_argument("--count", type=int, default=20, help="shuffles of each sequence")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both programs")
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    if given.peer_python is None:
        parser.error("name an interpreter that has tangermeme with --peer-python or DLGENOME_PEER_PYTHON")
    arguments = [str(given.sequences), str(given.length), str(given.count), str(given.threads)]
    pairs = [
        (rate(sys.executable, _OURS, arguments), rate(given.peer_python, _PEER, arguments))
        for _ in range(given.pairs)
    ]
    ours, peer = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = sorted(one / other for one, other in pairs)
    print(f"dlgenome {ours:,.0f} shuffles a second, tangermeme {peer:,.0f}")
    print(f"faster by {statistics.median(ratios):.1f}x ({ratios[0]:.1f} to {ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
