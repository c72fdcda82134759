"""`python -m benchmarks accuracy`: how far the scores of each precision are from float64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlgenome.config import default_threads

if TYPE_CHECKING:
    from benchmarks.accuracy import Windows

input_file = click.Path(exists=True, dir_okay=False, path_type=Path)
file_option = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option(
    "-m", "--model", "models", metavar="CHECKPOINT", type=input_file, multiple=True,
    help="Checkpoint, explained by `dlgenome attribute`; repeat for more.",
)  # fmt: skip
@click.option("-g", "--genome", type=input_file, help="FASTA, for checkpoints.")
@click.option("-r", "--regions", type=input_file, help="BED or narrowPeak, for checkpoints.")
@click.option(
    "--target", "targets", multiple=True, default=("counts",), help="Of the checkpoints; repeat for more."
)
@click.option(
    "--case", "cases", metavar="NAME", multiple=True,
    help="Network of benchmarks/cases.py with random weights, its own targets and random sequences.",
)  # fmt: skip
@click.option(
    "--seed", "seeds", type=click.IntRange(min=0), multiple=True, default=(0,),
    help="Of weights and sequences of cases; repeat for more, which make one row together.",
)  # fmt: skip
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=25,
    help="Regions of the file, sequences of a case and seed.",
)
@click.option("--references", type=click.IntRange(min=1), default=20, help="References of each region.")
@click.option("--device", default="cpu", help="cpu, which imitates what only CUDA devices have, or cuda.")
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads. [default: all]")
@click.option("--json", "json_file", type=file_option, help="Write the figures of every region to this file.")
def accuracy(
    models: tuple[Path, ...],
    genome: Path | None,
    regions: Path | None,
    targets: tuple[str, ...],
    cases: tuple[str, ...],
    seeds: tuple[int, ...],
    limit: int,
    references: int,
    device: str,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """How far scores in float32, bfloat16 and tf32 are from float64, region by region.

    float64 is computed on the processor, and so are the others unless --device says cuda.
    """
    from benchmarks import accuracy_report, machine, report
    from benchmarks.accuracy import Plan, of_case, of_checkpoint, ways_on
    from dlgenome.attribution.tiles.processor import has_tiles
    from dlgenome.errors import DlgenomeError

    if not models and not cases:
        raise click.UsageError("Name a checkpoint with --model, or a network with --case.")
    if not models and (genome or regions):
        raise click.UsageError("--genome and --regions are for --model, which is missing.")
    _check_cases(cases)
    try:
        plan = Plan(ways_on(_resolved(device)), limit, references, threads or default_threads())
        facts: dict[str, Any] = {**machine.facts(plan.threads, device), "tiles": has_tiles()}
        measured = []
        for model in models:
            measured += of_checkpoint(model, _windows(genome, regions), targets, plan)
        for case in cases:
            measured += of_case(case, seeds, plan)
    except DlgenomeError as problem:
        raise click.ClickException(str(problem)) from problem
    click.echo(f"{accuracy_report.text(measured)}\n\n{report.facts_text(facts)}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(accuracy_report.as_json(facts, measured))


def _windows(genome: Path | None, regions: Path | None) -> Windows:
    """What checkpoints are explained on."""
    from benchmarks.accuracy import Windows

    if genome is None or regions is None:
        raise click.UsageError("--model needs regions to explain: give --genome and --regions, too.")
    return Windows(genome, regions)


def _check_cases(cases: tuple[str, ...]) -> None:
    """Trained cases have no weights of their own."""
    from benchmarks.cases import CASES

    known = [name for name, case in CASES.items() if not case.trained]
    unknown = [name for name in cases if name not in known]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(known)}.", param_hint="--case")


def _resolved(device: str) -> str:
    """The device by its full name, cpu or one of CUDA."""
    from dlgenome.attribution.devices import resolve_device

    found = resolve_device(device)
    if found.type not in ("cpu", "cuda"):
        raise click.UsageError(f"--device {device} has no precisions to compare; choose cpu or cuda.")
    return str(found)
