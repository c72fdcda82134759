"""Figures as a table to read, JSON to keep and a picture to show."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.compare import Comparison, Timing, spread

MEBIBYTE = 2**20
ROUNDING = 0.01
"""Share of the largest contribution that no precision here loses: more comes from another rule."""
HEADER = (
    "program",
    "precision",
    "pairs a step",
    "ms a sequence, median (range)",
    "ms a pair",
    "regions/s",
    "dlgenome is faster by, median (range)",
    "times the convolution bound",
    "peak memory",
    "from float64",
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns lined up."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    ruler = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, ruler, *rows)
    )


def comparison_text(comparison: Comparison) -> str:
    """Title and table of one case."""
    rows = [_row(comparison, timing) for timing in comparison.timings]
    turns = len(comparison.timings[0].seconds)
    return (
        f"{CASES[comparison.case].title}; {comparison.n_references} references, "
        f"{turns} turns of {comparison.sequences} sequences each\n\n{table(HEADER, rows)}\n\n"
        f"{_bound_text(comparison)}"
    )


def _bound_text(comparison: Comparison) -> str:
    bound, n_references = comparison.bound, comparison.n_references
    rows = n_references + 1 + n_references * len(CASES[comparison.case].targets)
    found = spread([rate / 1e9 for rate in bound.rates])
    return (
        f"convolution bound: {bound.operations / 1e9:.4g} GFLOP a sequence ({rows} rows); best rate of "
        f"convolutions in dlgenome's process {found.median:.0f} ({found.minimum:.0f}-{found.maximum:.0f}) "
        f"GFLOP/s: {bound.operations / found.median / 1e6:.3g} ms"
    )


def _row(comparison: Comparison, timing: Timing) -> tuple[str, ...]:
    if timing.error is not None:
        return (
            _name(timing),
            _precision(comparison, timing),
            str(timing.batch_size),
            timing.error,
            *[""] * (len(HEADER) - 4),
        )
    each = spread([seconds / comparison.sequences for seconds in timing.seconds])
    return (
        _name(timing),
        _precision(comparison, timing),
        str(timing.batch_size),
        f"{each.median * 1e3:.3g} ({each.minimum * 1e3:.3g}-{each.maximum * 1e3:.3g})",
        f"{each.median * 1e3 / comparison.n_references:.3g}",
        f"{1 / each.median:.3g}",
        _times(comparison.ratios(timing)),
        _times(comparison.times_the_bound(timing)),
        _memory(timing),
        _from_exact(timing.difference),
    )


def _precision(comparison: Comparison, timing: Timing) -> str:
    """That of the program: only dlgenome computes in bfloat16; on CUDA the others round as torch does."""
    if timing.program == "dlgenome" or comparison.precision in ("float32", "float64"):
        return comparison.precision
    return "float32" if comparison.device == "cpu" else "tf32 in convolutions"


def _name(timing: Timing) -> str:
    versions = timing.versions
    return f"{timing.program} {versions[timing.program]}, {timing.setup} (torch {versions['torch']})"


def _memory(timing: Timing) -> str:
    """Of the process, and of the GPU where there is one."""
    own = f"{timing.peak_memory_bytes / MEBIBYTE:.0f} MiB"
    if timing.peak_device_bytes is None:
        return own
    return f"{own}, GPU {timing.peak_device_bytes / MEBIBYTE:.0f} MiB"


def _from_exact(difference: float | None) -> str:
    """The difference, and that it is no rounding where it is none."""
    if difference is None:
        return ""
    return f"{difference:.1e}" + (", other scores" if difference > ROUNDING else "")


def _times(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    found = spread(ratios)
    return f"{found.median:.2f}x ({found.minimum:.2f}-{found.maximum:.2f})"


def facts_text(facts: Mapping[str, Any]) -> str:
    """The circumstances, one a line."""
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())


def as_json(facts: Mapping[str, Any], comparisons: Sequence[Comparison]) -> str:
    """Everything measured, turn by turn."""
    measured = []
    for comparison in comparisons:
        entry: dict[str, Any] = {**asdict(comparison), "title": CASES[comparison.case].title}
        for timing, written in zip(comparison.timings, entry["timings"], strict=True):
            ratios, times = comparison.ratios(timing), comparison.times_the_bound(timing)
            written["ratios"] = list(ratios)
            written["ratio"] = asdict(spread(ratios)) if ratios else None
            written["times_the_bound"] = list(times)
            written["times_the_bound_spread"] = asdict(spread(times)) if times else None
        measured.append(entry)
    return json.dumps({"facts": facts, "comparisons": measured}, indent=2) + "\n"


def write(
    json_file: Path | None, as_text: Callable[[], str], plot_file: Path | None, draw: Callable[[Path], None]
) -> None:
    """Write the files that were asked for; their folders are made."""
    for path in (json_file, plot_file):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    if json_file is not None:
        json_file.write_text(as_text())
    if plot_file is not None:
        draw(plot_file)


def plot(path: Path, facts: Mapping[str, Any], comparisons: Sequence[Comparison]) -> None:
    """A picture of milliseconds a sequence: bars for the medians, dots for single turns."""
    from matplotlib.figure import Figure

    bars = [(c, t) for c in comparisons for t in c.timings if t.error is None]
    figure = Figure(figsize=(8, 1.4 + 0.55 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, (comparison, timing) in enumerate(bars):
        each = [seconds / comparison.sequences * 1e3 for seconds in timing.seconds]
        ratios = comparison.ratios(timing)
        median = spread(each).median
        axes.barh(place, median, color="silver" if ratios else "tab:blue")
        axes.plot(each, [place] * len(each), ".", color="black", markersize=4)
        label = f"  {median:.3g} ms" + (f", {_times(ratios)}" if ratios else "")
        axes.annotate(label, (max(each), place), va="center", fontsize=8)
    labels = [f"{c.case}, {c.n_references} references\n{t.program}, {t.setup}" for c, t in bars]
    axes.set_yticks(range(len(bars)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.4)
    axes.set_xlabel("milliseconds a sequence; shorter is faster", fontsize=8)
    axes.set_title(
        f"{facts['date'][:10]}, {facts['processor']}, {facts['threads']} threads, {comparisons[0].precision}",
        fontsize=8,
    )
    figure.savefig(path, dpi=150)
