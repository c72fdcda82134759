"""Which files a run writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlgenome.config import RunConfig, parse_shard
from dlgenome.folds import FOLD_SD
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.explain import REFERENCE_SE
from dlgenome.writers.paths import OutputPaths


def output_paths(config: RunConfig) -> OutputPaths:
    """Every file that a run would write, those of single folds left out."""
    names = tuple(target.name for target in parse_targets(config.targets))
    extras = ((FOLD_SD,) if config.fold_sd else ()) + ((REFERENCE_SE,) if config.reference_se else ())
    return OutputPaths(_prefix(config), names, frozenset(config.formats), extras)


def every_paths(config: RunConfig) -> list[OutputPaths]:
    """The files of the run, and with ``--per-fold`` those of each fold: those of a run of its own."""
    paths = output_paths(config)
    if not config.per_fold:
        return [paths]
    extras = tuple(extra for extra in paths.extras if extra != FOLD_SD)
    folds = range(1, len(config.folds) + 2)
    prefixes = [paths.prefix.with_name(f"{paths.prefix.name}.fold-{number}") for number in folds]
    return [paths, *(replace(paths, prefix=prefix, extras=extras) for prefix in prefixes)]


def output_files(config: RunConfig) -> tuple[Path, ...]:
    """Every file that a run would write, in the order in which a summary lists them."""
    return tuple(path for one in every_paths(config) for path in one.all())


def _prefix(config: RunConfig) -> Path:
    """``PREFIX``, or ``PREFIX.shard-I-of-N``."""
    if config.shard is None:
        return config.output
    part, parts = parse_shard(config.shard)
    return config.output.with_name(f"{config.output.name}.shard-{part}-of-{parts}")
