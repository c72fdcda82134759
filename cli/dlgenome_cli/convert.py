"""`dlgenome convert`: any checkpoint as one safe file that describes itself."""

from __future__ import annotations

from typing import Any

import click

from dlgenome_cli.options import COMMON_SETTINGS, model_options, verbosity_options


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("model", metavar="MODEL")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="What to write: X.safetensors (the weights with the name of a built-in architecture, or with the "
    "operations of any other network), or X.pt2 (a program that torch.export.load reads too).",
)
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="T",
    help="Targets that the file shall suggest. Repeatable. [default: all that the model has]",
)
@click.option(
    "--window", type=click.IntRange(min=1), metavar="BASES", help="Input length, if the file does not say."
)
@click.option("--overwrite", is_flag=True, show_default=False, help="Replace the output if it exists.")
@model_options
@verbosity_options
def convert(
    model: str, output: str, targets: tuple[str, ...], window: int | None, overwrite: bool, **flags: Any
) -> None:
    """Write a checkpoint as one safe file that loads without flags.

    It holds the weights, the architecture with its arguments, the input length, the order of the bases and
    the targets; loading it runs no code. It is read back, and its predictions are compared.
    """
    from pathlib import Path

    from dlgenome.config import architecture_arguments
    from dlgenome.model.inputs import InputForm
    from dlgenome.pipeline.conversion import convert_model
    from dlgenome.pipeline.modelling import ModelRequest

    form = InputForm(flags.pop("alphabet"), flags.pop("input_layout"), flags.pop("extra_inputs"))
    flags["architecture_args"] = architecture_arguments(flags["architecture_args"])
    flags["plugins"] = tuple(Path(file) for file in flags["plugins"])
    request = ModelRequest(Path(model), form=form, **flags)
    done = convert_model(request, Path(output), targets=targets, window=window, overwrite=overwrite)
    click.echo(
        f"{done.path}: {done.model.architecture}, {done.model.n_parameters:,} parameters,"
        f" {done.input_length:,} bases, targets {', '.join(done.targets)}"
    )
    click.echo(
        f"Read back and compared on random sequences: largest difference {done.largest_difference:.1e} of the"
        " largest prediction."
    )
