"""`python -m benchmarks`: the figures of docs/performance.md and the tables of docs/comparison.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks.accuracy_command import accuracy
from benchmarks.constructs_command import constructs
from benchmarks.growth_command import growth
from benchmarks.near_zero_command import near_zero
from benchmarks.runs_command import end_to_end, memory
from dlgenome.config import default_threads

CASE_NAMES = (
    *(
        "bpnet-64",
        "bpnet-ctcf",
        "bpnet-gelu",
        "chrombpnet-512",
        "chrombpnet-512-both",
        "basset",
        "deepsea",
        "attention",
    ),
    *("tiny", "tiny-both"),
)
BatchSize = int | Literal["best"] | None
Option = Callable[[Callable[..., Any]], Callable[..., Any]]

threads_option: Option = click.option(
    "--threads", type=click.IntRange(min=1), help="Processor threads of every program. [default: all]"
)
file_option = click.Path(dir_okay=False, path_type=Path)


def _batch_size(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """A number of pairs, the word "best" or None."""
    if value is None or value == "best":
        return value
    return click.IntRange(min=1)(value, parameter, context)


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
@click.option(
    "--peer-batch-size",
    metavar="INTEGER|best",
    callback=_batch_size,
    help="Pairs a step; best: as it comes, and at the fastest of 8, 16, ... 256. [default: as it comes]",
)
@click.option(
    "--peer-allocator",
    type=click.Choice(["as-it-comes", "keeps-memory", "both"]),
    default="as-it-comes",
    help="keeps-memory: glibc is told not to give freed memory back, as dlgenome tells it by itself.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bfloat16", "float64"]),
    default="float32",
    help="Of every program; with tf32 (CUDA only) and bfloat16 the other program is as torch comes.",
)
@click.option("--device", default="cpu", help="Of every program: cpu, cuda or cuda:N.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="BPNet whose weights --case bpnet-ctcf runs with.",
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
    peer_batch_size: BatchSize,
    peer_allocator: str,
    precision: str,
    device: str,
    checkpoint: Path | None,
    pairs: int,
    sequences: int | None,
    references: tuple[int, ...],
    threads: int | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure, print and write what was asked for."""
    from benchmarks import machine, report
    from benchmarks.compare import Plan, compare
    from benchmarks.contenders import OURS, setups
    from benchmarks.processes import peer_python as python_of_peers

    if peer == "captum" and peer_batch_size is not None:
        raise click.UsageError("captum takes all references of a sequence in one step: no --peer-batch-size.")
    cases = ("tiny",) if quick else cases
    _check_checkpoint(cases, checkpoint)
    device = _resolved(device, precision)
    contenders = [OURS]
    if not no_peer:
        python = OURS.python if peer == "dlgenome" else python_of_peers(peer_python)
        contenders += setups(peer, python, peer_batch_size, peer_allocator)
    turns = 2 if quick else pairs
    plan = Plan(
        precision, threads or default_threads(), turns, sequences, checkpoint=checkpoint, device=device
    )
    facts = machine.facts(plan.threads, device)
    comparisons = []
    for case, count in product(cases, references or (None,)):
        comparisons.append(compare(case, contenders, replace(plan, references=count)))
        click.echo(report.comparison_text(comparisons[-1]) + "\n")
    click.echo(report.facts_text(facts))
    report.write(
        json_file,
        lambda: report.as_json(facts, comparisons),
        plot_file,
        lambda path: report.plot(path, facts, comparisons),
    )


def _check_checkpoint(cases: tuple[str, ...], checkpoint: Path | None) -> None:
    """A trained case and its file go together."""
    from benchmarks.cases import CASES

    trained = [case for case in cases if CASES[case].trained]
    if trained and checkpoint is None:
        raise click.UsageError(f"--case {trained[0]} runs a trained BPNet: name its file with --checkpoint.")
    if checkpoint is not None and not trained:
        raise click.UsageError("--checkpoint is for --case bpnet-ctcf, which is not among the cases.")


def _resolved(device: str, precision: str) -> str:
    """The device by its full name; what cannot be is said here, before any program starts."""
    from dlgenome.attribution.devices import resolve_device
    from dlgenome.errors import UsageError

    try:
        found = resolve_device(device)
    except UsageError as problem:
        raise click.UsageError(str(problem)) from problem
    if found.type not in ("cpu", "cuda"):
        raise click.UsageError(f"--device {device} cannot be timed here; choose cpu or cuda.")
    if precision == "tf32" and found.type != "cuda":
        raise click.UsageError("--precision tf32 is a way of CUDA devices to round: give --device cuda, too.")
    return str(found)


main.add_command(accuracy)
main.add_command(constructs)
main.add_command(growth)
main.add_command(near_zero)
main.add_command(end_to_end)
main.add_command(memory)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
