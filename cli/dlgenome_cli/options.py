"""Options that several commands share, each as a named decorator, and what they set up."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from dlgenome.config_files import CODE_FLAGS, config_path, load_yaml

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What turns a function into one with further options."""

COMMON_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 110,
}
"""Context settings of every command."""


log = logging.getLogger("dlgenome.command")
"""Where a command tells how it goes; -q silences it, as it does the library's messages."""


def together(*options: Decorator) -> Decorator:
    """One decorator of several options, in the order in which --help lists them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def split_commas(
    _ctx: click.Context, _parameter: click.Parameter, value: str | tuple[str, ...]
) -> tuple[str, ...]:
    """Comma-separated words as a tuple, empty ones dropped: callback of a `type=click.UNPROCESSED` option.

    A configuration file hands the tuple over ready.
    """
    words = value.split(",") if isinstance(value, str) else value
    return tuple(word.strip() for word in words if word.strip())


_DEBUG_KEY = "dlgenome_cli.debug"


_LOG_JSON_KEY = "dlgenome_cli.log_json"


def log_json_wanted(ctx: click.Context) -> bool:
    """Whether --log-json was given to the command that runs in this context."""
    return bool(ctx.find_root().meta.get(_LOG_JSON_KEY, False))


def debug_wanted(ctx: click.Context) -> bool:
    """Whether --debug was given to the command that runs in this context."""
    return bool(ctx.find_root().meta.get(_DEBUG_KEY, False))


class _EchoHandler(logging.Handler):
    """Sends log lines to stderr through click, so that they survive redirection and odd terminals."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json
        self.write: Callable[[str], None] = partial(click.echo, err=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; only warnings and errors say what they are."""
        if self.as_json:
            self.write(json_line(record.levelname.lower(), record.getMessage()))
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        self.write(prefix + printable(record.getMessage(), "\n"))


@contextmanager
def messages_through(write: Callable[[str], None]) -> Iterator[None]:
    """Have ``write`` print the messages meanwhile, such as above a bar that they would run into."""
    handlers = [one for one in logging.getLogger("dlgenome").handlers if isinstance(one, _EchoHandler)]
    before = [one.write for one in handlers]
    for one in handlers:
        one.write = write
    try:
        yield
    finally:
        for one, usual in zip(handlers, before, strict=True):
            one.write = usual


def printable(text: str, kept: str = "") -> str:
    """The text with what is no letter, sign or space written as in Python, but for the characters ``kept``.

    Names in files come from anywhere, and some characters are commands to a terminal.
    """
    return "".join(
        letter if letter.isprintable() or letter in kept else letter.encode("unicode_escape").decode()
        for letter in text
    )


def json_line(level: str, message: str) -> str:
    """One log line as a JSON object."""
    return json.dumps({"level": level, "message": message})


def _configure_logging(level: int, as_json: bool) -> None:
    logger = logging.getLogger("dlgenome")
    logger.handlers = [_EchoHandler(as_json)]
    logger.setLevel(level)
    logger.propagate = False
    # Warnings of other packages (torch.export has many) are for those who debug, not for users.
    logging.captureWarnings(True)
    others = logging.getLogger("py.warnings")
    others.handlers = [_EchoHandler(as_json)] if level <= logging.DEBUG else [logging.NullHandler()]
    others.propagate = False


def _set_verbosity(ctx: click.Context, _parameter: click.Parameter, quiet: bool) -> None:
    verbose = bool(ctx.meta.pop("dlgenome_cli.verbose", False))
    if quiet and verbose:
        raise click.UsageError("Give -v or -q, not both.", ctx)
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    _configure_logging(level, log_json_wanted(ctx))


def _remember_verbose(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    ctx.meta["dlgenome_cli.verbose"] = verbose


def _remember_log_json(ctx: click.Context, _parameter: click.Parameter, log_json: bool) -> None:
    ctx.find_root().meta[_LOG_JSON_KEY] = log_json


def _remember_debug(ctx: click.Context, _parameter: click.Parameter, debug: bool) -> None:
    ctx.find_root().meta[_DEBUG_KEY] = debug


verbosity_options = together(
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        show_default=False,
        callback=_remember_verbose,
        help="Print details and the warnings of torch and other packages, too.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        show_default=False,
        callback=_set_verbosity,
        help="Print warnings and errors only.",
    ),
    click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        show_default=False,
        callback=_remember_debug,
        help="Print the traceback when something fails.",
    ),
    click.option(
        "--log-json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        show_default=False,
        callback=_remember_log_json,
        help="Write messages as JSON objects, one a line.",
    ),
)
"""-v, -q, --log-json and --debug; set up logging, pass nothing on."""


json_option = click.option(
    "--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object instead of text."
)


def _read_config(ctx: click.Context, _parameter: click.Parameter, name_or_file: str | None) -> None:
    if name_or_file is None:
        return
    ctx.default_map = {**(ctx.default_map or {}), **load_yaml(config_path(name_or_file))}


config_option = click.option(
    "--config",
    metavar="NAME|FILE",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="Take settings from this YAML file or preset (see `dlgenome presets`); a flag beats it. "
    f"{', '.join('--' + flag for flag in CODE_FLAGS)} work on the command line only.",
)
"""--config NAME-or-FILE: its values become the defaults of the flags, so that a flag beats the file."""


model_options = together(
    click.option(
        "--model-type",
        metavar="TYPE",
        default="auto",
        help="How to read the checkpoint; auto looks at the file.",
    ),
    click.option(
        "--architecture",
        metavar="NAME|PKG.MOD:FACTORY|FILE.json",
        help="What builds the module that bare weights are loaded into: bpnet, chrombpnet, basepairnet, "
        "basset, deepsea, beluga, danq, deepstarr, pangolin, a factory of your own, or the JSON of a "
        "Keras model.",
    ),
    click.option(
        "--architecture-args",
        metavar="JSON|FILE",
        help="Keyword arguments of the architecture: JSON text, or a JSON file.",
    ),
    click.option(
        "--trust-pickle",
        is_flag=True,
        show_default=False,
        help="Load a checkpoint that can run code of its own. Only for files whose maker you trust.",
    ),
    click.option(
        "--alphabet",
        default="auto",
        metavar="BASES",
        help="Order of the bases that the model was trained on, such as AGCT; auto is what the file or "
        "the architecture says (DeepSEA: AGCT), else ACGT.",
    ),
    click.option(
        "--input-layout",
        default="auto",
        metavar="LAYOUT",
        help="Axes of the model's input behind the batch: 4xL, Lx4, 4x1xL, 4xLx1, 1x4xL or Lx1x4; "
        "auto takes the first that it runs on.",
    ),
    click.option(
        "--extra-input",
        "extra_inputs",
        multiple=True,
        metavar="X",
        help="A further input of the model, equal for all sequences: zeros:SHAPE, ones:SHAPE, a number, "
        "or an array FILE.npy, without the batch axis. Repeatable, in the order of the arguments.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE.py",
        help="Rules of your own for operations (runs the file). Repeatable; see docs/plugins.md.",
    ),
    click.option(
        "--strict/--no-strict",
        default=True,
        help="Refuse operations without an exact rule, or give them their gradient, with a warning.",
    ),
)
"""Everything that says how a checkpoint is read and what its input looks like."""


device_option = click.option(
    "--device",
    default="auto",
    metavar="DEVICE",
    help="Where the model runs: auto, cpu, cuda, cuda:0 or mps; several processes at once with cpu:N "
    "(N of them), cuda:0,1 or cuda:all (one for each GPU).",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processor threads. [default: SLURM_CPUS_PER_TASK, else OMP_NUM_THREADS, "
    "else the processors this process may use]",
)
