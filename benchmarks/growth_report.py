"""How costs grow, as a table, as JSON and as a picture of four panels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.growth import SMALL_FILTERS, SMALL_LAYERS, SMALL_REFERENCES, Exponent, Sweep
from benchmarks.report import MEBIBYTE, table

HEADER = ("what grows", "to", "seconds", "of what", "peak memory")
EXPONENTS = ("exponents of", "seconds", "of the larger half", "peak memory", "its larger half")
COMMAND, SEQUENCE = "the whole command", "a sequence"
TITLES = {
    "regions": f"regions; BPNet-{SMALL_FILTERS} of {SMALL_LAYERS} layers, {SMALL_REFERENCES} references",
    "references": "references of a sequence; BPNet-64, 2114 bases",
    "window": "bases of the window; BPNet-64, 20 references",
    "filters": "filters; BPNet, 2114 bases, 20 references",
}


def text(sweeps: Sequence[Sweep]) -> str:
    """Every size, and below it the fitted exponents."""
    sizes = [
        (
            sweep.name,
            f"{point.size:,}",
            f"{point.seconds:.3g}",
            _of_what(sweep),
            f"{point.peak_memory_bytes / MEBIBYTE:.0f} MiB",
        )
        for sweep in sweeps
        for point in sweep.points
    ]
    exponents = [
        (
            sweep.name,
            f"{sweep.seconds.overall:.2f}",
            f"{sweep.seconds.upper_half:.2f}",
            f"{sweep.memory.overall:.2f}",
            f"{sweep.memory.upper_half:.2f}",
        )
        for sweep in sweeps
    ]
    return f"{table(HEADER, sizes)}\n\n{table(EXPONENTS, exponents)}"


def _of_what(sweep: Sweep) -> str:
    return COMMAND if sweep.name == "regions" else SEQUENCE


def as_json(facts: Mapping[str, Any], sweeps: Sequence[Sweep]) -> str:
    """Every size, the exponents beside them."""
    measured = [
        {
            **asdict(sweep),
            "seconds_of": _of_what(sweep),
            "seconds_exponent": asdict(sweep.seconds),
            "memory_exponent": asdict(sweep.memory),
        }
        for sweep in sweeps
    ]
    return json.dumps({"facts": facts, "sweeps": measured}, indent=2) + "\n"


def plot(path: Path, facts: Mapping[str, Any], sweeps: Sequence[Sweep]) -> None:
    """A panel for each sweep: time on the left axis, memory on the right, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    panels = figure.subplots(2, 2).flat
    for axes, sweep in zip(panels, sweeps, strict=False):
        _panel(axes, sweep)
    for axes in panels:
        axes.set_axis_off()
    figure.suptitle(
        f"{facts['date'][:10]}, {facts['processor']}, {facts['threads']} threads; in brackets "
        "the exponents over all sizes and over the larger half",
        fontsize=8,
    )
    figure.savefig(path, dpi=130)


def _panel(axes: Any, sweep: Sweep) -> None:
    from matplotlib.ticker import LogLocator

    sizes = [point.size for point in sweep.points]
    memory = [point.peak_memory_bytes / MEBIBYTE for point in sweep.points]
    right = axes.twinx()
    right.plot(sizes, memory, color="silver", marker="s", label=_legend("peak memory", sweep.memory))
    right.set_ylim(0, 2 * max(memory))
    right.set_ylabel("peak memory, MiB", fontsize=8)
    seconds = [point.seconds for point in sweep.points]
    axes.loglog(sizes, seconds, color="tab:blue", marker="o", label=_legend("seconds", sweep.seconds))
    axes.set_ylabel(f"seconds, {_of_what(sweep)}", fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    for side in (axes, right):
        side.tick_params(labelsize=8)
    axes.set_title(TITLES[sweep.name], fontsize=8)
    axes.set_zorder(right.get_zorder() + 1)  # time is drawn over memory
    axes.patch.set_visible(False)
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize=7, loc="upper left")


def _legend(name: str, found: Exponent) -> str:
    return f"{name} ({found.overall:.2f}, {found.upper_half:.2f})"
