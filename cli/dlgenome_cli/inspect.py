"""`dlgenome inspect`: what is in a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dlgenome_cli.options import COMMON_SETTINGS, json_option, model_options, verbosity_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlgenome.attribution.blame import OperationError
    from dlgenome.attribution.coverage import OperationFact
    from dlgenome.model.description import ModelDescription
    from dlgenome.pipeline.inspection import Inspection


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("model", metavar="MODEL")
@model_options
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="T",
    help="Show the operations that this target needs. Repeatable. [default: the first that the model has]",
)
@click.option(
    "--window", type=click.IntRange(min=1), metavar="BASES", help="Input length, if the file does not say."
)
@json_option
@click.option(
    "--blame",
    is_flag=True,
    show_default=False,
    help="Explain one sequence and show how far each operation is from summing up, the worst first.",
)
@click.option(
    "-f",
    "--fasta",
    metavar="FASTA",
    help="With --blame: explain the first record of this file. [default: a random sequence]",
)
@verbosity_options
def inspect(
    model: str,
    targets: tuple[str, ...],
    window: int | None,
    as_json: bool,
    blame: bool,
    fasta: str | None,
    **flags: Any,
) -> None:
    """Show what is in a checkpoint.

    Architecture, layers, outputs, targets, and the rule that each operation gets.
    Exit status 5 when an operation has no exact rule; it is named with its module and source line.
    """
    from pathlib import Path

    from dlgenome.config import architecture_arguments
    from dlgenome.errors import UsageError
    from dlgenome.model.inputs import InputForm
    from dlgenome.pipeline.inspection import blame_operations, inspect_model
    from dlgenome.pipeline.modelling import ModelRequest

    if fasta and not blame:
        raise UsageError("--fasta names the sequence for --blame; give both.")
    form = InputForm(flags.pop("alphabet"), flags.pop("input_layout"), flags.pop("extra_inputs"))
    flags["architecture_args"] = architecture_arguments(flags["architecture_args"])
    flags["plugins"] = tuple(Path(file) for file in flags["plugins"])
    request = ModelRequest(Path(model), form=form, **flags)
    found = inspect_model(request, targets=targets, window=window)
    click.echo(found.as_json() if as_json else "\n".join(_lines(found)))
    if blame and found.supported:
        errors = blame_operations(found, Path(fasta) if fasta else None)
        click.echo("\n".join(_blame_lines(errors)))
    if not found.supported:
        from dlgenome.errors import UnsupportedModelError

        refused = sum(not fact.exact for fact in found.operations)
        raise UnsupportedModelError(
            f"{refused} operation(s) of {model} have no exact rule, so it cannot be explained."
        )


def _lines(found: Inspection) -> list[str]:
    model, description = found.model, found.description
    arguments = ", ".join(f"{name}={value}" for name, value in model.arguments.items())
    outputs = ", ".join(fact.text for fact in description.outputs)
    kind = model.architecture + (f" ({model.kind})" if model.kind != model.architecture else "")
    order = f", in the order {model.alphabet}" if model.alphabet != "ACGT" else ""
    return [
        f"{found.path}: {kind}, {model.n_parameters:,} parameters",
        *([f"  it is      {model.title}"] if model.title else []),
        *([f"  arguments  {arguments}"] if arguments else []),
        f"  input      {description.input_length:,} bases{order}",
        f"  outputs    {outputs}"
        + (f" = {', '.join(description.output_names)}" if description.output_names else ""),
        *_reach_lines(description),
        f"  targets    {', '.join(description.targets)}",
        *(f"  note       {note}" for note in found.notes),
        f"  explain    {found.command}",
        "",
        "Layers:",
        *_table(
            [
                (fact.path, fact.class_name, _shape(fact.output_shape), f"{fact.n_parameters:,}")
                for fact in description.layers
            ]
        ),
        "",
        f"Operations that {', '.join(found.targets)} needs, with their rule:",
        *_table([_operation(fact) for fact in found.operations]),
        "",
        _verdict(found),
    ]


def _reach_lines(description: ModelDescription) -> list[str]:
    """One line per output: how far it sees, and the bases it stands for (see `dlgenome.model.reach`)."""
    lines = []
    for fact, reach in zip(description.outputs, description.reaches, strict=True):
        name = description.output_names[fact.index] if description.output_names else f"output {fact.index}"
        if reach is None:
            lines.append(f"  sees       {name}: not measurable")
            continue
        text = f"  sees       {name}: {reach.field:,} bases"
        if reach.window and reach.bin_size:
            unit = "base by base" if reach.bin_size == 1 else f"in bins of {reach.bin_size} bases"
            text += f" around each position; positions cover bases {reach.window[0]:,}-{reach.window[1]:,}"
            text += f" of the input, {unit}"
        lines.append(text)
    return lines


def _verdict(found: Inspection) -> str:
    if not found.supported:
        return "Operations marked none cannot be explained."
    approximate = sum(not fact.exact for fact in found.operations)
    if approximate:
        return f"{approximate} operation(s) get their gradient, so contributions need not add up."
    return "Every operation has an exact rule."


def _blame_lines(errors: Sequence[OperationError]) -> list[str]:
    rows = [
        (f"{e.error:.1e}", e.operation.removesuffix(".default"), e.rule, e.source.module, e.source.line)
        for e in errors
    ]
    title = "Completeness error of each operation, relative to the change of the prediction:"
    return ["", title, *_table(rows)]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape)) or "scalar"


def _operation(fact: OperationFact) -> tuple[str, ...]:
    name = fact.name.removesuffix(".default")
    return name, fact.rule + (f": {fact.reason}" if fact.reason else ""), fact.module, fact.line


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
