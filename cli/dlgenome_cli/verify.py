"""`dlgenome verify`: the gate for pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dlgenome_cli.options import COMMON_SETTINGS, json_option, verbosity_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlgenome.checking import Verdict


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("scores", nargs=-1, required=True, metavar="SCORES.h5...")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="PATH",
    help="Check that the scores were made with this checkpoint. Repeat for folds, in their order.",
)
@click.option(
    "-g", "--genome", metavar="FASTA", help="Check the genome, and the bases of every window in it."
)
@click.option(
    "-r", "--regions", metavar="BED", help="Check that these are the regions; for a run with -f, its FASTA."
)
@click.option(
    "--bigwig", metavar="FILE", help="The bigWig of the scores. [default: the one beside SCORES.h5]"
)
@click.option(
    "--max-delta",
    type=float,
    metavar="X",
    help="Exit with status 4 when a region's completeness error is above X.",
)
@click.option(
    "--alone",
    is_flag=True,
    show_default=False,
    help="Check SCORES.h5 only, without the files beside it.",
)
@json_option
@verbosity_options
def verify(scores: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Check that files are undamaged, complete and of one run.

    \b
    dlgenome verify run1.counts_scores.h5 --max-delta 1e-3
    dlgenome verify run1.counts_scores.h5 -m model.torch -g hg38.fa -r peaks.narrowPeak

    SCORES.h5...: what `dlgenome attribute` or `dlgenome merge` wrote. Checked are every dataset and
    attribute, the checksums of the scores, the sequences, that projected scores are the hypothetical ones at
    the bases that are there, sums and completeness errors (worked out anew), that every window lies on its
    contig, and, beside the file, run.json, the BED row by row, the list of skipped regions, and every base of
    the bigWig. Exit status: 0 sound; 3 problems, a line for each with its rows; 4 nothing but --max-delta.
    """
    from pathlib import Path

    from dlgenome.checking import VerifyConfig
    from dlgenome.checking import verify as check
    from dlgenome_cli.progress import region_progress

    paths = ("genome", "regions", "bigwig")
    values: dict[str, Any] = {k: Path(v) if k in paths and v is not None else v for k, v in flags.items()}
    values["models"] = tuple(Path(path) for path in flags["models"])
    config = VerifyConfig(**values)
    verdicts = []
    for path in scores:
        with region_progress("checking") as progress:
            verdicts.append(check(Path(path), config, progress))
        if not as_json:
            click.echo("\n".join(_lines(verdicts[-1])))
    if as_json:
        from dlgenome.writers.run_json import json_text

        click.echo(json_text({"files": [verdict.facts() for verdict in verdicts]}))
    _raise_verdict(verdicts, config.max_delta)


def _lines(verdict: Verdict) -> list[str]:
    """What the user reads of one file."""
    found = verdict.completeness
    error = (
        f"median {found.median:.1e}, largest {found.maximum:.1e} ({verdict.worst_region})"
        if found is not None and found.worst_row >= 0
        else "none: with this method contributions need not add up"
    )
    if verdict.problems:
        count = len(verdict.problems)
        return [
            f"{verdict.path}: {count} problem{'' if count == 1 else 's'}",
            *(f"  {problem.message}" for problem in verdict.problems),
        ]
    notes = {
        **verdict.checked,
        "completeness error": error,
        **{check: f"not checked: {why}" for check, why in verdict.unchecked.items()},
    }
    width = max(map(len, notes))
    return [
        f"{verdict.path}: sound, {verdict.n_regions:,} regions of {verdict.length:,} bases",
        *(f"  {check:<{width}}  {what}" for check, what in notes.items()),
    ]


def _raise_verdict(verdicts: Sequence[Verdict], max_delta: float | None) -> None:
    """Problems count before completeness: numbers that may be wrong cannot be judged."""
    from dlgenome.errors import CompletenessError, InputError

    bad = [verdict for verdict in verdicts if verdict.problems]
    if bad:
        count = sum(len(verdict.problems) for verdict in bad)
        raise InputError(
            f"{count} problem{'' if count == 1 else 's'} in {len(bad)} of {len(verdicts)} files, the first "
            f"in {bad[0].path}."
        )
    over = [verdict for verdict in verdicts if verdict.over(max_delta)]
    if over:
        worst = over[0].completeness
        more = f" So it is in {len(over) - 1} more files." if len(over) > 1 else ""
        raise CompletenessError(
            f"The completeness error in {over[0].path} reaches {worst.maximum if worst else 0:.2g} "
            f"({over[0].worst_region}), above --max-delta {max_delta:g}.{more}"
        )
