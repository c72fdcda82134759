"""`python -m benchmarks`: the figures of docs/performance.md and the tables of docs/comparison.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click

from benchmarks.constructs_command import constructs
from benchmarks.growth_command import growth
from benchmarks.near_zero_command import near_zero
from benchmarks.runs_command import end_to_end, memory
from dlgenome.config import default_threads

CASE_NAMES = ("bpnet-64", "chrombpnet-512", "basset", "deepsea", "attention", "tiny")
Option = Callable[[Callable[..., Any]], Callable[..., Any]]

threads_option: Option = click.option(
    "--threads", type=click.IntRange(min=1), help="Processor threads of every program. [default: all]"
)
file_option = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--case", "cases", type=click.Choice(CASE_NAMES), multiple=True, default=("bpnet-64",))
@click.option("--quick", is_flag=True, show_default=False, help="Try it out: two turns on a tiny network.")
@click.option(
    "--peer",
    type=click.Choice(["tangermeme", "captum", "dlgenome"]),
    default="tangermeme",
    help="The other program; dlgenome against itself shows how far a ratio of 1 spreads here.",
)
@click.option("--no-peer", is_flag=True, show_default=False, help="Time dlgenome alone.")
@click.option(
    "--peer-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DLGENOME_PEER_PYTHON",
    show_envvar=True,
    help="Interpreter that has the other program. [default: .venv-peers, made when missing]",
)
@click.option("--peer-batch-size", type=click.IntRange(min=1), help="[default: as it comes]")
@click.option(
    "--peer-allocator",
    type=click.Choice(["as-it-comes", "keeps-memory"]),
    default="as-it-comes",
    help="keeps-memory: glibc is told not to give freed memory back, as dlgenome tells it by itself.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float64"]),
    default="float32",
    help="Of every program; with bfloat16 the other program stays in float32.",
)
@click.option("--pairs", type=click.IntRange(min=1), default=7, help="Turns of each program.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="Sequences a turn. [default: as many pairs as the case has]",
)
@click.option(
    "--references",
    type=click.IntRange(min=1),
    multiple=True,
    help="References of each sequence; may be repeated, each makes a table. [default: that of the case]",
)
@threads_option
@click.option("--json", "json_file", type=file_option, help="Write every turn to this file.")
@click.option("--plot", "plot_file", type=file_option, help="Draw the medians into this PNG.")
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Time dlgenome and another program in turns, on the same weights, sequences and references.

    Both run in processes of their own, only one at a time. Without a command this is what runs.
    """
    if context.invoked_subcommand is None:
        speed(**options)


def speed(
    *,
    cases: tuple[str, ...],
    quick: bool,
    peer: str,
    no_peer: bool,
    peer_python: Path | None,
    peer_batch_size: int | None,
    peer_allocator: str,
    precision: str,
    pairs: int,
    sequences: int | None,
    references: tuple[int, ...],
    threads: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure, print and write what was asked for."""
    from benchmarks import machine, report
    from benchmarks.compare import OURS, Plan, compare

    contenders = [OURS]
    if not no_peer:
        contenders.append(_contender(peer, peer_python, peer_batch_size, peer_allocator))
    plan = Plan(precision, threads or default_threads(), 2 if quick else pairs, sequences)
    facts = machine.facts(plan.threads)
    comparisons = []
    for case, count in product(("tiny",) if quick else cases, references or (None,)):
        comparisons.append(compare(case, contenders, replace(plan, references=count)))
        click.echo(report.comparison_text(comparisons[-1]) + "\n")
    click.echo(report.facts_text(facts))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(report.as_json(facts, comparisons))
    if plot_file is not None:
        plot_file.parent.mkdir(parents=True, exist_ok=True)
        report.plot(plot_file, facts, comparisons)


def _contender(peer: str, python: Path | None, batch_size: int | None, allocator: str) -> Any:
    from benchmarks.compare import OURS, Contender
    from benchmarks.processes import KEEPS_FREED_MEMORY, peer_python

    if peer == "captum" and batch_size is not None:
        raise click.UsageError("captum takes all references of a sequence in one step: no --peer-batch-size.")
    tuned = allocator == "keeps-memory"
    setup = "as it comes" if batch_size is None else f"batch size {batch_size}"
    return Contender(
        peer,
        setup + (", freed memory kept" if tuned else ""),
        OURS.python if peer == "dlgenome" else peer_python(python),
        batch_size,
        tuple(KEEPS_FREED_MEMORY.items()) if tuned else (),
    )


main.add_command(constructs)
main.add_command(growth)
main.add_command(near_zero)
main.add_command(end_to_end)
main.add_command(memory)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
