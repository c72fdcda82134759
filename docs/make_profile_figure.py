"""Draw docs/images/profiles.png: how far the three profile scores differ on trained models.

``python docs/make_profile_figure.py DATA RUNS``: DATA is a folder with

* ``models/bpnetlite_CTCF_K562_ENCSR000AKO.torch``, ``examples/example.torch`` of jmschrei/bpnet-lite;
* ``models/GATA2.torch``, from Zenodo record 14604495;
* ``genome/hg38_chr1_1m.fa.gz``, the first million bases of chr1 of hg38, and
  ``regions/ENCSR000AKO_chr1_1m.narrowPeak``, the 15 peaks of ENCODE's ENCSR000AKO there.

RUNS gets the scores of both models, in float64 with 20 references; they are taken from there the next time.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import logomaker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from dlgenome.plotting.logos import BASE_COLOURS
from dlgenome.scores import ScoresFile

TARGETS = ("profile-bpnet", "profile-chrombpnet", "profile-bpnetlite")
COLOURS = dict(zip(TARGETS, ("#1B8A7A", "#6A51A3", "#B5482F"), strict=True))
PAIRS = dict(zip(combinations(TARGETS, 2), ("#255C99", "#E08214", "#808080"), strict=True))
MODELS = {
    "CTCF": ("bpnetlite_CTCF_K562_ENCSR000AKO.torch", "CTCF model (K562), on peaks of CTCF"),
    "GATA2": ("GATA2.torch", "GATA2 model, on the same regions"),
}
TITLE = "Three profile scores of the same models and sequences"
SUBTITLE = (
    "15 regions of chr1, 20 dinucleotide-shuffled references, float64; a point is a region and two scores"
)
REGIONS = (
    (4, True, "strong profile: the same motif at different heights"),
    (8, False, "profile-bpnetlite: two logits 2e-6 apart gave one position of one reference a weight of 24"),
)
"""Rows of the CTCF run that are drawn, as a logo or a track, and what there is to see."""
LOGO_BASES = 72
INK, PALE = "#222222", "#666666"
Scores = dict[str, NDArray[np.float64]]


def scored(data: Path, runs: Path, name: str) -> Path:
    """Prefix of the model's run, which is made where it is not there."""
    prefix = runs / name
    command = [
        sys.executable,
        "-m",
        "dlgenome_cli.main",
        "attribute",
        "-m",
        data / "models" / MODELS[name][0],
    ]
    command += [
        "-g",
        data / "genome/hg38_chr1_1m.fa.gz",
        "-r",
        data / "regions/ENCSR000AKO_chr1_1m.narrowPeak",
    ]
    command += [word for target in TARGETS for word in ("-t", target)]
    command += ["-o", prefix, "--formats", "h5", "--precision", "float64", "--resume"]
    subprocess.run(list(map(str, command)), check=True)
    return prefix


def projected(prefix: Path) -> Scores:
    """Scores (regions, 4, length) of every target."""
    found = {}
    for target in TARGETS:
        with ScoresFile(f"{prefix}.{target}_scores.h5") as scores:
            rows = [scores.projected(row) for row in range(scores.n_regions)]
        found[target] = np.array(rows, dtype=np.float64)
    return found


def correlations(scores: Scores, pair: tuple[str, str]) -> NDArray[np.float64]:
    """Pearson's r of the tracks of two targets, for every region."""
    first, second = (scores[target].sum(axis=1) for target in pair)
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(first, second, strict=True)])


def draw_correlations(ax: Axes, scores: Scores, title: str) -> None:
    """One point for each region and pair of targets, by how much the sequence shapes its profile."""
    strength = scores["profile-bpnet"].sum(axis=(1, 2))
    for pair, colour in PAIRS.items():
        r = correlations(scores, pair)
        names = " and ".join(target.removeprefix("profile-") for target in pair)
        ax.scatter(
            strength,
            r,
            s=46,
            color=colour,
            alpha=0.85,
            linewidth=0,
            label=f"{names}: median {np.median(r):.2f}",
        )
        sys.stdout.write(f"{title}: {names}: median {np.median(r):.2f}, {r.min():.2f} to {r.max():.2f}\n")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3]))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_ylim(-0.4, 1.06)
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=-1)
    ax.set_xlabel("sum of the profile-bpnet scores of the region", fontsize=9.5, color=INK)
    ax.set_title(title, fontsize=10.5, weight="bold", color=INK, loc="left")
    ax.legend(fontsize=9, frameon=False, loc="lower right", handletextpad=0.2)
    dress(ax)


def draw_logo(ax: Axes, scores: NDArray[np.float64], start: int, target: str) -> None:
    """Letters of (4, bases) as tall as their scores."""
    heights = pd.DataFrame(scores.T, columns=list("ACGT"), index=range(start, start + scores.shape[1]))
    logo = logomaker.Logo(
        heights, ax=ax, color_scheme=BASE_COLOURS, baseline_width=0, show_spines=False, vpad=0.02
    )
    logo.style_glyphs_below(flip=True, fade=0.0, shade=0.0)
    ax.set_xlim(start - 0.5, start + scores.shape[1] - 0.5)
    name(ax, target)


