"""`dlgenome rerun`: a run repeated from its run.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dlgenome_cli.attribute import report
from dlgenome_cli.diff import scores_line
from dlgenome_cli.options import COMMON_SETTINGS, log, together, verbosity_options
from dlgenome_cli.output_options import (
    list_outputs_option,
    output_option,
    overwrite_option,
    resuming_options,
)

if TYPE_CHECKING:
    from dlgenome.pipeline.rerunning import Comparison, RerunRequest

place_options = together(
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="PATH",
        help="Where the checkpoint is now; for folds all of them, in their order.",
    ),
    click.option("-g", "--genome", metavar="FASTA", help="Where the genome is now."),
    click.option(
        "-r",
        "--regions",
        metavar="BED",
        help="Where the regions are now; needed for a run that read them from standard input.",
    ),
    click.option("-f", "--fasta", metavar="FASTA", help="Where the sequences are now, for a run with -f."),
    click.option("--exclude", metavar="BED", help="Where the regions of --exclude are now."),
    click.option("--references-file", metavar="PATH", help="Where the file of the references is now."),
)
"""Files that have moved since; their contents are compared."""

code_options = together(
    click.option(
        "--trust-pickle",
        is_flag=True,
        show_default=False,
        help="Repeat this flag if the run was given it: the checkpoint may run code.",
    ),
    click.option(
        "--architecture",
        metavar="PKG.MOD:FACTORY|FILE.py:FACTORY",
        help="Repeat this if the run was given a factory of your own.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE.py",
        help="Repeat these if the run was given any, in their order.",
    ),
    click.option(
        "-t",
        "--target",
        "targets",
        multiple=True,
        metavar="[NAME=]T",
        help="Repeat this for every target that is a function; the others come from RUN.json.",
    ),
)
"""What runs code: never because a file says so."""


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("run_json", metavar="RUN.json")
@output_option
@place_options
@code_options
@click.option(
    "--device", metavar="DEVICE", help="Where the model runs. [default: the kind of device that it ran on]"
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Processor threads. [default: as many as then]"
)
@overwrite_option
@resuming_options
@click.option(
    "--dry-run",
    is_flag=True,
    show_default=False,
    help="Only check that the files are what they were.",
)
@list_outputs_option
@verbosity_options
def rerun(list_outputs: bool, dry_run: bool, **flags: Any) -> None:
    """Repeat a run from its run.json, and compare the scores.

    \b
    dlgenome rerun run1.run.json -o again
    dlgenome rerun run1.run.json -o again --dry-run

    First the checkpoint, the regions, the genome and all other files are compared with what is recorded of
    them; a run whose files have changed is refused with exit status 3. Afterwards the new scores are compared
    with the old ones, if they are still beside RUN.json. Equal bits can be expected of the same versions of
    dlgenome and torch, kind of device and number of threads.
    """
    from dlgenome.pipeline import StopRequest, output_files  # imports torch
    from dlgenome.pipeline import attribute as run
    from dlgenome.pipeline.rerun_inputs import check_inputs
    from dlgenome.pipeline.rerunning import compare_with_old, plan_rerun

    plan = plan_rerun(_request(flags))
    if list_outputs:
        click.echo("\n".join(map(str, output_files(plan.config))))
        return
    for checked in check_inputs(plan):
        log.info("unchanged: %s", checked)
    if dry_run:
        log.info("The run can be repeated: its files are what they were. Nothing was written.")
        return
    from dlgenome_cli.progress import region_progress
    from dlgenome_cli.signals import stop_on_signals

    stop = StopRequest()
    with stop_on_signals(stop), region_progress() as progress:
        summary = run(plan.config, progress, stop=stop)
    for line in report(summary, plan.config):
        log.info("%s", line)
    compared = compare_with_old(plan)
    for comparison in compared:
        click.echo(_comparison_line(comparison))
    if not compared:
        click.echo("There are no old scores to compare with.")


def _request(flags: dict[str, Any]) -> RerunRequest:
    from pathlib import Path

    from dlgenome.pipeline.rerunning import RerunRequest

    single = ("run_json", "output", "genome", "regions", "fasta", "exclude", "references_file")
    values: dict[str, Any] = {k: Path(v) if k in single and v is not None else v for k, v in flags.items()}
    for several in ("models", "plugins"):
        values[several] = tuple(Path(path) for path in flags[several])
    return RerunRequest(**values)


def _comparison_line(comparison: Comparison) -> str:
    found = comparison.difference
    if found is None:
        return f"{comparison.new} was not compared with {comparison.old}: {comparison.reason}."
    if found.equal:
        return f"{comparison.new} is equal to {comparison.old} in every dataset and identity attribute."
    return (
        f"{comparison.new} is not equal to {comparison.old}. {scores_line(found)} More: dlgenome diff "
        f"{comparison.old} {comparison.new}"
    )
