"""What a run is asked to do: one frozen RunConfig, the YAML files that fill it and the presets that ship."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast, get_args

from dlgenome.errors import InputError, UsageError

Center = Literal["summit", "midpoint"]
Edge = Literal["drop", "pad"]
Rule = Literal["rescale", "revealcancel", "genomics-default", "passthrough"]
MaxPool = Literal["exact", "argmax"]
Precision = Literal["float32", "float64"]
ScoreDtype = Literal["float32", "float16"]
Overlap = Literal["nearest", "mean", "max", "first"]
OutputFormat = Literal["h5", "bigwig", "npz"]

CODE_FLAGS = ("architecture", "architecture-args", "trust-pickle", "plugin")
"""Flags that decide which code runs: a person types them, a file that came with the data may not."""


_LIST_FLAGS: Mapping[str, Callable[[str], list[str]]] = {
    "target": lambda text: [text],  # `index:0,1` is one target
    "model": lambda text: [text],  # a list means folds
    "extra-input": lambda text: [text],
    "chroms": lambda text: text.split(","),
    "formats": lambda text: text.split(","),
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One `dlgenome attribute` run: a field for each flag, with the flag's default."""

    model: Path
    output: Path
    """Prefix of every file written."""
    model_type: str = "auto"
    architecture: str | None = None
    architecture_args: str | None = None
    """JSON text, or the path of a JSON file."""
    trust_pickle: bool = False
    alphabet: str = "auto"
    """Order of the bases that the model was trained on."""
    input_layout: str = "auto"
    extra_inputs: tuple[str, ...] = ()
    genome: Path | None = None
    regions: str | None = None
    """Path of a BED file, or "-" for stdin."""
    fasta: Path | None = None
    """Sequences to score themselves, instead of genome and regions."""
    center: Center = "summit"
    window: int | None = None
    """Bases; None takes the model's own input length."""
    edge: Edge = "drop"
    chroms: tuple[str, ...] = ()
    """Keep only these contigs; empty keeps all."""
    exclude: Path | None = None
    order: str = "input"
    limit: int | None = None
    skip_missing_contigs: bool = False
    targets: tuple[str, ...] = ("counts",)
    rule: Rule = "rescale"
    max_pool: MaxPool = "exact"
    strict: bool = True
    """Refuse operations without an exact rule; otherwise they get their gradient."""
    plugins: tuple[Path, ...] = ()
    references: str = "dinucleotide-shuffle"
    n_references: int | None = None
    """None takes 20, or as many as the references file holds."""
    seed: int = 0
    batch_size: int | Literal["auto"] = "auto"
    """Sequence-reference pairs a step."""
    device: str = "auto"
    precision: Precision = "float32"
    threads: int | None = None
    """Processor threads; None takes what `default_threads` finds."""
    formats: tuple[OutputFormat, ...] = ()
    """Empty becomes ("h5", "bigwig"), or ("h5",) where FASTA records are scored."""
    score_dtype: ScoreDtype = "float32"
    overlap: Overlap = "nearest"
    crop: int | None = None
    """Write only the central bases of each window to the bigWig."""
    folds: tuple[Path, ...] = ()
    """Further checkpoints of the same model: scores are the mean over all."""
    fold_sd: bool = False
    per_fold: bool = False
    reverse_complement: bool = False
    stranded: bool = False
    reference_se: bool = False
    adaptive_references: float | None = None
    """Add rounds of references until the standard error of a region's total is at most this."""
    min_rounds: int = 1
    max_rounds: int = 10
    overwrite: bool = False
    max_delta: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        _check_sources(self)
        _check_choices(self)
        _check_numbers(self)
        if not self.formats:
            chosen = ("h5",) if self.fasta is not None else ("h5", "bigwig")
            object.__setattr__(self, "formats", chosen)
        if self.fasta is not None and "bigwig" in self.formats:
            raise UsageError("A bigWig needs a genome and --fasta has none: take bigwig out of --formats.")


def _check_sources(config: RunConfig) -> None:
    if config.fasta is not None:
        if config.genome is not None or config.regions is not None:
            raise UsageError("Give either --fasta, or --genome with --regions; not both.")
    elif config.genome is None or config.regions is None:
        missing = "--genome" if config.genome is None else "--regions"
        raise UsageError(f"{missing} is missing: give --genome with --regions, or --fasta alone.")
    if str(config.exclude) == "-":
        raise UsageError("--exclude cannot be read from standard input; save the regions to a file first.")
    if not config.targets:
        raise UsageError("No target was given: name at least one with --target.")


