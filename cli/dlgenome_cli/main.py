"""The command `dlgenome`: the group, and the one place where errors become a line and an exit status."""

from __future__ import annotations

import errno
import sys
from typing import Any

import click
from click.core import ParameterSource

from dlgenome.allocator import keep_freed_memory
from dlgenome.config_files import key_of_field
from dlgenome.errors import DlgenomeError, Interrupted, UsageError
from dlgenome_cli.attribute import attribute
from dlgenome_cli.convert import convert
from dlgenome_cli.demo import demo
from dlgenome_cli.diff import diff
from dlgenome_cli.inspect import inspect
from dlgenome_cli.merge import merge
from dlgenome_cli.options import COMMON_SETTINGS, debug_wanted, json_line, log_json_wanted, printable
from dlgenome_cli.presets import presets
from dlgenome_cli.rerun import rerun
from dlgenome_cli.signals import Stopped, ignore_signals, interrupt_on_signals
from dlgenome_cli.verify import verify


class DlgenomeGroup(click.Group):
    """The group of all commands; what goes wrong in any of them ends here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse words that are no text, as names of files can be; they could not be written down."""
        for word in args:
            try:
                word.encode("utf-8")
            except UnicodeEncodeError:
                shown = printable(word)
                raise click.UsageError(
                    f"{shown} is not valid UTF-8; rename the file or link to it."
                ) from None
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; every failure ends as one line on stderr and its own exit status."""
        try:
            return super().invoke(ctx)
        except click.BadParameter as problem:
            _name_config_file(problem)
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt, Stopped) as problem:
            if debug_wanted(ctx):
                click.echo(_traceback(problem), err=True, nl=False)
            message, exit_code = _verdict(problem)
            line = json_line("error", message) if log_json_wanted(ctx) else f"Error: {printable(message)}"
            click.echo(line, err=True)
            ctx.exit(exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order they were added: the main job first."""
        return list(self.commands)


def _name_config_file(problem: click.BadParameter) -> None:
    """Make a wrong value that came from --config say so: its flag was never typed."""
    if problem.ctx is None or problem.param is None or problem.param.name is None:
        return
    if problem.ctx.get_parameter_source(problem.param.name) is ParameterSource.DEFAULT_MAP:
        problem.param_hint = f"'{key_of_field(problem.param.name)}' in the --config file"


def _traceback(problem: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(problem))


def _verdict(problem: BaseException) -> tuple[str, int]:
    """What to tell the user, and the exit status."""
    if isinstance(problem, DlgenomeError):
        return str(problem), problem.exit_code
    if isinstance(problem, (KeyboardInterrupt, Stopped)):
        cause = str(problem) or "Ctrl-C"
        return (
            f"Stopped by {cause}; no half-written file is left, run the command again.",
            Interrupted.exit_code,
        )
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({problem.filename})" if problem.filename else ""
        return f"The disk is full{place}: make room and run again.", Interrupted.exit_code
    if isinstance(problem, OSError) and problem.errno == errno.ENAMETOOLONG:
        return f"No file can have a name as long as {str(problem.filename)[:60]}...", UsageError.exit_code
    first_line = (str(problem).splitlines() or [""])[0]
    return (
        f"This is a bug in dlgenome, not in your input ({type(problem).__name__}: {first_line}); "
        "run again with --debug for the traceback, and please report it."
    ), 1


@click.group(cls=DlgenomeGroup, context_settings=COMMON_SETTINGS)
@click.version_option(None, "--version", package_name="dlgenome", message="dlgenome %(version)s")
def cli() -> None:
    """Per-base DeepLIFT contribution scores of sequence models: checkpoint and BED in, HDF5 and bigWig out.

    Nothing at hand? `dlgenome demo -o demo` runs the whole job on simulated data.
    """


cli.add_command(attribute)
cli.add_command(inspect)
cli.add_command(convert)
cli.add_command(merge)
cli.add_command(verify)
cli.add_command(diff)
cli.add_command(rerun)
cli.add_command(demo)
cli.add_command(presets)


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()  # before libraries start threads
    try:
        try:
            interrupt_on_signals()
            cli(prog_name="dlgenome")
        finally:  # what is to be said is said, and a signal while Python ends would change the exit status
            ignore_signals()
    except Stopped as problem:  # before or after the command was in hand
        ignore_signals()
        message, exit_code = _verdict(problem)
        click.echo(f"Error: {message}", err=True)
        sys.exit(exit_code)


if __name__ == "__main__":
    main()
