"""What to run on finished files."""

from __future__ import annotations

import shlex
from pathlib import Path

from dlgenome.writers.paths import OutputPaths

MOTIF_WIDTH = 400
"""Bases around the centre in which motifs are looked for, where windows are as wide."""


def motif_commands(paths: OutputPaths, length: int) -> tuple[str, ...]:
    """Motif discovery on the first target, from whichever of its files are written; empty if it has none."""
    target = paths.targets[0]
    if "h5" in paths.formats:
        scores = ["-i", _word(paths.scores_h5(target))]
    elif "npz" in paths.formats:
        sequences, contributions = paths.npz(target)
        scores = ["-s", _word(sequences), "-a", _word(contributions)]
    else:
        return ()
    width = str(min(MOTIF_WIDTH, length // 2 * 2))
    motifs = _word(Path(f"{paths.prefix}.modisco.h5"))
    return (shlex.join(["modisco", "motifs", *scores, "-n", "20000", "-w", width, "-o", motifs]),)


def _word(path: Path) -> str:
    """The path, and where it begins with a dash, written so that no program takes it for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)
