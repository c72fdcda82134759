"""What to run on finished files."""

from __future__ import annotations

import shlex

from dlgenome.writers.paths import OutputPaths

MOTIF_WIDTH = 400
"""Bases around the centre in which motifs are looked for, where windows are as wide."""


def motif_commands(paths: OutputPaths, length: int) -> tuple[str, ...]:
    """Motif discovery on the first target, from whichever of its files are written; empty if it has none."""
    target = paths.targets[0]
    if "h5" in paths.formats:
        scores = ["-i", str(paths.scores_h5(target))]
    elif "npz" in paths.formats:
        sequences, contributions = paths.npz(target)
        scores = ["-s", str(sequences), "-a", str(contributions)]
    else:
        return ()
    width = str(min(MOTIF_WIDTH, length // 2 * 2))
    motifs = f"{paths.prefix}.modisco.h5"
    return (shlex.join(["modisco", "motifs", *scores, "-n", "20000", "-w", width, "-o", motifs]),)
