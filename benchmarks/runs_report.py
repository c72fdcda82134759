"""Whole runs as tables: what the time of one goes to, and what memory a region takes in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.command import Run
from benchmarks.report import MEBIBYTE, table

LARGE_FILES = (".h5", ".bw", ".bed")
IN_TURN = {
    "scoring_model": "the model",
    "scoring_waiting": "waiting for windows and references",
    "scoring_spooling": "handing over the scores",
}
"""Parts of scoring that exclude each other."""
BESIDE = {
    "scoring_reading": "reading windows, in a second thread",
    "scoring_references": "drawing references, in a second thread",
}
"""Parts that run beside those."""


def split_text(run: Run) -> str:
    """What the time of a run goes to, in order; below the line what happens beside it."""
    rows = {**split(run), "in all": run.seconds}
    rows |= {words: run.parts[name] for name, words in BESIDE.items()}
    shown = [(words, f"{took:.2f}", f"{took / run.seconds:.1%}") for words, took in rows.items()]
    shuffles = run.parts["scoring_references"]
    return (
        f"{run.regions} regions, {run.regions / run.seconds:.2f} regions/s, "
        f"peak memory {run.peak_memory_bytes / MEBIBYTE:.0f} MiB\n\n"
        f"{table(('part', 'seconds', 'share of the run'), shown)}\n\n"
        f"drawing references: {shuffles / run.seconds:.2%} of the run, "
        f"{shuffles / run.parts['scoring']:.2%} of scoring"
    )


def split(run: Run) -> Mapping[str, float]:
    """Seconds of the parts that follow each other; they add up to the whole run."""
    parts = run.parts
    phases = parts["checks"] + parts["scoring"] + parts["writing"]
    in_turn = {words: parts[name] for name, words in IN_TURN.items()}
    return {
        "start-up of Python and libraries": run.seconds - phases,
        "opening the inputs, capturing the model": parts["checks"],
        **in_turn,
        "the rest of scoring": parts["scoring"] - sum(in_turn.values()),
        "making the files": parts["writing"],
    }


def bytes_a_region(smaller: Run, larger: Run) -> float:
    """How much more memory the larger run takes at its peak, for each region that it has more."""
    more = larger.peak_memory_bytes - smaller.peak_memory_bytes
    return more / (larger.regions - smaller.regions)


def memory_text(runs: Sequence[Run]) -> str:
    """A table of runs, each compared with the one above it."""
    header = ("regions", "seconds", "scoring", "finishing", "its share", "peak memory", "bytes a region")
    rows = []
    for place, run in enumerate(runs):
        finishing = run.parts["writing"]
        rows.append(
            (
                f"{run.regions:,}",
                f"{run.seconds:.1f}",
                f"{run.parts['scoring']:.1f}",
                f"{finishing:.1f}",
                f"{finishing / run.seconds:.0%}",
                f"{run.peak_memory_bytes / MEBIBYTE:.1f} MiB",
                f"{bytes_a_region(runs[place - 1], run):.0f}" if place else "",
                *(f"{run.file_bytes.get(ending, 0) / MEBIBYTE:.1f} MiB" for ending in LARGE_FILES),
            )
        )
    return table((*header, *LARGE_FILES), rows)