def draw_track(ax: Axes, scores: NDArray[np.float64], start: int, target: str) -> None:
    """One line up or down for each base of the window."""
    places = np.arange(start, start + len(scores))
    ax.vlines(places, 0, scores, color=COLOURS[target], linewidth=0.9)
    ax.set_xlim(start, start + len(scores))
    name(ax, target)


def name(ax: Axes, target: str) -> None:
    """The target's name inside the panel, and a line at zero."""
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=-1)
    ax.text(
        0.008,
        0.93,
        target,
        transform=ax.transAxes,
        fontsize=10,
        weight="bold",
        color=COLOURS[target],
        va="top",
    )
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value):,}"))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    dress(ax)


def dress(ax: Axes) -> None:
    """Pale axes, nothing above and to the right."""
    ax.tick_params(labelsize=8, colors=PALE, length=3)
    ax.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(True)
        ax.spines[side].set_color("#AAAAAA")


def window(prefix: Path, row: int) -> tuple[str, int]:
    """Chromosome and first base of a row."""
    with ScoresFile(f"{prefix}.{TARGETS[0]}_scores.h5") as scores:
        found = scores.window(row)
    return found.chrom, found.start


def best(scores: NDArray[np.float64]) -> int:
    """Where the LOGO_BASES bases begin that score most in (4, length)."""
    totals = np.concatenate([[0.0], np.abs(scores).sum(axis=0).cumsum()])
    return int((totals[LOGO_BASES:] - totals[:-LOGO_BASES]).argmax())


def share_heights(axes: list[Axes], largest: float, lowest: float) -> None:
    """One scale for all, with some room at the top."""
    for ax in axes:
        ax.set_ylim(lowest * 1.15, largest * 1.25)
        if ax is not axes[-1]:
            ax.tick_params(labelbottom=False)


def draw(scores: dict[str, Scores], prefix: Path, path: Path) -> None:
    """The whole picture."""
    figure = Figure(figsize=(13, 13), facecolor="white")
    parts: Any = figure.subfigures(3, 1, height_ratios=[4.6, 4.2, 4.2])
    left, right = parts[0].subplots(1, 2, sharey=True)
    for ax, model in zip((left, right), MODELS, strict=True):
        draw_correlations(ax, scores[model], MODELS[model][1])
    left.set_ylabel("Pearson's r of two tracks", fontsize=9.5, color=INK)
    parts[0].subplots_adjust(left=0.06, right=0.985, top=0.79, bottom=0.13, wspace=0.06)
    for height, text, size, weight, colour in (
        (0.97, TITLE, 14, "bold", INK),
        (0.9, SUBTITLE, 10, "normal", PALE),
    ):
        parts[0].text(0.012, height, text, fontsize=size, weight=weight, color=colour, va="top")
    for part, (row, is_logo, words) in zip(parts[1:], REGIONS, strict=True):
        rows = {target: scores["CTCF"][target][row] for target in TARGETS}
        draw_region(part, rows, *window(prefix, row), is_logo, words)
    figure.savefig(path, dpi=110)


def draw_region(part: Any, rows: Scores, chrom: str, start: int, is_logo: bool, words: str) -> None:
    """A region's three scores, one below the other, to one scale."""
    axes = list(part.subplots(3, 1))
    first = best(rows[TARGETS[0]]) if is_logo else 0
    length = LOGO_BASES if is_logo else rows[TARGETS[0]].shape[1]
    shown = {target: scores[:, first : first + length] for target, scores in rows.items()}
    for ax, (target, scores) in zip(axes, shown.items(), strict=True):
        if is_logo:
            draw_logo(ax, scores, start + first, target)
        else:
            draw_track(ax, scores.sum(axis=0), start, target)
    values = np.concatenate([scores.sum(axis=0) for scores in shown.values()])
    share_heights(axes, float(values.max()), float(values.min()))
    part.subplots_adjust(left=0.06, right=0.985, top=0.89, bottom=0.09, hspace=0.12)
    place = f"{chrom}:{start + first:,}-{start + first + length:,}"
    part.text(0.06, 0.96, f"{place}, CTCF model", fontsize=10.5, weight="bold", color=INK, va="top")
    part.text(0.985, 0.96, words, fontsize=9.5, color=PALE, va="top", ha="right")


def main() -> None:
    """Score, draw, and print the numbers."""
    data, runs = map(Path, sys.argv[1:])
    runs.mkdir(parents=True, exist_ok=True)
    prefixes = {model: scored(data, runs, model) for model in MODELS}
    scores = {model: projected(prefix) for model, prefix in prefixes.items()}
    draw(scores, prefixes["CTCF"], Path(__file__).with_name("images") / "profiles.png")


if __name__ == "__main__":
    main()
