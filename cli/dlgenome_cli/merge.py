"""`dlgenome merge`: the files of several runs joined into those of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

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
    from dlgenome.merging import MergeConfig, MergeSummary

_TAKEN_FROM_THE_RUNS = ("formats", "overlap", "crop")


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("scores", nargs=-1, required=True, metavar="SCORES.h5...")
@click.option(
    "--mean",
    is_flag=True,
    show_default=False,
    help="The files are folds of one model, run apart: write their mean. Without, they are shards.",
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
def merge(scores: tuple[str, ...], output: str, list_outputs: bool, **flags: Any) -> None:
    """Join the scores of shards or folds that ran as separate jobs.

    \b
    dlgenome merge -o run run.shard-*.counts_scores.h5
    dlgenome merge --mean --fold-sd -o run fold0.counts_scores.h5 fold1.counts_scores.h5

    SCORES.h5...: what `dlgenome attribute --shard I/N` wrote for every shard, in any order, or what it wrote
    for every fold, with the same regions, genome and settings. The files of several targets may be given at
    once. Shards become the files of the run without --shard, folds those of one `dlgenome attribute` with
    -m FOLD0 -m FOLD1, in this order. --formats, --overlap and --crop are those of the runs unless given here;
    skipped regions and the columns of the input's BED are taken from the files beside SCORES.h5.
    """
    from pathlib import Path

    from dlgenome.merging import MergeConfig, merged_paths
    from dlgenome.merging import merge as join

    for name in _TAKEN_FROM_THE_RUNS:
        if click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT:
            flags[name] = () if name == "formats" else None
    config = MergeConfig(scores=tuple(Path(path) for path in scores), output=Path(output), **flags)
    if list_outputs:
        click.echo("\n".join(str(path) for path in merged_paths(config).all()))
        return
    from dlgenome_cli.progress import region_progress
    from dlgenome_cli.signals import refuse_from_here

    with region_progress() as progress:
        summary = join(config, progress, point_of_no_return=refuse_from_here)
    for line in report(summary, config):
        log.info("%s", line)


def report(summary: MergeSummary, config: MergeConfig) -> list[str]:
    """What the user reads at the end, line by line."""
    skipped = "" if summary.skipped is None else f"; {summary.skipped:,} were skipped"
    kind = "folds" if config.mean else "shards"
    joined = (
        f"Joined {summary.parts:,} {kind} of {summary.scored:,} regions in {summary.seconds:.1f} s{skipped}."
    )
    return [joined, *result_lines(summary)]
