"""`python -m benchmarks growth`: how time and memory grow, with the exponents of docs/performance.md."""

from __future__ import annotations

from pathlib import Path

import click

from dlgenome.config import default_threads

SWEEPS = ("regions", "references", "window", "filters")
file_option = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option(
    "--sweep", "names", type=click.Choice(SWEEPS), multiple=True, help="What grows. [default: all, in turn]"
)
@click.option(
    "--turns", type=click.IntRange(min=1), default=3, help="Timed for each size; the fastest counts."
)
@click.option("--quick", is_flag=True, show_default=False, help="Try it out: two tiny sizes of each.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Processor threads of every program. [default: all]"
)
@click.option("--json", "json_file", type=file_option, help="Write everything measured to this file.")
@click.option("--plot", "plot_file", type=file_option, help="Draw four panels into this PNG.")
def growth(
    names: tuple[str, ...],
    turns: int,
    quick: bool,
    threads: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """How the cost of scores grows with regions, references, bases and filters.

    Regions go through the whole command with a small network, the others through the engine in processes of
    their own. Takes some six minutes on two cores.
    """
    from benchmarks import growth as measuring
    from benchmarks import growth_report, machine, report

    threads = threads or default_threads()
    facts = machine.facts(threads)
    chosen = names or SWEEPS
    sweeps = [measuring.grow(name, quick=quick, threads=threads, turns=turns) for name in chosen]
    click.echo(growth_report.text(sweeps) + "\n")
    click.echo(report.facts_text(facts))
    report.write(
        json_file,
        lambda: growth_report.as_json(facts, sweeps),
        plot_file,
        lambda path: growth_report.plot(path, facts, sweeps),
    )
