"""A run repeated from its run.json: with the same settings, on files that are found to be the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlgenome.checking import Difference, compare
from dlgenome.checking.beside import read_run_json
from dlgenome.config import RunConfig, config_of
from dlgenome.errors import InputError, UsageError
from dlgenome.model.architectures.factory import is_factory
from dlgenome.model.targets import parse_target
from dlgenome.pipeline.outputs import every_paths
from dlgenome.writers.paths import OutputPaths

FILE_REFERENCES = "file"
"""The kind of references that are read from the file behind its colon."""

_SUFFIX = ".run.json"


@dataclass(frozen=True, kw_only=True)
class RerunRequest:
    """One `dlgenome rerun`: a field for each flag. Paths say where a file is now."""

    run_json: Path
    output: Path
    models: tuple[Path, ...] = ()
    genome: Path | None = None
    regions: Path | None = None
    fasta: Path | None = None
    exclude: Path | None = None
    references_file: Path | None = None
    architecture: str | None = None
    """This and the next three run code, which a file may not ask for: they repeat what the run was given."""
    targets: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    trust_pickle: bool = False
    device: str | None = None
    threads: int | None = None
    overwrite: bool = False
    resume: bool = False
    force_unlock: bool = False


@dataclass(frozen=True)
class Rerun:
    """A run that is to be repeated."""

    config: RunConfig
    request: Mapping[str, Any]
    """What the run was asked to do, and the contents of its files."""
    old: tuple[OutputPaths, ...]
    """Where its files lie if run.json still lies beside them; the mean's first, then each fold's."""

    @property
    def new(self) -> tuple[OutputPaths, ...]:
        """Where those of the rerun go."""
        return tuple(every_paths(self.config))


@dataclass(frozen=True)
class Comparison:
    """The new scores of a target and the old."""

    old: Path
    new: Path
    difference: Difference | None
    """None where the old file is not there, or cannot be read."""
    reason: str = ""
    """Why they could not be compared."""


def plan_rerun(request: RerunRequest) -> Rerun:
    """The run that run.json describes, with the paths and permissions that were given.

    Raises InputError for a run.json that is damaged or of something else, UsageError for permissions that
    are missing: code never runs because a file says so.
    """
    facts = read_run_json(request.run_json)
    asked, before = facts.section("settings"), facts.section("request")
    if "mean" in asked or "scores" in asked:
        raise InputError(
            f"{facts.path} is of files that `dlgenome merge` joined; rerun the runs that were joined, and "
            "join theirs."
        )
    if not asked or not before:
        raise InputError(f"{facts.path} does not say how the run was made; it is damaged, or not a run.json.")
    try:
        recorded = config_of({**asked, "dry_run": False, "resume": False, "overwrite": False})
        config = _with_permissions(request, recorded)
        config = _with_places(request, config, Path(str(facts.facts.get("working_directory", "."))))
        config = _as_it_was_computed(request, config, facts.facts, before)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{facts.path} is damaged: its settings cannot be ({error}).") from error
    old = _old_paths(request, config)
    _refuse_same_place(request, old, config)
    return Rerun(config, before, old)


def compare_with_old(rerun: Rerun) -> tuple[Comparison, ...]:
    """How the new scores differ from the old, for every target of the run and of its folds."""
    if "h5" not in rerun.config.formats:
        return ()
    return tuple(
        _compare(old.scores_h5(target), new.scores_h5(target))
        for old, new in zip(rerun.old, rerun.new, strict=False)
        for target in new.targets
    )


def _compare(old: Path, new: Path) -> Comparison:
    if not old.exists():
        return Comparison(old, new, None, "it is not there any more")
    try:
        return Comparison(old, new, compare(old, new))
    except InputError as problem:
        return Comparison(old, new, None, str(problem))


def _with_permissions(request: RerunRequest, recorded: RunConfig) -> RunConfig:
    """The settings, in which whatever runs code comes from the request."""
    architecture = recorded.architecture
    if architecture is not None and is_factory(architecture):
        architecture = _repeated("--architecture", architecture, request.architecture)
    if recorded.trust_pickle and not request.trust_pickle:
        raise UsageError(
            "This run was given --trust-pickle, so its checkpoint may run code: repeat the flag."
        )
    if len(request.plugins) != len(recorded.plugins):
        names = " ".join(f"--plugin {plugin}" for plugin in recorded.plugins) or "no --plugin"
        raise UsageError(f"This run was given {names}, and plug-ins run code: repeat them in this order.")
    return replace(
        recorded,
        architecture=architecture,
        trust_pickle=request.trust_pickle,
        plugins=request.plugins,
        targets=_repeated_targets(request.targets, recorded.targets),
    )


def _repeated(flag: str, recorded: str, given: str | None) -> str:
    if given is None:
        raise UsageError(f"This run was given {flag} {recorded}, which runs code: repeat it.")
    return given


def _repeated_targets(given: Sequence[str], recorded: Sequence[str]) -> tuple[str, ...]:
    """The recorded targets; functions among them have to be given again, and may have moved."""
    were = {parse_target(text): text for text in recorded}
    functions = {target.name: text for target, text in were.items() if target.kind == "callable"}
    now = {parse_target(text).name: text for text in given}
    missing = [text for name, text in functions.items() if name not in now]
    if missing:
        raise UsageError(f"This run was given -t {missing[0]}, a function, which runs code: repeat it.")
    for name in now.keys() - functions.keys():
        raise UsageError(f"-t {now[name]}: a rerun takes its targets from run.json, except for functions.")
    return tuple(
        now.get(target.name, text) if target.kind == "callable" else text for target, text in were.items()
    )


def _with_places(request: RerunRequest, config: RunConfig, folder: Path) -> RunConfig:
    """The settings with the places where the files are now."""
    recorded = (config.model, *config.folds)
    if request.models and len(request.models) != len(recorded):
        raise UsageError(f"This run had {len(recorded)} checkpoints; give -m as often, in their order.")
    first, *folds = request.models or [_moved(path, folder) for path in recorded]
    return replace(
        config,
        output=request.output,
        model=first,
        folds=tuple(folds),
        genome=_place(request.genome, config.genome, folder, "-g"),
        regions=_regions(request, config, folder),
        fasta=_place(request.fasta, config.fasta, folder, "-f"),
        exclude=_place(request.exclude, config.exclude, folder, "--exclude"),
        references=_references(request, config, folder),
    )


def _regions(request: RerunRequest, config: RunConfig, folder: Path) -> str | None:
    if config.regions == "-":
        if request.regions is None:
            raise UsageError(
                "This run read its regions from standard input, which is gone; give the same in a file, "
                "with -r."
            )
        return str(request.regions)
    recorded = None if config.regions is None else Path(config.regions)
    found = _place(request.regions, recorded, folder, "-r")
    return None if found is None else str(found)


def _place(given: Path | None, recorded: Path | None, folder: Path, flag: str) -> Path | None:
    if recorded is None and given is not None:
        raise UsageError(f"{flag} {given}: this run had none.")
    return given or (None if recorded is None else _moved(recorded, folder))


def _references(request: RerunRequest, config: RunConfig, folder: Path) -> str:
    kind, _, argument = config.references.partition(":")
    if kind != FILE_REFERENCES:
        if request.references_file is not None:
            raise UsageError(f"--references-file: this run took {config.references}, which is no file.")
        return config.references
    return f"{kind}:{request.references_file or _moved(Path(argument).expanduser(), folder)}"


def _moved(path: Path, folder: Path) -> Path:
    """The path as it is, or below the folder where the run was made if it is only there."""
    elsewhere = folder / path
    return elsewhere if not path.exists() and elsewhere.exists() else path


def _as_it_was_computed(
    request: RerunRequest, config: RunConfig, facts: Mapping[str, Any], before: Mapping[str, Any]
) -> RunConfig:
    """The settings on which the last digits depend as they came out, where they were left to the program."""
    device = request.device or (config.device if config.device != "auto" else str(before["device"]))
    return replace(
        config,
        device=device,
        threads=request.threads or config.threads or facts.get("threads"),
        batch_size=facts.get("identity", {}).get("batch_size", config.batch_size),
        max_delta=None,
        overwrite=request.overwrite,
        resume=request.resume,
        force_unlock=request.force_unlock,
    )


def _old_paths(request: RerunRequest, config: RunConfig) -> tuple[OutputPaths, ...]:
    """Where the run wrote; nothing where run.json has got another name."""
    name = request.run_json.name
    if not name.endswith(_SUFFIX):
        return ()
    prefix = name.removesuffix(_SUFFIX)
    if config.per_fold and re.search(r"\.fold-\d+$", prefix):
        raise UsageError(
            f"{request.run_json} is of one fold of a run with --per-fold, which is repeated as a whole: give "
            "the run.json without fold in its name."
        )
    if config.shard is not None:
        prefix = re.sub(r"\.shard-\d+-of-\d+$", "", prefix)
    return tuple(every_paths(replace(config, output=request.run_json.with_name(prefix))))


def _refuse_same_place(request: RerunRequest, old: Sequence[OutputPaths], config: RunConfig) -> None:
    new = every_paths(config)
    if old and old[0].run_json.resolve() == new[0].run_json.resolve():
        raise UsageError(
            f"-o {request.output} is the run itself; choose another, so that the two can be compared."
        )
