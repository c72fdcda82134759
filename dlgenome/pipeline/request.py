"""What a run was asked to do, kept with an unfinished run, so that only the same resumes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlgenome import provenance
from dlgenome.attribution.devices import resolve_devices
from dlgenome.config import RunConfig, settings
from dlgenome.errors import InputError, UsageError
from dlgenome.pipeline.job import Job
from dlgenome.provenance import file_sha256
from dlgenome.writers.disk import clear_write_errors, sync
from dlgenome.writers.paths import OutputPaths

Request = Mapping[str, Any]

_MAY_CHANGE = frozenset(
    {
        *("output", "overwrite", "resume", "force_unlock", "dry_run", "threads", "batch_size"),
        *("fail_fast", "max_failures", "max_delta", "device", "compile"),
    }
)
"""Settings that say where and how a run is done, not what comes out of it."""
_PATHS = frozenset({"model", "folds", "genome", "regions", "fasta", "exclude", "plugins", "trust_pickle"})
"""Files are known by their contents: they may have been moved."""
_FLAGS = {"targets": "target", "extra_inputs": "extra-input"}
_CODE = (".py", ".json")
"""Endings of files that a setting may name."""


def request_of(config: RunConfig, piped_sha256: str | None = None) -> dict[str, Any]:
    """Every setting that the scores depend on, and the contents of the files, but for the genome's bases.

    Regions that come through a pipe can be read once only; their checksum is given or left out.
    """
    regions = Path(config.regions) if config.regions not in (None, "-") else None
    digest = piped_sha256 if regions is None or not regions.is_file() else _sha256(regions)
    kind, _, references = config.references.partition(":")
    return {
        **_chosen(config),
        **({} if digest is None else {"regions (sha256)": digest}),
        "references (sha256)": _sha256(Path(references).expanduser()) if kind == "file" else None,
    }


def whole_request(job: Job) -> dict[str, Any]:
    """The same, with what is known once every input is open."""
    return {
        **_chosen(job.config),
        "regions (sha256)": job.table.sha256,
        "genome (names and lengths)": job.genome.digest,
        "references (sha256)": job.references_sha256,
        "input length": job.plan.length,
        "code (sha256)": ",".join([*job.code.run.values(), *job.code.targets.values()]) or None,
    }


def _chosen(config: RunConfig) -> dict[str, Any]:
    """The settings, and the contents of the files that are never piped."""
    chosen = {
        name: by_contents(value)
        for name, value in settings(config).items()
        if name not in _MAY_CHANGE and name not in _PATHS
    }
    if config.references.startswith("file:"):
        chosen["references"] = "file"
    fasta, exclude = config.fasta, config.exclude
    versions = provenance.package_versions()
    return {
        **chosen,
        "checkpoint (sha256)": _sha256(config.model, *config.folds),
        "fasta (sha256)": _sha256(*([fasta] if fasta else [])),
        "exclude (sha256)": _sha256(*([exclude] if exclude else [])),
        "plugin (sha256)": _sha256(*config.plugins),
        "device": resolve_devices(config.device)[0].type,
        "version of dlgenome": versions.get("dlgenome"),
        "version of torch": versions.get("torch"),
    }


def differences(before: Request, now: Request) -> list[str]:
    """What is not as it was, each in a few words a user can act on."""
    return [
        f"{_flag(name)} was {_shown(before.get(name))} and is {_shown(now.get(name))}"
        for name in sorted(now)
        if before.get(name) != now.get(name)
    ]


def refuse_another(paths: OutputPaths, before: Request, now: Request) -> None:
    """Raise UsageError, naming what differs, unless both ask for the same."""
    found = differences(before, now)
    if found:
        raise UsageError(
            f"--resume: {paths.prefix} was begun with other inputs or settings: {'; '.join(found)}. Give the "
            "same again, choose another -o, or begin anew with --overwrite."
        )


def record_state(paths: OutputPaths, request: Request, batch_size: int) -> None:
    """Write down what is being done; from here on the run can be resumed."""
    text = json.dumps({"request": request, "batch_size": batch_size}, indent=2, sort_keys=True)
    fresh = paths.scratch("state")
    with clear_write_errors(paths.state):
        fresh.write_text(text + "\n", encoding="utf-8")
        sync(fresh)
        fresh.replace(paths.state)
        sync(paths.partial)


def read_state(paths: OutputPaths) -> tuple[Request, int]:
    """The request of the unfinished run and its pairs a step; raises InputError when they cannot be read."""
    try:
        found = json.loads(paths.state.read_text(encoding="utf-8"))
        return dict(found["request"]), int(found["batch_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{paths.state} cannot be read, so the run cannot go on; begin anew with --overwrite."
        ) from error


def finished_request(paths: OutputPaths) -> Request:
    """The request of a finished run; raises InputError when its run.json does not say."""
    try:
        return dict(json.loads(paths.run_json.read_text(encoding="utf-8"))["request"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{paths.run_json} does not say how the run was made; make it again with --overwrite."
        ) from error


def by_contents(value: Any) -> Any:
    """A setting in which the name of a file, as in FILE.py:function, has become the file's checksum."""
    if isinstance(value, list):
        return [by_contents(one) for one in value]
    if not isinstance(value, str):
        return value
    described = value.rpartition("=")[2]
    for name in (described, described.rpartition(":")[0]):
        digest = _sha256(Path(name)) if name.endswith(_CODE) else None
        if digest is not None:
            return value.replace(name, digest)
    return value


def _sha256(*paths: Path) -> str | None:
    """Of all the files; None for none, and for what cannot be read: its reader says why, better than here."""
    try:
        return ",".join(file_sha256(path) for path in paths) or None
    except OSError:
        return None


def _flag(name: str) -> str:
    if " " in name:
        return f"the {name}"
    return "--" + _FLAGS.get(name, name).replace("_", "-")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "not given"
    text = "not given" if value is None else str(value)
    if len(text) <= 40:
        return text
    # The checksums of several files are joined by commas, and only the last of them may differ.
    return ",".join(part if len(part) <= 40 else f"{part[:12]}..." for part in text.split(","))
