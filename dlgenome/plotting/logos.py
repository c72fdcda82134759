"""Pictures of contribution scores: one sequence logo per region, letters as tall as they contribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Strand

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASE_COLOURS = {"A": "#109648", "C": "#255C99", "G": "#F7B32B", "T": "#D62839"}
"""The colours that sequence logos have in most papers."""

_SPAN_COLOURS = ("#6A51A3", "#1B8A7A", "#B5482F", "#5F6670", "#A0527A", "#55803A")
_WIDTH_INCHES = 13.0
_PANEL_INCHES = 1.75
_HEADER_INCHES = 0.95
_INK, _PALE_INK = "#222222", "#666666"


@dataclass(frozen=True, slots=True)
class Span:
    """A marked stretch of a chromosome, 0-based half-open, such as a planted or known motif."""

    start: int
    end: int
    label: str
    strand: Strand = "."


@dataclass(frozen=True, slots=True)
class LogoPanel:
    """One region to draw."""

    contributions: NDArray[np.floating[Any]]
    """(4, length) projected contributions: non-zero only for the base that is there."""
    chrom: str
    start: int
    spans: tuple[Span, ...] = ()
    title: str = ""

    @property
    def end(self) -> int:
        """The base after the last one."""
        return self.start + int(self.contributions.shape[1])


def zoomed(panel: LogoPanel, length: int) -> LogoPanel:
    """The stretch of `length` bases that contributes most in absolute value; spans outside it are dropped."""
    if length >= panel.contributions.shape[1]:
        return panel
    totals = np.concatenate([[0.0], np.abs(panel.contributions).sum(axis=0, dtype=np.float64).cumsum()])
    first = int((totals[length:] - totals[:-length]).argmax())
    start, end = panel.start + first, panel.start + first + length
    return replace(
        panel,
        contributions=panel.contributions[:, first : first + length],
        start=start,
        spans=tuple(span for span in panel.spans if span.start < end and span.end > start),
    )


def plot_regions(panels: Sequence[LogoPanel], path: Path, *, title: str = "", subtitle: str = "") -> None:
    """Draw the panels one below the other, all to one vertical scale, into a PNG (or PDF or SVG) at `path`.

    Negative contributions hang upside down below the line. Raises ValueError where there is nothing to draw.
    """
    # Importing matplotlib takes half a second; its Figure needs no display and no global backend.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not panels:
        raise ValueError("no region to draw")
    height = _HEADER_INCHES + _PANEL_INCHES * len(panels)
    header = (_HEADER_INCHES - 0.15) / height if title or subtitle else 0.0
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, rect=(0.0, 0.0, 1.0, 1.0 - header))
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout=layout, facecolor="white")
    limits, colours = _limits(panels), _colour_of_label(panels)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, panel, limits, colours)
    axes[-1].set_xlabel("position on the chromosome (0-based)", fontsize=9.5, color=_INK)
    figure.supylabel("contribution to the prediction", fontsize=9.5, color=_INK)
    left = 0.15 / _WIDTH_INCHES
    figure.text(left, 1 - 0.15 / height, title, fontsize=14, weight="bold", color=_INK, va="top")
    figure.text(left, 1 - 0.5 / height, subtitle, fontsize=10, color=_PALE_INK, va="top")
    figure.savefig(path, dpi=120)


def _limits(panels: Sequence[LogoPanel]) -> tuple[float, float]:
    """Common lower and upper end of the y axes, with room for the labels at the top."""
    heights = np.concatenate([panel.contributions.sum(axis=0) for panel in panels])
    low, high = min(float(heights.min()), 0.0), max(float(heights.max()), 0.0)
    room = (high - low) or 1.0
    return low - 0.06 * room, high + 0.24 * room


def _colour_of_label(panels: Sequence[LogoPanel]) -> dict[str, str]:
    labels = sorted({span.label for panel in panels for span in panel.spans})
    return {label: _SPAN_COLOURS[index % len(_SPAN_COLOURS)] for index, label in enumerate(labels)}


def _draw(ax: Axes, panel: LogoPanel, limits: tuple[float, float], colours: dict[str, str]) -> None:
    _draw_letters(ax, panel)
    ax.set_ylim(*limits)
    # Letters are centred on whole numbers, so the first base begins half a base to the left.
    ax.set_xlim(panel.start - 0.5, panel.end - 0.5)
    for span in panel.spans:
        _mark(ax, panel, span, colours[span.label])
    _dress(ax, panel)


def _draw_letters(ax: Axes, panel: LogoPanel) -> None:
    import logomaker
    import pandas as pd

    if not panel.contributions.any():
        return  # logomaker cannot scale letters that are all without height
    heights = pd.DataFrame(
        panel.contributions.T.astype(float), columns=list("ACGT"), index=range(panel.start, panel.end)
    )
    logo = logomaker.Logo(
        heights, ax=ax, color_scheme=BASE_COLOURS, baseline_width=0, show_spines=False, vpad=0.02
    )
    logo.style_glyphs_below(flip=True, fade=0.0, shade=0.0)


def _mark(ax: Axes, panel: LogoPanel, span: Span, colour: str) -> None:
    """Tint the span, and name it at the top; the arrow head points along its strand."""
    left, right = max(span.start, panel.start) - 0.5, min(span.end, panel.end) - 0.5
    top = ax.get_ylim()[1]
    ax.axvspan(left, right, color=colour, alpha=0.13, linewidth=0, zorder=-2)
    ax.plot([left, right], [top, top], color=colour, linewidth=5, solid_capstyle="butt")
    align = "left" if span.start < panel.start else "right" if span.end > panel.end else "center"
    where = {"left": left, "right": right, "center": (left + right) / 2}[align]
    text = {"+": f"{span.label} ▸", "-": f"◂ {span.label}", ".": span.label}[span.strand]
    ax.annotate(
        text,
        (where, top),
        xytext=(0, -6),
        textcoords="offset points",
        ha=align,
        va="top",
        fontsize=9.5,
        weight="bold",
        color=colour,
    )


def _dress(ax: Axes, panel: LogoPanel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.axhline(0, color=_PALE_INK, linewidth=0.6, zorder=-1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value):,}"))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.tick_params(labelsize=8, colors=_PALE_INK, length=3)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(True)
        ax.spines[side].set_color("#AAAAAA")
    place = f"{panel.chrom}:{panel.start:,}-{panel.end:,}"
    ax.set_title(place, fontsize=9.5, loc="left", color=_INK, weight="bold")
    ax.set_title(panel.title, fontsize=9.5, loc="right", color=_PALE_INK)
