"""`dlgenome attribute`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from dlgenome.config import RunConfig, ScoreDtype
from dlgenome_cli.options import (
    COMMON_SETTINGS,
    config_option,
    log,
    model_options,
    threads_option,
    verbosity_options,
)
from dlgenome_cli.output_options import (
    bigwig_options,
    failure_options,
    formats_option,
    list_outputs_option,
    output_option,
    overwrite_option,
    resuming_options,
)
from dlgenome_cli.report import regions, result_lines
from dlgenome_cli.scoring_options import (
    checkpoint_options,
    computing_options,
    explanation_options,
    input_options,
    reference_options,
    region_options,
    strand_options,
)

if TYPE_CHECKING:
    from dlgenome.pipeline import RunSummary


@click.command(context_settings=COMMON_SETTINGS)
@checkpoint_options
@model_options
@input_options
@output_option
@explanation_options
@region_options
@reference_options
@strand_options
@computing_options
@threads_option
@formats_option
@click.option(
    "--score-dtype",
    type=click.Choice(get_args(ScoreDtype)),
    default="float32",
    help="Numbers in the files; float16 is what chrombpnet writes.",
)
@bigwig_options
@overwrite_option
@resuming_options
@failure_options
@click.option(
    "--max-delta",
    type=float,
    metavar="X",
    help="Exit with status 4 when a region's completeness error is above X; the files are kept.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    show_default=False,
    help="Check everything, estimate time, memory and disk, write no output.",
)
@list_outputs_option
@config_option
@verbosity_options
def attribute(list_outputs: bool, **flags: Any) -> None:
    """Score every base of regions with DeepLIFT: HDF5 and bigWig out.

    \b
    dlgenome attribute -m model.torch -g hg38.fa -r peaks.narrowPeak -o run1
    dlgenome attribute -m weights.safetensors -f sequences.fa -t index:0 -o run2

    Contributions are averaged over the references and add up, in every region, to the difference between the
    prediction and the mean prediction of the references. Exit status: 0 done, 2 wrong flags, 3 bad input,
    4 completeness gate, 5 model not supported, 75 stopped from outside.
    """
    config = run_config(flags)
    from dlgenome.pipeline import StopRequest, output_files  # imports torch
    from dlgenome.pipeline import attribute as run

    if list_outputs:
        click.echo("\n".join(map(str, output_files(config))))
        return
    from dlgenome_cli.progress import region_progress
    from dlgenome_cli.signals import stop_on_signals

    stop = StopRequest()
    with stop_on_signals(stop), region_progress() as progress:
        summary = run(config, progress, stop=stop)
    for line in report(summary, config):
        log.info("%s", line)
    warn_of_two_modiscos()


def warn_of_two_modiscos() -> None:
    """The scores are fine, but the next command would run a broken TF-MoDISco."""
    from dlgenome.environment import check_modisco
    from dlgenome.errors import UsageError

    try:
        check_modisco()
    except UsageError as problem:
        log.warning("%s", problem)


def run_config(flags: dict[str, Any]) -> RunConfig:
    """The settings of a run from the flags of the command."""
    from pathlib import Path

    paths = ("genome", "fasta", "exclude", "output")
    values: dict[str, Any] = {k: Path(v) if k in paths and v is not None else v for k, v in flags.items()}
    first, *folds = flags["model"]
    values["model"], values["folds"] = Path(first), tuple(Path(path) for path in folds)
    values["plugins"] = tuple(Path(file) for file in flags["plugins"])
    return RunConfig(**values)


def report(summary: RunSummary, config: RunConfig) -> list[str]:
    """What the user reads at the end, line by line."""
    if summary.was_finished:
        return [
            f"Nothing to do: this run is finished, {regions(summary.scored)} scored and {summary.skipped:,} "
            "skipped.",
            *result_lines(summary, "Its files:"),
        ]
    counted = f"{regions(summary.scored)} to score, {summary.skipped:,} skipped"
    if config.dry_run:
        return [f"Dry run: {counted}; {summary.estimate}. No output was written."]
    fresh = summary.scored - summary.resumed_rows
    rate = fresh / max(summary.scoring_seconds, 1e-9)
    before = f" ({summary.resumed_rows:,} of them before)" if summary.resumed_rows else ""
    return [
        f"Scored {regions(summary.scored)}{before} at {rate:.2f} a second ({summary.seconds:.1f} s in all), "
        f"skipped {summary.skipped:,}; {summary.batch_size} pairs a step.",
        *result_lines(summary),
    ]
