"""`dlgenome attribute`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dlgenome.config import RunConfig
from dlgenome_cli.options import (
    COMMON_SETTINGS,
    config_option,
    log,
    model_options,
    split_commas,
    threads_option,
    verbosity_options,
)

if TYPE_CHECKING:
    from dlgenome.pipeline import RunSummary


def batch_size(ctx: click.Context, parameter: click.Parameter, value: str | int) -> str | int:
    """The word auto, or a whole number."""
    if value == "auto" or isinstance(value, int):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value} is neither auto nor a whole number.", ctx, parameter)


@click.command(context_settings=COMMON_SETTINGS)
@click.option(
    "-m",
    "--model",
    required=True,
    multiple=True,
    metavar="PATH",
    help="Checkpoint to explain. Repeat for folds of one model: scores are the mean.",
)
@click.option(
    "--fold-sd",
    is_flag=True,
    show_default=False,
    help="With several folds: store the standard deviation across them, and as a bigWig.",
)
@click.option(
    "--per-fold",
    is_flag=True,
    show_default=False,
    help="With several folds: also write each fold's own files, PREFIX.fold-1 and so on.",
)
@model_options
@click.option("-g", "--genome", metavar="FASTA", help="Genome, plain or bgzip FASTA.")
@click.option(
    "-r",
    "--regions",
    metavar="BED",
    help="Regions: BED3..BED12 or narrowPeak, gzip or plain; - reads stdin.",
)
@click.option(
    "-f",
    "--fasta",
    metavar="FASTA",
    help="Score these sequences themselves, all of one length, instead of -g and -r.",
)
@click.option(
    "-o", "--output", required=True, metavar="PREFIX", help="How the name of every output file begins."
)
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    default=("counts",),
    metavar="[NAME=]T",
    help="What to explain: counts, profile-bpnet, profile-chrombpnet, profile-bpnetlite, index:I, "
    "index:I,J (their sum), contrast:I,J (I minus J) or FILE.py:function of the outputs; "
    "output:K/ before it picks the K-th of several outputs, @A-B after it sums positions A to B. Repeatable.",
)
@click.option(
    "--rule",
    type=click.Choice(["rescale", "revealcancel", "genomics-default", "passthrough"]),
    default="rescale",
    help="How activations are explained; genomics-default is rescale after convolutions and revealcancel "
    "after dense layers.",
)
@click.option(
    "--max-pool",
    type=click.Choice(["exact", "argmax"]),
    default="exact",
    help="Maxima: exact sums to the difference; argmax follows the sequence's maximum, as the original "
    "DeepLIFT program does.",
)
@click.option(
    "--center",
    type=click.Choice(["summit", "midpoint"]),
    default="summit",
    help="Where windows are centred; the summit is column 10 of a narrowPeak file, else the midpoint.",
)
@click.option(
    "--window", type=click.IntRange(min=1), metavar="BASES", help="Input length. [default: the model's own]"
)
@click.option(
    "--edge",
    type=click.Choice(["drop", "pad"]),
    default="drop",
    help="Windows over a chromosome end: drop them (listed in skipped_regions.tsv) or pad them with N.",
)
@click.option(
    "--chroms",
    type=click.UNPROCESSED,
    callback=split_commas,
    default="",
    show_default=False,
    metavar="NAME,NAME",
    help="Keep only regions on these contigs.",
)
@click.option("--exclude", metavar="BED", help="Leave out regions that overlap any of these.")
@click.option(
    "--order",
    default="input",
    metavar="input|genome|signal|shuffle:SEED",
    help="Order in which regions are scored and written; signal is column 7, strongest first.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N regions of that order."
)
@click.option(
    "--skip-missing-contigs",
    is_flag=True,
    show_default=False,
    help="Skip regions on contigs that the genome lacks, instead of stopping.",
)
@click.option(
    "--references",
    default="dinucleotide-shuffle",
    metavar="KIND",
    help="What sequences are compared with: dinucleotide-shuffle, shuffle, zeros, uniform, "
    "frequency:A,C,G,T or file:PATH (HDF5 or npz, key `references`).",
)
@click.option(
    "--n-references",
    type=click.IntRange(min=1),
    metavar="R",
    help="References per sequence. [default: 20, or as many as the file holds]",
)
@click.option(
    "--reference-se",
    is_flag=True,
    show_default=False,
    help="Store the standard error over references of every base's contribution.",
)
@click.option(
    "--adaptive-references",
    type=float,
    metavar="E",
    help="Add rounds of R references until the standard error of a region's total is at most E.",
)
@click.option("--min-rounds", type=click.IntRange(min=1), default=1, metavar="N", help="Fewest such rounds.")
@click.option("--max-rounds", type=click.IntRange(min=1), default=10, metavar="N", help="Most such rounds.")
@click.option(
    "--reverse-complement",
    is_flag=True,
    show_default=False,
    help="Average over both strands; the other strand gets the reverse complements of the references.",
)
@click.option(
    "--stranded",
    is_flag=True,
    show_default=False,
    help="Explain minus-strand regions on their strand; scores are written in genome orientation.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="S", help="Seed of the shuffles.")
@click.option(
    "--batch-size",
    type=click.UNPROCESSED,
    callback=batch_size,
    default="auto",
    metavar="auto|N",
    help="Sequence-reference pairs a step; auto suits the model and the device.",
)
@click.option("--device", default="auto", metavar="auto|cpu|cuda|cuda:0|mps", help="Where the model runs.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    help="Numbers the model computes with.",
)
@threads_option
@click.option(
    "--formats",
    type=click.UNPROCESSED,
    callback=split_commas,
    default="",
    metavar="h5,bigwig,npz",
    show_default=False,
    help="Files to write. [default: h5,bigwig; with --fasta: h5]",
)
@click.option(
    "--score-dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Numbers in the files; float16 is what chrombpnet writes.",
)
@click.option(
    "--overlap",
    type=click.Choice(["nearest", "mean", "max", "first"]),
    default="nearest",
    help="bigWig, where windows overlap: the window with the nearest centre, the mean, "
    "the largest absolute value, or the first row.",
)
@click.option(
    "--crop", type=click.IntRange(min=1), metavar="BASES", help="bigWig: only the central bases of windows."
)
@click.option("--overwrite", is_flag=True, show_default=False, help="Replace output of an earlier run.")
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
    help="Check everything, estimate time, memory and disk, write nothing.",
)
@click.option(
    "--list-outputs",
    is_flag=True,
    show_default=False,
    help="Print the files that the run would write, and stop.",
)
@config_option
@verbosity_options
def attribute(list_outputs: bool, **flags: Any) -> None:
    """Score every base of many regions with DeepLIFT: HDF5 and bigWig out.

    \b
    dlgenome attribute -m model.torch -g hg38.fa -r peaks.narrowPeak -o run1
    dlgenome attribute -m weights.safetensors -f sequences.fa -t index:0 -o run2

    Contributions are averaged over the references and add up, in every region, to the difference between the
    prediction and the mean prediction of the references. Exit status: 0 done, 2 wrong flags, 3 bad input,
    4 completeness gate, 5 model not supported, 75 stopped from outside.
    """
    config = run_config(flags)
    from dlgenome.pipeline import attribute as run  # imports torch
    from dlgenome.pipeline import output_paths

    if list_outputs:
        click.echo("\n".join(str(path) for path in output_paths(config).all()))
        return
    from dlgenome_cli.progress import region_progress

    with region_progress() as progress:
        summary = run(config, progress)
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
    counted = f"{summary.scored:,} regions to score, {summary.skipped:,} skipped"
    if config.dry_run:
        return [f"Dry run: {counted}; {summary.estimate}. Nothing was written."]
    rate = summary.scored / max(summary.seconds, 1e-9)
    lines = [
        f"Scored {summary.scored:,} regions in {summary.seconds:.1f} s ({rate:.2f} a second), "
        f"skipped {summary.skipped:,}; {summary.batch_size} pairs a step."
    ]
    for target, found in summary.completeness.items():
        lines.append(
            f"Completeness error of {target}: median {found.median:.1e}, "
            f"largest {found.maximum:.1e} (row {found.worst_row})."
        )
    lines += ["Wrote:", *(f"  {path}" for path in summary.outputs)]
    return [*lines, *(["Next:"] if summary.next_commands else []), *(f"  {c}" for c in summary.next_commands)]
