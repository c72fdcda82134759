"""The options of `dlgenome attribute` that say what is scored and how, by theme."""

from __future__ import annotations

from typing import get_args

import click

from dlgenome.config import Center, Edge, MaxPool, Precision, Rule
from dlgenome_cli.options import device_option, split_commas, together

checkpoint_options = together(
    click.option(
        "-m",
        "--model",
        required=True,
        multiple=True,
        metavar="PATH",
        help="Checkpoint to explain. Repeat for folds of one model: scores are the mean.",
    ),
    click.option(
        "--fold-sd",
        is_flag=True,
        show_default=False,
        help="With several folds: store the standard deviation across them, and as a bigWig.",
    ),
    click.option(
        "--per-fold",
        is_flag=True,
        show_default=False,
        help="With several folds: also write each fold's own files, PREFIX.fold-1 and so on.",
    ),
)
"""The model, or the folds of one."""

input_options = together(
    click.option("-g", "--genome", metavar="FASTA", help="Genome, plain or bgzip FASTA."),
    click.option(
        "-r",
        "--regions",
        metavar="BED",
        help="Regions: BED3..BED12 or narrowPeak, gzip or plain; - reads stdin.",
    ),
    click.option(
        "-f",
        "--fasta",
        metavar="FASTA",
        help="Score these sequences themselves, all of one length, instead of -g and -r.",
    ),
)
"""Where the sequences come from."""

explanation_options = together(
    click.option(
        "-t",
        "--target",
        "targets",
        multiple=True,
        default=("counts",),
        metavar="[NAME=]T",
        help="What to explain: counts, profile-bpnet, profile-chrombpnet, profile-bpnetlite, index:I, "
        "index:I,J (their sum), contrast:I,J (I minus J) or FILE.py:function of the outputs; "
        "output:K/ before it picks the K-th of several outputs, @A-B after it sums positions A to B. "
        "Repeatable.",
    ),
    click.option(
        "--rule",
        type=click.Choice(get_args(Rule)),
        default="rescale",
        help="How activations are explained; genomics-default is rescale after convolutions and revealcancel "
        "after dense layers.",
    ),
    click.option(
        "--max-pool",
        type=click.Choice(get_args(MaxPool)),
        default="exact",
        help="Maxima: exact sums to the difference; argmax follows the sequence's maximum, as the original "
        "DeepLIFT program does.",
    ),
)
"""What is explained, and by which rules."""

region_options = together(
    click.option(
        "--center",
        type=click.Choice(get_args(Center)),
        default="summit",
        help="Where windows are centred; the summit is column 10 of a narrowPeak file, else the midpoint.",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        metavar="BASES",
        help="Input length. [default: the model's own]",
    ),
    click.option(
        "--edge",
        type=click.Choice(get_args(Edge)),
        default="drop",
        help="Windows over a chromosome end: drop them (listed in skipped_regions.tsv) or pad them with N.",
    ),
    click.option(
        "--chroms",
        type=click.UNPROCESSED,
        callback=split_commas,
        default="",
        show_default=False,
        metavar="NAME,NAME",
        help="Keep only regions on these contigs.",
    ),
    click.option("--exclude", metavar="BED", help="Leave out regions that overlap any of these."),
    click.option(
        "--order",
        default="input",
        metavar="input|genome|signal|shuffle:SEED",
        help="Order in which regions are scored and written; signal is column 7, strongest first.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N regions of that order."
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Score only the I-th of N contiguous parts of those, into PREFIX.shard-I-of-N.*; "
        "`dlgenome merge` joins the parts.",
    ),
    click.option(
        "--skip-missing-contigs",
        is_flag=True,
        show_default=False,
        help="Skip regions on contigs that the genome lacks, instead of stopping.",
    ),
)
"""Which regions are scored, and the window around each."""

reference_options = together(
    click.option(
        "--references",
        default="dinucleotide-shuffle",
        metavar="KIND",
        help="What sequences are compared with: dinucleotide-shuffle, shuffle, zeros, uniform, "
        "frequency:A,C,G,T or file:PATH (HDF5 or npz, key `references`).",
    ),
    click.option(
        "--n-references",
        type=click.IntRange(min=1),
        metavar="R",
        help="References per sequence. [default: 20, or as many as the file holds]",
    ),
    click.option(
        "--reference-se",
        is_flag=True,
        show_default=False,
        help="Store the standard error over references of every base's contribution.",
    ),
    click.option(
        "--adaptive-references",
        type=float,
        metavar="E",
        help="Add rounds of R references until the standard error of a region's total is at most E.",
    ),
    click.option(
        "--min-rounds", type=click.IntRange(min=1), default=1, metavar="N", help="Fewest such rounds."
    ),
    click.option(
        "--max-rounds", type=click.IntRange(min=1), default=10, metavar="N", help="Most such rounds."
    ),
)
"""What sequences are compared with, and how often."""

strand_options = together(
    click.option(
        "--reverse-complement",
        is_flag=True,
        show_default=False,
        help="Average over both strands; the other strand gets the reverse complements of the references.",
    ),
    click.option(
        "--stranded",
        is_flag=True,
        show_default=False,
        help="Explain minus-strand regions on their strand; scores are written in genome orientation.",
    ),
)
"""Which strand the model reads."""


def _batch_size(ctx: click.Context, parameter: click.Parameter, value: str | int) -> str | int:
    """The word auto, or a whole number."""
    if value == "auto" or isinstance(value, int):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value} is neither auto nor a whole number.", ctx, parameter)


computing_options = together(
    click.option("--seed", type=click.IntRange(min=0), default=0, metavar="S", help="Seed of the shuffles."),
    click.option(
        "--batch-size",
        type=click.UNPROCESSED,
        callback=_batch_size,
        default="auto",
        metavar="auto|N",
        help="Sequence-reference pairs a step; auto suits the model and the device.",
    ),
    device_option,
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="float32",
        help="Numbers the model computes with; tf32 (CUDA) and bfloat16 round what goes through "
        "convolutions and dense layers: faster, and scores differ by less than 1 % of the largest but for "
        "near ties of max-pools.",
    ),
    click.option(
        "--compile/--no-compile",
        default=False,
        show_default=True,
        help="Fuse and record the steps of a CUDA device once and replay them: the same scores but for "
        "rounding, and small networks no longer wait for the processor. Compiling takes up to a minute. "
        "Other devices run as without.",
    ),
)
"""With which random numbers, in which steps, where and how exactly the scores are computed."""
