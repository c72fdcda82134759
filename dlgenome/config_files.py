"""Configuration files: YAML that fills a RunConfig, and the presets that ship."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from dlgenome.config import RunConfig
from dlgenome.errors import InputError, UsageError, first_line

_LARGEST_FILE = 2**20
_MOST_PARTS = 100_000

CODE_FLAGS = ("architecture", "architecture-args", "trust-pickle", "plugin")
"""Flags that decide which code runs: a person types them, a file that came with the data may not."""

_RUNS_CODE = re.compile(r"(?!(?:index|contrast|output):).*:.*")
"""A target that is a function, ``FILE.py:function``; without its name and without spaces."""

_LIST_FLAGS: Mapping[str, Callable[[str], list[str]]] = {
    "target": lambda text: [text],  # `index:0,1` is one target
    "model": lambda text: [text],  # a list means folds
    "extra-input": lambda text: [text],
    "chroms": lambda text: text.split(","),
    "formats": lambda text: text.split(","),
}

_FIELDS = {"target": "targets", "extra-input": "extra_inputs", "plugin": "plugins"}
_KEYS = {field: key for key, field in _FIELDS.items()}


def field_of_key(key: str) -> str:
    """The RunConfig field that a YAML key or long flag fills: `n-references` is `n_references`."""
    return _FIELDS.get(key, key.replace("-", "_"))


def key_of_field(field: str) -> str:
    """The YAML key and long flag of a RunConfig field: the reverse of `field_of_key`."""
    return _KEYS.get(field, field.replace("_", "-"))


def file_keys() -> tuple[str, ...]:
    """Every key that a configuration file may hold, sorted."""
    fields = RunConfig.__dataclass_fields__.keys() - {"folds"}  # folds are a list under `model`
    return tuple(sorted({key_of_field(name) for name in fields} - set(CODE_FLAGS)))


def load_yaml(path: Path) -> dict[str, Any]:
    """RunConfig field -> value of a configuration file.

    Keys are the long flags of `dlgenome attribute` without their dashes in front, `_` and `-` alike.
    Raises InputError for a file that cannot be read or is not YAML, UsageError for a key that is unknown,
    given twice, or that could run code.
    """
    values: dict[str, Any] = {}
    for key, value, line in _entries(path):
        flag = key.replace("_", "-")
        place = f"{path}, line {line}"
        if flag in CODE_FLAGS:
            raise UsageError(
                f"{place}: `{key}` decides which code runs, so a file may not set it; "
                f"give --{flag} on the command line."
            )
        if flag not in file_keys():
            raise UsageError(f"{place}: `{key}` is not a setting{_nearest(flag)}.")
        if field_of_key(flag) in values:
            raise UsageError(f"{place}: `{key}` is given a second time; keep one of the two.")
        if value is not None:
            values[field_of_key(flag)] = _checked_value(flag, value, place)
    _check_targets(path, values.get("targets", ()))
    return values


def _check_targets(path: Path, targets: tuple[str, ...]) -> None:
    for target in targets:
        if _RUNS_CODE.fullmatch(re.sub(r"\s", "", target).rpartition("=")[2]):
            raise UsageError(
                f"{path}: the target `{target}` is a function, so it decides which code runs and a file may "
                "not set it; give --target on the command line."
            )


def _checked_value(flag: str, value: Any, place: str) -> Any:
    """A scalar, or for flags that take several a tuple of strings (given as a list or with commas)."""
    if flag in _LIST_FLAGS:
        items = value if isinstance(value, list) else _LIST_FLAGS[flag](str(value))
        if all(isinstance(item, str | int | float) for item in items):
            return tuple(str(item).strip() for item in items)
        raise UsageError(f"{place}: `{flag}` takes a list of words.")
    if isinstance(value, str | int | float):
        return value
    raise UsageError(f"{place}: `{flag}` takes one value, not a {type(value).__name__}.")


def _nearest(flag: str) -> str:
    close = difflib.get_close_matches(flag, file_keys(), n=1, cutoff=0.0)
    return f"; the nearest is `{close[0]}`" if close else ""


def _entries(path: Path) -> Iterator[tuple[str, Any, int]]:
    """Key, value and 1-based line of every top-level entry; the safe loader builds plain values only."""
    import yaml  # not needed for --help

    text = _text(path)
    with _as_one_sentence(path):
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}: a configuration is a list of `key: value` lines, and this is not one.")
        for key_node, value_node in root.value:
            place = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not _is_small(value_node):
                raise InputError(f"{path}, line {place}: a setting is `key: value`, or a list of values.")
            yield key_node.value, cast("Any", loader.construct_object(value_node, deep=True)), place


@contextmanager
def _as_one_sentence(path: Path) -> Iterator[None]:
    """Whatever the loader raises, as an InputError."""
    import yaml

    try:
        yield
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = first_line(problem) if mark is None else getattr(problem, "problem", problem)
        raise InputError(f"{path}{line}: not YAML: {reason}.") from problem
    except (ArithmeticError, AttributeError, LookupError, RecursionError, ValueError) as problem:
        # a date that is none, a number too long, brackets without end: the loader lets them through
        raise InputError(f"{path}: a value in it is not YAML ({first_line(problem)}).") from problem


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise InputError(f"{path}: larger than any configuration; check that it is one.")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: the configuration cannot be read: {reason}.") from problem


def _is_small(node: Any) -> bool:
    """Whether a value has no more parts than a setting may have, those behind anchors counted every time.

    Anchors let a few lines stand for more values than any memory holds.
    """
    waiting = [node]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return True
        value = waiting.pop().value
        if not isinstance(value, str):
            waiting += [part for entry in value for part in (entry if isinstance(entry, tuple) else (entry,))]
    return False


def _preset_folder() -> Path:
    """Where the presets lie: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("dlgenome")))
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def presets() -> tuple[str, ...]:
    """The names of the presets that ship, sorted."""
    return tuple(sorted(path.stem for path in _preset_folder().glob("*.yaml")))


def preset_path(name: str) -> Path:
    """The file of the preset `name`; raises UsageError that lists the presets there are."""
    if name not in presets():
        raise UsageError(f"There is no preset `{name}`; there are {', '.join(presets())}.")
    return _preset_folder() / f"{name}.yaml"


def config_path(name_or_file: str) -> Path:
    """The file that `--config NAME-or-FILE` means: a file of that name wins over a preset."""
    path = Path(name_or_file)
    if path.is_file():
        return path
    if name_or_file in presets():
        return preset_path(name_or_file)
    if path.is_dir():
        raise UsageError(f"--config {name_or_file} is a folder; give a YAML file or the name of a preset.")
    close = difflib.get_close_matches(name_or_file, presets(), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise UsageError(
        f"--config {name_or_file}: there is no such file, and the presets are {', '.join(presets())}.{hint}"
    )