def _check_choices(config: RunConfig) -> None:
    choices: dict[str, tuple[object, tuple[str, ...]]] = {
        "center": (config.center, get_args(Center)),
        "edge": (config.edge, get_args(Edge)),
        "rule": (config.rule, get_args(Rule)),
        "max-pool": (config.max_pool, get_args(MaxPool)),
        "precision": (config.precision, get_args(Precision)),
        "score-dtype": (config.score_dtype, get_args(ScoreDtype)),
        "overlap": (config.overlap, get_args(Overlap)),
    }
    for flag, (value, allowed) in choices.items():
        if value not in allowed:
            raise UsageError(f"--{flag} is {value}; it can be {' or '.join(allowed)}.")
    for name in config.formats:
        if name not in get_args(OutputFormat):
            raise UsageError(f"--formats names {name}; it can name {', '.join(get_args(OutputFormat))}.")


def _check_numbers(config: RunConfig) -> None:
    at_least_one: dict[str, object] = {
        "window": config.window,
        "limit": config.limit,
        "n-references": config.n_references,
        "batch-size": config.batch_size,
        "threads": config.threads,
        "crop": config.crop,
        "min-rounds": config.min_rounds,
        "max-rounds": config.max_rounds,
    }
    for flag, value in at_least_one.items():
        if isinstance(value, int) and value < 1:
            raise UsageError(f"--{flag} is {value}; it must be at least 1.")
    if config.batch_size != "auto" and not isinstance(config.batch_size, int):
        raise UsageError(f"--batch-size is {config.batch_size}; it can be auto or a whole number.")
    if config.seed < 0:
        raise UsageError(f"--seed is {config.seed}; it must not be negative.")
    if config.max_rounds < config.min_rounds:
        raise UsageError(f"--max-rounds {config.max_rounds} is below --min-rounds {config.min_rounds}.")
    if config.adaptive_references is not None and not config.adaptive_references > 0:
        raise UsageError("--adaptive-references takes a standard error above 0.")
    if (config.fold_sd or config.per_fold) and not config.folds:
        raise UsageError("--fold-sd and --per-fold need several folds: repeat -m.")
    if config.max_delta is not None and not config.max_delta > 0:
        raise UsageError(f"--max-delta is {config.max_delta}; it must be above 0.")
    if config.crop is not None and config.window is not None and config.crop > config.window:
        raise UsageError(f"--crop {config.crop} is wider than --window {config.window}.")


def default_threads() -> int:
    """SLURM_CPUS_PER_TASK, else OMP_NUM_THREADS, else the processors this process may use."""
    for variable in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_FIELDS = {"target": "targets", "fold": "folds", "extra-input": "extra_inputs", "plugin": "plugins"}
_KEYS = {field: key for key, field in _FIELDS.items()}


def field_of_key(key: str) -> str:
    """The RunConfig field that a YAML key or long flag fills: `n-references` is `n_references`."""
    return _FIELDS.get(key, key.replace("-", "_"))


def key_of_field(field: str) -> str:
    """The YAML key and long flag of a RunConfig field: the reverse of `field_of_key`."""
    return _KEYS.get(field, field.replace("_", "-"))


def file_keys() -> tuple[str, ...]:
    """Every key that a configuration file may hold, sorted."""
    keys = {key_of_field(name) for name in RunConfig.__dataclass_fields__}
    return tuple(sorted(keys - set(CODE_FLAGS)))


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
    return values


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

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: the configuration cannot be read: {reason}.") from problem
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}: a configuration is a list of `key: value` lines, and this is not one.")
        for key_node, value_node in root.value:
            value = cast("Any", loader.construct_object(value_node, deep=True))
            yield str(key_node.value), value, key_node.start_mark.line + 1
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(problem, 'problem', problem)}.") from problem
    finally:
        loader.dispose()


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
    raise UsageError(
        f"--config {name_or_file}: there is no such file, and the presets are {', '.join(presets())}."
    )


def architecture_arguments(text: str | None) -> dict[str, Any] | None:
    """``--architecture-args`` as keyword arguments: JSON text, or the path of a JSON file."""
    if text is None:
        return None
    try:
        value = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--architecture-args {text}: this is neither JSON nor a file of JSON ({error}); "
            """write it as in --architecture-args '{"n_filters": 64}'."""
        ) from error
    if not isinstance(value, dict):
        raise UsageError(f"--architecture-args {text}: keyword arguments are a JSON object in braces.")
    return value


def settings(config: RunConfig) -> Mapping[str, Any]:
    """Every setting by field name, as plain JSON-ready values, for run.json."""
    return {name: _plain(getattr(config, name)) for name in RunConfig.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
