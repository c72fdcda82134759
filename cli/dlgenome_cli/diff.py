"""`dlgenome diff`: how two runs differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dlgenome_cli.options import COMMON_SETTINGS, json_option, verbosity_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlgenome.checking import Difference


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("first", metavar="A.h5")
@click.argument("second", metavar="B.h5")
@click.option("--worst", type=click.IntRange(min=0), default=5, metavar="N", help="Regions to list.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Exit with status 4 when a projected score differs by more than X times the largest score, or a "
    "region is in one file only.",
)
@json_option
@verbosity_options
def diff(first: str, second: str, worst: int, tolerance: float | None, as_json: bool) -> None:
    """Show how two scores files differ, region by region.

    \b
    dlgenome diff run1.counts_scores.h5 run2.counts_scores.h5
    dlgenome diff run1.counts_scores.h5 run2.counts_scores.h5 --tolerance 1e-6

    Compared are the identity attributes (how the files came to be, host, versions and such, does not count),
    the regions, paired by contig, start, end and name, and every dataset. The correlation of a region is
    Pearson's, over the bases of its window, of the contribution of the base that is there. Exit status: 0
    compared, equal or not; 3 bad input; 4 not within --tolerance.
    """
    from pathlib import Path

    from dlgenome.checking import compare
    from dlgenome_cli.progress import region_progress

    with region_progress("comparing") as progress:
        found = compare(Path(first), Path(second), worst=worst, progress=progress)
    if as_json:
        from dlgenome.writers.run_json import json_text

        click.echo(json_text(found.facts()))
    else:
        click.echo("\n".join(_lines(found)))
    if tolerance is not None and not found.within(tolerance):
        from dlgenome.errors import ToleranceError

        apart = found.only_first + found.only_second
        lone = f" {apart:,} regions are in one of the files only." if apart else ""
        raise ToleranceError(f"{scores_line(found)} That is not within --tolerance {tolerance:g}.{lone}")


def scores_line(found: Difference) -> str:
    """How far the scores lie apart, in a sentence."""
    if found.correlation is None:
        return "The files have no scores of the same regions and lengths to compare."
    return (
        f"The largest difference of a score is {found.largest:.2g} of the largest score "
        f"({found.largest_score:.3g})."
    )


def _lines(found: Difference) -> Iterator[str]:
    """What the user reads."""
    if found.equal:
        yield f"{found.first} and {found.second} are equal in every dataset and identity attribute."
        return
    yield from (
        f"{name}: {_shown(ours)} in {found.first}, {_shown(theirs)} in {found.second}"
        for name, (ours, theirs) in {**found.identity, **found.layout}.items()
    )
    order = "" if found.same_order or found.only_first or found.only_second else ", in another order"
    yield (
        f"Regions: {found.matched:,} in both{order}, {found.only_first:,} only in {found.first}, "
        f"{found.only_second:,} only in {found.second}"
    )
    if found.datasets:
        counts = ", ".join(f"/{name} in {count:,}" for name, count in found.datasets.items())
        yield f"Datasets that differ, and in how many of these regions: {counts}"
    elif found.matched:
        yield "Every dataset is equal in these regions."
    if found.correlation is not None:
        shared = found.correlation
        constant = f"; {shared.undefined:,} regions without variance" if shared.undefined else ""
        yield (
            f"Correlation of the scores of a region: least {shared.minimum:.9f}, median {shared.median:.9f}, "
            f"mean {shared.mean:.9f}{constant}"
        )
    yield scores_line(found)
    if found.worst:
        yield "Worst regions (row in the first file and in the second, difference, correlation):"
    for one in found.worst:
        yield (
            f"  {one.chrom}:{one.start}-{one.end}  {one.name}  {one.first_row} {one.second_row}  "
            f"{one.largest:.2g}  {one.correlation:.9f}"
        )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)
