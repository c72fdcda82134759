"""What a run is asked to do: one frozen RunConfig, with the checks that need no file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dlgenome.errors import UsageError

Center = Literal["summit", "midpoint"]
Edge = Literal["drop", "pad"]
Rule = Literal["rescale", "revealcancel", "genomics-default", "passthrough"]
MaxPool = Literal["exact", "argmax"]
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
ScoreDtype = Literal["float32", "float16"]
Overlap = Literal["nearest", "mean", "max", "first"]
OutputFormat = Literal["h5", "bigwig", "npz"]


MAX_SHARDS = 1000
_LARGEST_ARGUMENTS = 2**20


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
    compile: bool = False
    """Record the steps of a GPU once, and replay them."""
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
    shard: str | None = None
    """``I/N``: only the I-th of N contiguous parts of the selected regions."""
    overwrite: bool = False
    resume: bool = False
    """Go on with an unfinished run; leave a finished one alone."""
    force_unlock: bool = False
    fail_fast: bool = False
    max_failures: float = 0.01
    """Share of the regions that may fail to be scored before the run ends."""
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
    if config.shard is not None:
        parse_shard(config.shard)
        if config.regions == "-":
            raise UsageError("--shard needs a file of regions; standard input cannot be read by every shard.")
    if config.resume and config.overwrite:
        raise UsageError("Give --resume to go on with a run or --overwrite to begin anew, not both.")
    if not config.targets:
        raise UsageError("No target was given: name at least one with --target.")


def parse_shard(text: str) -> tuple[int, int]:
    """``I/N`` as numbers, I from 1 to N; UsageError for anything else."""
    part, _, parts = text.partition("/")
    if part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= MAX_SHARDS:
        return int(part), int(parts)
    raise UsageError(
        f"--shard is {text}; it is I/N, the I-th of N parts, with I from 1 to N and N up to {MAX_SHARDS:,}."
    )


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
    if config.precision == "bfloat16" and config.rule in ("revealcancel", "genomics-default"):
        raise UsageError(
            f"--precision bfloat16 does not go with --rule {config.rule}, which splits weights by sign; take "
            "float32."
        )
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
    if not 0 <= config.max_failures <= 1:
        raise UsageError(f"--max-failures is {config.max_failures:g}; it is a share, such as 5% or 0.05.")
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


def architecture_arguments(text: str | None) -> dict[str, Any] | None:
    """``--architecture-args`` as keyword arguments: JSON text, or the path of a JSON file."""
    if text is None:
        return None
    try:
        value = json.loads(text if text.lstrip().startswith("{") else _read_arguments(Path(text)))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--architecture-args {text[:200]}: this is neither JSON nor a file of JSON ({error}); "
            """write it as in --architecture-args '{"n_filters": 64}'."""
        ) from error
    if not isinstance(value, dict):
        raise UsageError(f"--architecture-args {text}: keyword arguments are a JSON object in braces.")
    return value


def _read_arguments(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(_LARGEST_ARGUMENTS + 1)
    if len(content) > _LARGEST_ARGUMENTS:
        raise ValueError(f"it is larger than {_LARGEST_ARGUMENTS:,} bytes")
    return content.decode("utf-8")


def settings(config: RunConfig) -> Mapping[str, Any]:
    """Every setting by field name, as plain JSON-ready values, for run.json."""
    return {name: _plain(getattr(config, name)) for name in RunConfig.__dataclass_fields__}


_PATHS = frozenset({"model", "output", "genome", "fasta", "exclude", "folds", "plugins"})


def config_of(values: Mapping[str, Any]) -> RunConfig:
    """The RunConfig whose `settings` these are; what they lack gets its default.

    Raises UsageError for settings that cannot be, or that this version does not know, and TypeError or
    ValueError for values of the wrong kind.
    """
    unknown = sorted(values.keys() - RunConfig.__dataclass_fields__.keys())
    if unknown:
        raise UsageError(f"There is no setting {unknown[0]} in this version of dlgenome; is it older?")
    return RunConfig(**{name: _typed(name, value) for name, value in values.items()})


def _typed(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(name, item) for item in value)
    return Path(value) if name in _PATHS and value is not None else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
