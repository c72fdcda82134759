"""`python -m benchmarks end-to-end` and `memory`: what whole runs of `dlgenome attribute` cost."""

from __future__ import annotations

import click

from dlgenome.config import default_threads

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Processor threads of the command. [default: all]"
)
SETTINGS = {"show_default": True}


@click.command("end-to-end", context_settings=SETTINGS)
@click.option("--regions", type=click.IntRange(min=1), default=200, help="Simulated regions of 2114 bases.")
@click.option("--n-filters", type=click.IntRange(min=1), default=64, help="Of the BPNet.")
@click.option("--n-layers", type=click.IntRange(min=1), default=8, help="Dilated layers of the BPNet.")
@click.option("--n-references", type=click.IntRange(min=1), default=20)
@threads_option
def end_to_end(regions: int, n_filters: int, n_layers: int, n_references: int, threads: int | None) -> None:
    """Time `dlgenome attribute` from its start to its end, and what the time goes to."""
    from benchmarks import command, machine, report, runs_report

    threads = threads or default_threads()
    flags = ("--n-references", str(n_references))
    facts = machine.facts(threads)
    done = command.end_to_end(regions, n_filters, n_layers, flags, threads)
    network = f"BPNet with {n_filters} filters and {n_layers} dilated layers, {n_references} references"
    click.echo(f"{network}: {runs_report.split_text(done)}\n\n{report.facts_text(facts)}")


@click.command(context_settings=SETTINGS)
@click.option(
    "--regions",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1_000, 10_000, 100_000),
    help="Regions of a run; two or more, growing.",
)
@click.option("--length", type=click.IntRange(min=20), default=64, help="Bases of a window.")
@click.option(
    "--at-most-bytes",
    type=float,
    help="Exit with status 1 where a region of the last run costs more memory than this.",
)
@threads_option
def memory(sizes: tuple[int, ...], length: int, at_most_bytes: float | None, threads: int | None) -> None:
    """Time runs of more and more regions with a tiny network, and tell how much memory a region takes.

    That is the difference between the peaks of two runs, divided by that between their numbers of regions.
    """
    from benchmarks import command, machine, report, runs_report

    if len(sizes) < 2 or sorted(set(sizes)) != list(sizes):
        raise click.UsageError("Give --regions twice or more, each time a larger number.")
    threads = threads or default_threads()
    facts = machine.facts(threads)
    runs = command.memory(sizes, length, threads)
    click.echo(runs_report.memory_text(runs) + f"\n\n{report.facts_text(facts)}")
    found = runs_report.bytes_a_region(runs[-2], runs[-1])
    if at_most_bytes is not None and found > at_most_bytes:
        raise click.ClickException(f"A region takes {found:.0f} bytes of memory, above {at_most_bytes:g}.")
