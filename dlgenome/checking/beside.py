"""Whether the files beside a scores file belong to it: run.json, the BED, the list of skipped regions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dlgenome.checking.content import place
from dlgenome.checking.findings import Problem, RowFindings, shown
from dlgenome.errors import InputError
from dlgenome.provenance import file_sha256
from dlgenome.scores import CompletenessSummary, ScoresFile
from dlgenome.types import Window
from dlgenome.writers.bed import SKIPPED_COLUMNS
from dlgenome.writers.paths import OutputPaths

_RUN_JSON = ".run.json"
_BED_COLUMNS = 10
_BED_SENTENCES = {
    "BED": "{path} has another region on the line of this row, so it is of another run or was changed.",
    "BED columns": "{path} does not have the ten columns of a narrowPeak file on the line of this row.",
}


@dataclass(frozen=True)
class RunRecord:
    """What a run.json says."""

    path: Path
    facts: Mapping[str, Any]

    def section(self, name: str) -> Mapping[str, Any]:
        """One of the objects in it; empty where it is missing or something else."""
        found = self.facts.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files of the run, as it called them."""
        found = self.facts.get("outputs")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def wrote(self, ending: str) -> bool:
        """Whether the run wrote a file whose name ends so."""
        return any(name.endswith(ending) for name in self.outputs)


