"""Write docs/cli.md from the help texts of the program: `python docs/make_cli_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dlgenome_cli.main import cli

WIDTH = 100
REFERENCE = Path(__file__).with_name("cli.md")
OPENING = """# The command line

Made from `--help` by `python docs/make_cli_reference.py` (`make docs`); change the help texts, not this page.

Exit status: 0 done, 1 a bug in dlgenome, 2 wrong flags, 3 bad input, 4 completeness gate failed, 5 model not
supported, 75 stopped by a signal or a full disk.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([OPENING, *(_section(name, text) for name, text in _help_texts())])


def _help_texts() -> Iterator[tuple[str, str]]:
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, "help_option_names": ["-h", "--help"]}
    group = click.Context(cli, info_name="dlgenome", **settings)  # type: ignore[arg-type]
    yield "dlgenome", cli.get_help(group)
    for name in cli.list_commands(group):
        command = cli.commands[name]
        context = click.Context(command, group, info_name=name, show_default=True, **settings)  # type: ignore[arg-type]
        yield f"dlgenome {name}", command.get_help(context)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## `{title}`\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
