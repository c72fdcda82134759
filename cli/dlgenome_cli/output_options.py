"""Options about the files that `dlgenome attribute` and `dlgenome merge` write."""

from __future__ import annotations

from typing import get_args

import click

from dlgenome.config import Overlap
from dlgenome_cli.options import split_commas, together

output_option = click.option(
    "-o", "--output", required=True, metavar="PREFIX", help="How the name of every output file begins."
)

formats_option = click.option(
    "--formats",
    type=click.UNPROCESSED,
    callback=split_commas,
    default="",
    metavar="h5,bigwig,npz",
    show_default=False,
    help="Files to write. [default: h5,bigwig; h5 where there is no genome]",
)

bigwig_options = together(
    click.option(
        "--overlap",
        type=click.Choice(get_args(Overlap)),
        default="nearest",
        help="bigWig, where windows overlap: the window with the nearest centre, the mean, "
        "the largest absolute value, or the first row.",
    ),
    click.option(
        "--crop",
        type=click.IntRange(min=1),
        metavar="BASES",
        help="bigWig: only the central bases of windows.",
    ),
)
"""How windows become one track."""

overwrite_option = click.option(
    "--overwrite", is_flag=True, show_default=False, help="Replace output of an earlier run."
)

list_outputs_option = click.option(
    "--list-outputs",
    is_flag=True,
    show_default=False,
    help="Print the files that would be written, and stop.",
)
