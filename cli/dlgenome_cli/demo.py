"""`dlgenome demo`: the main job from nothing, with a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dlgenome_cli.options import COMMON_SETTINGS, device_option, log, threads_option, verbosity_options
from dlgenome_cli.output_options import list_outputs_option

if TYPE_CHECKING:
    from dlgenome_sim.demo import DemoResult


@click.command(context_settings=COMMON_SETTINGS)
@click.option(
    "-o", "--output", required=True, metavar="DIR", help="Folder for all the files; made if it is not there."
)
@click.option(
    "--regions", type=click.IntRange(min=1), default=300, metavar="N", help="Regions to simulate and score."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, metavar="S", help="Seed of the simulated genome."
)
@device_option
@threads_option
@click.option("--overwrite", is_flag=True, show_default=False, help="Replace the files of an earlier demo.")
@list_outputs_option
@verbosity_options
def demo(
    output: str,
    regions: int,
    seed: int,
    device: str,
    threads: int | None,
    overwrite: bool,
    list_outputs: bool,
) -> None:
    """Run the whole job on simulated data, and draw the scores.

    \b
    dlgenome demo -o demo

    Plants motifs in a random genome, scores its regions with a small network that ships with dlgenome,
    and draws the strongest regions as sequence logos with the planted motifs marked. Takes seconds, and needs
    no data and no GPU.
    """
    from pathlib import Path

    from dlgenome_sim.demo import DemoFiles, run_demo  # imports torch

    if list_outputs:
        click.echo("\n".join(str(path) for path in DemoFiles(Path(output)).all()))
        return
    from dlgenome_cli.progress import region_progress

    with region_progress() as progress:
        result = run_demo(
            Path(output),
            regions=regions,
            seed=seed,
            device=device,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
        )
    for line in report(result):
        log.info("%s", line)


def report(result: DemoResult) -> list[str]:
    """What the user reads at the end, line by line."""
    files, hits = result.files, result.strongest_planted
    drawn = hits[: result.drawn]
    return [
        f"Scored {result.run.scored:,} regions in {result.run.seconds:.1f} s. Look at",
        f"  {files.picture}",
        f"    The {len(drawn)} regions with the largest scores, each letter as tall as its base contributes:",
        "    tall letters spell the planted motifs, which are shaded; a repressor's hang below the line.",
        f"  {files.bigwig}",
        f"    The same scores for a genome browser, beside {files.genome} and {files.truth}.",
        f"  {files.scores}",
        "    Sequences, contributions and hypothetical contributions of all the regions.",
        *_agreement(result),
        "Next: the same scores by hand,",
        f"  {files.attribute_command()}",
        "and motifs found again from the scores alone,",
        *(f"  {command}" for command in result.run.next_commands),
    ]


def _agreement(result: DemoResult) -> list[str]:
    """How often scores and truth agree, in words."""
    hits, drawn = result.strongest_planted, result.strongest_planted[: result.drawn]
    among_drawn = f"{drawn.sum()} of the {len(drawn)} regions drawn and " if len(drawn) < len(hits) else ""
    share = f"motifs cover {result.planted_share:.0%} of the bases"
    return [
        "The strongest base lies inside a planted motif in",
        f"{among_drawn}{hits.sum():,} of all {len(hits):,}; {share}.",
    ]
