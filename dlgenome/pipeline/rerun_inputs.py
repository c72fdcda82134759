"""Whether the files of a run that is to be repeated are what they were."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlgenome import provenance
from dlgenome.checking.inputs import digest_of, other_bases
from dlgenome.config import RunConfig, settings
from dlgenome.errors import InputError
from dlgenome.pipeline.request import by_contents
from dlgenome.pipeline.rerunning import FILE_REFERENCES, Rerun
from dlgenome.regions.fasta import Genome
from dlgenome.scores import ScoresFile

logger = logging.getLogger(__name__)

SAMPLED_WINDOWS = 64
"""Windows of the old scores whose bases are compared: a genome is known by its names and lengths only."""

_MAY_NAME_CODE = {
    "architecture": "--architecture",
    "architecture_args": "--architecture-args",
    "targets": "-t",
}
_VERSIONS = ("version of dlgenome", "version of torch")


def check_inputs(rerun: Rerun) -> tuple[str, ...]:
    """The files that are what they were when the run was made, for the command to report.

    Raises InputError that names every file that is missing or has changed.
    """
    problems, checked = [], []
    for key, what, flag, paths in _files(rerun.config):
        found = list(_changed(what, flag, paths, rerun.request.get(key)))
        problems += found
        checked += [] if found else [f"{what} {path}" for path in paths]
    problems += _changed_code(rerun)
    if rerun.config.genome is not None:
        found = list(_changed_genome(rerun, rerun.config.genome))
        problems += found
        checked += [] if found else [f"genome {rerun.config.genome}"]
    if problems:
        raise InputError(f"This run cannot be repeated as it was: {'; '.join(problems)}.")
    _warn_of_versions(rerun)
    return tuple(checked)


def _warn_of_versions(rerun: Rerun) -> None:
    versions = provenance.package_versions()
    for name in _VERSIONS:
        before, now = rerun.request.get(name), versions.get(name.removeprefix("version of "))
        if before != now:
            logger.warning(
                "The %s was %s and is %s, so scores may differ in their last digits.", name, before, now
            )


def _files(config: RunConfig) -> Iterator[tuple[str, str, str, tuple[Path, ...]]]:
    """(key in the request, what it is, flag that says where it is, paths) of all that is read whole."""
    yield "checkpoint (sha256)", "checkpoint", "-m", (config.model, *config.folds)
    if config.regions is not None:
        yield "regions (sha256)", "regions", "-r", (Path(config.regions),)
    if config.fasta is not None:
        yield "fasta (sha256)", "sequences", "-f", (config.fasta,)
    if config.exclude is not None:
        yield "exclude (sha256)", "regions to leave out", "--exclude", (config.exclude,)
    if config.plugins:
        yield "plugin (sha256)", "plug-in", "--plugin", config.plugins
    kind, _, argument = config.references.partition(":")
    if kind == FILE_REFERENCES:
        yield "references (sha256)", "references", "--references-file", (Path(argument),)


def _changed(what: str, flag: str, paths: Sequence[Path], recorded: object) -> Iterator[str]:
    expected = str(recorded or "").split(",")
    if len(expected) != len(paths):
        yield f"{len(paths)} files of {what} are given and {len(expected)} recorded"
        return
    for path, digest in zip(paths, expected, strict=True):
        try:
            same = digest_of(path) == digest
        except InputError as problem:
            yield f"{str(problem).rstrip('.')} (the {what}; {flag} says where it is now)"
            continue
        if not same:
            yield f"{path} (the {what}) has changed: its SHA-256 is not the one recorded, {digest[:12]}..."


def _changed_code(rerun: Rerun) -> Iterator[str]:
    """Settings that name a file of code, which has other contents now; packages are not looked into."""
    now = settings(rerun.config)
    for name, flag in _MAY_NAME_CODE.items():
        if name in rerun.request and by_contents(now[name]) != rerun.request[name]:
            words = now[name] if isinstance(now[name], str) else " ".join(now[name] or ())
            yield f"{flag} {words} has other code or another meaning than then"


def _changed_genome(rerun: Rerun, fasta: Path) -> Iterator[str]:
    try:
        with Genome(fasta) as genome:
            if genome.digest != rerun.request.get("genome (names and lengths)"):
                yield f"{fasta} is another genome: its names and lengths of sequences differ"
                return
            for path in (one.scores_h5(target) for one in rerun.old[:1] for target in one.targets[:1]):
                yield from (f"{path}, {problem}" for problem in _changed_bases(path, genome))
    except InputError as problem:
        yield f"{str(problem).rstrip('.')} (the genome; -g says where it is now)"


def _changed_bases(old: Path, genome: Genome) -> tuple[str, ...]:
    """Windows of the old scores, evenly spread, in which the genome has other bases now.

    Old scores that are gone or damaged say nothing of the genome; the comparison at the end names them.
    """
    try:
        with ScoresFile(old) as scores:
            step = max(1, scores.n_regions // SAMPLED_WINDOWS)
            rows = (slice(row, row + 1) for row in range(0, scores.n_regions, step))
            return tuple(problem.message.rstrip(".") for problem in other_bases(scores, genome, rows))
    except InputError:
        return ()
