"""`python -m benchmarks constructs`: the tables of docs/comparison.md."""

from __future__ import annotations

from pathlib import Path

import click

file_option = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="This construct; repeat for more. [default: all]")
@click.option("--no-peer", is_flag=True, show_default=False, help="Try dlgenome alone.")
@click.option(
    "--peer-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DLGENOME_PEER_PYTHON",
    show_envvar=True,
    help="Interpreter that has the other programs. [default: .venv-peers, made when missing]",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=120, help="Seconds a network."
)
@click.option("--json", "json_file", type=file_option, help="Write everything measured to this file.")
@click.option("--markdown", "markdown_file", type=file_option, help="Put the tables into this page.")
def constructs(
    only: tuple[str, ...],
    no_peer: bool,
    peer_python: Path | None,
    timeout: float,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Whether attributions add up, construct by construct, in dlgenome, tangermeme, captum and shap."""
    from benchmarks import constructs_compare, constructs_report, machine, processes
    from benchmarks.constructs import CONSTRUCTS

    unknown = [name for name in only if name not in CONSTRUCTS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]} is none of {', '.join(CONSTRUCTS)}.", param_hint="--only")
    facts = machine.facts(threads=1)
    peer = None if no_peer else processes.peer_python(peer_python)
    measured = constructs_compare.compare(only or list(CONSTRUCTS), peer, timeout)
    text = constructs_report.markdown(facts, measured)
    click.echo(text)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(constructs_report.as_json(facts, measured))
    if markdown_file is not None:
        constructs_report.write_markdown(markdown_file, text)
