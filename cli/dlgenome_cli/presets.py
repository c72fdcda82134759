"""`dlgenome presets`: the settings that ship with the program."""

from __future__ import annotations

import click

from dlgenome.config_files import preset_path
from dlgenome.config_files import presets as preset_names
from dlgenome_cli.options import COMMON_SETTINGS, verbosity_options


@click.command(context_settings=COMMON_SETTINGS)
@click.argument("name", required=False)
@verbosity_options
def presets(name: str | None) -> None:
    """List the presets, or print the one called NAME.

    Use one with `dlgenome attribute --config NAME`, or print it into a file and change it there.
    """
    if name is not None:
        click.echo(preset_path(name).read_text(encoding="utf-8"), nl=False)
        return
    for preset in preset_names():
        first_line = preset_path(preset).read_text(encoding="utf-8").splitlines()[0]
        description = first_line.removeprefix(f"# {preset}: ")
        click.echo(f"{preset:<18}  {description}")