def read_run_json(path: Path) -> RunRecord:
    """What run.json says; raises InputError for one that is missing or damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there, so the run is not known to have finished; finish it with --resume, or "
            "copy the file from where the run wrote it."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged, or no run.json: it is not JSON. Copy it again.") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path} is damaged: it does not hold an object. Copy it again.")
    return RunRecord(path, facts)


def check_run_json(
    record: RunRecord, scores: ScoresFile, completeness: CompletenessSummary
) -> Iterator[Problem]:
    """Whether run.json speaks of this very file."""
    attributes, identity = scores.attributes, record.section("identity")
    differing = sorted(name for name, value in identity.items() if attributes.get(name) != value)
    if not identity:
        yield Problem("run.json", f"{record.path} does not say what was run.")
    for name in differing:
        yield Problem(
            "run.json",
            f"{record.path} is of another run: its {name} is {shown(identity[name])}, and that of the scores "
            f"is {shown(attributes.get(name, 'not given'))}.",
        )
    if scores.target not in record.section("targets"):
        yield Problem("run.json", f"{record.path} does not name the target {scores.target}.")
    counted = record.section("regions").get("scored")
    if counted != scores.n_regions:
        yield Problem(
            "run.json", f"{record.path} counts {counted} scored regions, and there are {scores.n_regions}."
        )
    recorded = record.section("completeness").get(scores.target)
    if not differing and not _same_completeness(recorded, completeness):
        yield Problem(
            "run.json",
            f"{record.path} has other completeness errors than the scores give (largest "
            f"{_number(recorded, 'maximum')}, not {completeness.maximum:.3g}).",
        )


def _same_completeness(recorded: Any, found: CompletenessSummary) -> bool:
    if not isinstance(recorded, Mapping):
        return False
    for name in ("median", "percentile_99", "maximum"):
        value, expected = recorded.get(name), getattr(found, name)
        value = np.nan if value is None else value
        if not isinstance(value, int | float):
            return False
        # JSON has no infinity: it is written as null, too.
        expected = expected if np.isfinite(expected) else np.nan
        if not np.isclose(value, expected, rtol=1e-9, atol=0, equal_nan=True):
            return False
    return True


def _number(recorded: Any, name: str) -> str:
    value = recorded.get(name) if isinstance(recorded, Mapping) else None
    return f"{value:.3g}" if isinstance(value, int | float) else "not given"


def check_listed_files(record: RunRecord, paths: OutputPaths) -> Iterator[Problem]:
    """Whether every file that the run wrote for this target, or for all, is there."""
    (target,) = paths.targets
    own = (*paths.extra_bigwigs(target).values(), *paths.npz(target))
    for path in (paths.bigwig(target), *own, paths.regions_bed, paths.skipped_tsv):
        ending = path.name.removeprefix(paths.prefix.name)
        if record.wrote(ending) and not path.exists():
            yield Problem("files", f"{path} is not there, and {record.path} says that the run wrote it.")


def check_digests(record: RunRecord, paths: OutputPaths, files: Sequence[Path]) -> Iterator[Problem]:
    """Whether these files of the run are byte for byte what it wrote."""
    digests = {_ending(name, record): digest for name, digest in record.section("sha256").items()}
    for path in files:
        recorded = digests.get(path.name.removeprefix(paths.prefix.name))
        if recorded is not None and path.exists() and _sha256(path) != recorded:
            yield Problem(
                "digests",
                f"{path} is not the file that the run wrote: its SHA-256 is not that of {record.path}.",
            )


def _ending(name: str, record: RunRecord) -> str:
    """What comes after the prefix in the name that the run gave to a file; the prefix may be another now."""
    own = next((one for one in record.outputs if one.endswith(_RUN_JSON)), _RUN_JSON)
    return name.removeprefix(own.removesuffix(_RUN_JSON))


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def check_skipped(record: RunRecord, paths: OutputPaths) -> Iterator[Problem]:
    """Whether every selected region is either scored or listed as skipped."""
    path, regions = paths.skipped_tsv, record.section("regions")
    if not path.exists():
        return
    with _opened(path) as lines:
        if lines.readline().rstrip("\n").split("\t") != list(SKIPPED_COLUMNS):
            yield Problem("skipped", f"{path} does not begin with the names of its columns.")
            return
        listed = sum(1 for _ in lines)
    skipped, selected, scored = (regions.get(name) for name in ("skipped", "selected", "scored"))
    if isinstance(skipped, int) and listed != skipped:
        yield Problem("skipped", f"{path} lists {listed:,} regions, and {record.path} counts {skipped:,}.")
    elif isinstance(skipped, int) and isinstance(scored, int) and selected != scored + skipped:
        yield Problem(
            "skipped",
            f"{record.path} counts {selected} selected regions, but {scored} scored and {skipped} skipped.",
        )


def check_bed(path: Path, scores: ScoresFile) -> list[Problem]:
    """Whether line i of ``interpreted_regions.bed`` is row i; lines pass through a few at a time."""
    sentences = {check: text.format(path=path) for check, text in _BED_SENTENCES.items()}
    findings = RowFindings(sentences, lambda row: place(scores.windows_of(slice(row, row + 1))[0]))
    lengths = {contig.name: contig.length for contig in scores.contigs}
    count = 0
    with _opened(path) as lines:
        for rows in scores.pieces():
            windows = scores.windows_of(rows)
            for window, line in zip(windows, islice(lines, len(windows)), strict=False):
                check = _failed_check(line, window, lengths.get(window.chrom))
                findings.add(check, [count] if check else [])
                count += 1
        count += sum(1 for _ in lines)
    problems = findings.problems()
    if count != scores.n_regions:
        problems.append(
            Problem("BED", f"{path} has {count:,} lines, and there are {scores.n_regions:,} regions.")
        )
    return problems


def _failed_check(line: str, window: Window, contig_length: int | None) -> str:
    """The name of the check that the line fails, or nothing."""
    start = max(0, window.start)
    end = window.end if contig_length is None else min(window.end, contig_length)
    fields = line.removesuffix("\n").split("\t")
    if len(fields) != _BED_COLUMNS:
        return "BED columns"
    chrom, first, last, name, score, strand, *numbers, offset = fields
    expected = (window.chrom, str(start), str(end), window.region.name, window.region.strand)
    if (chrom, first, last, name, strand) != expected or offset != str(window.center - start):
        return "BED"
    try:
        _ = int(score), [float(number) for number in numbers]
    except ValueError:
        return "BED columns"
    return "" if 0 <= int(score) <= 1000 else "BED columns"


def _opened(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
