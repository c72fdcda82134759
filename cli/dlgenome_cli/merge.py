"""`dlgenome merge`: the files of several runs joined into those of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dlgenome_cli.options import COMMON_SETTINGS, log, threads_option, verbosity_options
from dlgenome_cli.output_options import (
    bigwig_options,
    formats_option,
    list_outputs_option,
    output_option,
    overwrite_option,
)
from dlgenome_cli.report import result_lines

if TYPE_CHECKING:
    from dlgenome.merging import MergeSummary


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("scores", nargs=-1, required=True, metavar="SCORES.h5...")
@click.option(
    "--mean",
    is_flag=True,
    show_default=False,
    help="The files are folds of one model, run apart: write their mean.",
)
@click.option(
    "--fold-sd",
    is_flag=True,
    show_default=False,
    help="Also store the sample standard deviation (n - 1) of the projected scores across folds, "
    "in the HDF5 and as a bigWig.",
)
@output_option
@formats_option
@bigwig_options
@threads_option
@overwrite_option
@list_outputs_option
@verbosity_options
def merge(scores: tuple[str, ...], mean: bool, output: str, list_outputs: bool, **flags: Any) -> None:
    """Join the scores of folds that were run as separate jobs.

    \b
    dlgenome merge --mean --fold-sd -o run fold0.counts_scores.h5 fold1.counts_scores.h5

    SCORES.h5...: what `dlgenome attribute` wrote for each fold, with the same regions, genome and settings.
    The files of several targets may be given at once. The result equals that of one `dlgenome attribute` with
    all the folds, -m FOLD0 -m FOLD1, in this order. PREFIX.skipped_regions.tsv and the columns of the input's
    BED are taken from the files beside SCORES.h5.
    """
    from pathlib import Path

    from dlgenome.errors import UsageError

    if not mean:
        raise UsageError(
            "Say what to do with the files: --mean averages folds of one model, and it is all that merge can "
            "do so far."
        )
    from dlgenome.merging import MergeConfig, merge_folds, merged_paths

    config = MergeConfig(scores=tuple(Path(path) for path in scores), output=Path(output), **flags)
    if list_outputs:
        click.echo("\n".join(str(path) for path in merged_paths(config).all()))
        return
    from dlgenome_cli.progress import region_progress

    with region_progress() as progress:
        summary = merge_folds(config, progress)
    for line in report(summary):
        log.info("%s", line)


def report(summary: MergeSummary) -> list[str]:
    """What the user reads at the end, line by line."""
    skipped = "" if summary.skipped is None else f"; {summary.skipped:,} were skipped"
    joined = (
        f"Joined {summary.folds} folds of {summary.scored:,} regions in {summary.seconds:.1f} s{skipped}."
    )
    return [joined, *result_lines(summary)]
