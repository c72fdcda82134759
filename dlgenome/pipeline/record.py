"""What a run writes down about itself: identity, provenance and the facts of run.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dlgenome import provenance
from dlgenome.attribution.devices import device_name
from dlgenome.config import RunConfig, settings
from dlgenome.pipeline.job import Job
from dlgenome.scores import AttributeValue
from dlgenome.writers.next_commands import motif_commands
from dlgenome.writers.spool import Spool


def identity(job: Job, fold: int | None = None) -> dict[str, AttributeValue]:
    """What two runs must share for their files to be equal; of one fold's files, or of the mean's."""
    config, references = job.config, job.references
    models = [part.model for part in (job.folds if fold is None else [job.folds[fold]])]
    attributes: dict[str, AttributeValue] = {
        "checkpoint_sha256": ",".join(model.sha256 for model in models),
        "architecture": models[0].architecture,
        "regions_sha256": job.table.sha256,
        "genome_digest": job.genome.digest,
        "window": job.plan.length,
        "center": config.center,
        "edge": config.edge,
        "order": config.order,
        "method": "deeplift",
        "rule": config.rule,
        "max_pool": config.max_pool,
        "approximate_operations": ", ".join(a.operation for a in job.folds[0].program.approximations),
        "references": references.name,
        "n_references": references.n_references,
        "seed": config.seed,
        "strands": _strands(config),
        "precision": config.precision,
        "score_dtype": config.score_dtype,
        "batch_size": job.batch_size,
    }
    if config.adaptive_references is not None:
        attributes["adaptive_references"] = config.adaptive_references
        attributes["rounds"] = f"{config.min_rounds}-{config.max_rounds}"
    if job.references_sha256 is not None:
        attributes["references_sha256"] = job.references_sha256
    return {**attributes, **job.code.run}


def target_identity(job: Job) -> dict[str, dict[str, AttributeValue]]:
    """What only the files of one target have beside that, by its name."""
    found: dict[str, dict[str, AttributeValue]] = {
        target.name: {"target": target.text} for target in job.targets
    }
    for name, digest in job.code.targets.items():
        found[name]["target_sha256"] = digest
    return found


def _strands(config: RunConfig) -> str:
    """In words: forward or both, and whether minus-strand regions are explained on their strand."""
    base = "both" if config.reverse_complement else "forward"
    return f"{base}, stranded" if config.stranded else base


def provenance_attributes(job: Job, threads: int) -> dict[str, AttributeValue]:
    """Where and with what the files were made; equal files may differ in these."""
    config = job.config
    shards = {} if config.shard is None else {"shards": config.shard}
    return {
        **shards,
        **provenance.host_facts(),
        "command_line": provenance.command_line(),
        "checkpoint_path": ", ".join(str(path) for path in (config.model, *config.folds)),
        "genome_path": str(job.genome.path),
        "regions_path": job.table.source,
        "device": ", ".join(map(str, job.devices)),
        "device_name": device_name(job.devices[0]),
        "threads": threads,
        "versions": json.dumps(provenance.package_versions(), sort_keys=True),
    }


def run_facts(job: Job, seconds: Mapping[str, float], spool: Spool) -> dict[str, Any]:
    """What run.json says of a run whose rows are all in the spool."""
    failed = spool.next_row - spool.rows
    return {
        "settings": settings(job.config),
        "working_directory": provenance.host_facts()["working_directory"],
        "targets": {target.name: target.text for target in job.targets},
        "versions": provenance.package_versions(),
        "command_line": provenance.command_line(),
        "regions": {
            "in_file": len(job.table),
            "left_out": job.selection.left_out,
            "selected": len(job.plan.table),
            "scored": spool.rows,
            "skipped": len(job.plan.skipped) + failed,
            "failed": failed,
            "scored_before_resuming": spool.resumed_rows,
            "summits_missing": job.table.summits_missing,
        },
        "ambiguous_bases_read_as_n": job.genome.non_acgtn_count,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "regions_per_second": round((spool.rows - spool.resumed_rows) / max(seconds["scoring"], 1e-9), 4),
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "approximations": [approximation.sentence() for approximation in job.folds[0].program.approximations],
        "next_commands": motif_commands(job.paths, job.plan.length),
    }
