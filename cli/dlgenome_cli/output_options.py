"""Options about the files that `dlgenome attribute` and `dlgenome merge` write."""

from __future__ import annotations

from typing import Any, get_args

import click

from dlgenome.config import Overlap
from dlgenome_cli.options import split_commas, together


class Share(click.ParamType[float]):
    """A share between 0 and 1, written as a number or in percent."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """0.01 for 1% and for 0.01."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text} is not a share; write 1% or 0.01.", param, ctx)
        return share


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

resuming_options = together(
    click.option(
        "--resume",
        is_flag=True,
        show_default=False,
        help="Go on with a run that was stopped; start it where there is none, leave a finished one alone.",
    ),
    click.option(
        "--force-unlock",
        is_flag=True,
        show_default=False,
        help="Ignore the lock of another run on the same PREFIX. Only when it is certain that none exists.",
    ),
)
"""What happens to a run that was stopped."""

failure_options = together(
    click.option(
        "--fail-fast",
        is_flag=True,
        show_default=False,
        help="End the run at the first region that cannot be scored, instead of listing it as skipped.",
    ),
    click.option(
        "--max-failures",
        type=Share(),
        default="1%",
        metavar="SHARE",
        help="End the run when more than this share of the regions cannot be scored: 1% or 0.01.",
    ),
)
"""What happens when a region breaks the model."""

list_outputs_option = click.option(
    "--list-outputs",
    is_flag=True,
    show_default=False,
    help="Print the files that would be written, and stop.",
)
