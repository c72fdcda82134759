"""Everything that can be checked of a finished scores file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from dlgenome.checking.beside import (
    RunRecord,
    check_bed,
    check_digests,
    check_listed_files,
    check_run_json,
    check_skipped,
    read_run_json,
)
from dlgenome.checking.columns import check_columns, completeness_of
from dlgenome.checking.content import CHECKED, Progress, check_content, place
from dlgenome.checking.findings import Problem
from dlgenome.checking.inputs import check_genome, check_models, check_regions
from dlgenome.checking.track import Track, check_track
from dlgenome.config import Overlap
from dlgenome.errors import InputError, UsageError
from dlgenome.scores import CompletenessSummary, ScoresFile, find_structure_problems
from dlgenome.writers.paths import FORMATS, OutputPaths, paths_beside


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What is to be checked beside the scores file itself."""

    bigwig: Path | None = None
    """Instead of the one beside the scores."""
    models: tuple[Path, ...] = ()
    regions: Path | None = None
    genome: Path | None = None
    max_delta: float | None = None
    alone: bool = False
    """Leave out what lies beside the scores file."""

    def __post_init__(self) -> None:
        if self.alone and self.bigwig is not None:
            raise UsageError(
                "--alone leaves out what lies beside the scores, and run.json says how the bigWig was made: "
                "give --bigwig without --alone."
            )
        if self.max_delta is not None and not self.max_delta > 0:
            raise UsageError(f"--max-delta is {self.max_delta}; it must be above 0.")


@dataclass
class Verdict:
    """What was checked of one file, and what was found."""

    path: Path
    n_regions: int = 0
    length: int = 0
    checked: dict[str, str] = field(default_factory=dict)
    """Check -> what it looked at, for the checks that found nothing wrong."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Check -> why it was left out."""
    problems: list[Problem] = field(default_factory=list)
    completeness: CompletenessSummary | None = None
    """Worked out anew from the file's own numbers."""
    worst_region: str = ""
    """Where the completeness error is largest."""

    def facts(self) -> dict[str, Any]:
        """Everything by name."""
        return {**asdict(self), "sound": not self.problems}

    def over(self, max_delta: float | None) -> bool:
        """Whether the completeness error of a region is above the limit."""
        if max_delta is None or self.completeness is None or not self.n_regions:
            return False
        return not self.completeness.maximum <= max_delta

    def add(self, check: str, what: str, find: Callable[[], Iterable[Problem]]) -> None:
        """Run a check and keep what it finds; what cannot be read is a problem like any other."""
        before = len(self.problems)
        try:
            self.problems.extend(find())
        except InputError as problem:
            self.problems.append(Problem(check, str(problem)))
        if len(self.problems) == before:
            self.checked[check] = what


def verify(path: Path, config: VerifyConfig, progress: Progress | None = None) -> Verdict:
    """Everything that is wrong with a scores file, the files beside it and the inputs that were given.

    Rows pass through a few at a time; beside them memory holds some numbers a region. Raises UsageError where
    ``max_delta`` is asked of a method whose contributions need not add up; all else is in the verdict.
    """
    verdict = Verdict(path)
    try:
        scores = ScoresFile(path)
    except InputError as problem:
        verdict.problems += _structure_problems(path) or [Problem("structure", str(problem))]
        return verdict
    with scores:
        _verify_open(scores, config, verdict, progress)
    return verdict


def _structure_problems(path: Path) -> list[Problem]:
    """Everything that keeps the file from being opened, of which the reader names one."""
    with suppress(InputError):
        return [Problem("structure", f"{path} {problem}") for problem in find_structure_problems(path)]
    return []


def _verify_open(
    scores: ScoresFile, config: VerifyConfig, verdict: Verdict, progress: Progress | None
) -> None:
    verdict.n_regions, verdict.length = scores.n_regions, scores.length
    verdict.checked["structure"] = "every dataset, its shape and its kind"
    verdict.add("numbers", "attributes, regions, genome, completeness errors", lambda: check_columns(scores))
    verdict.add("scores", CHECKED, lambda: check_content(scores, progress))
    scores_sound = not verdict.problems
    with suppress(InputError):  # named by the check of the numbers
        _sum_up_completeness(scores, verdict)
    _refuse_pointless_limit(verdict, config)
    _check_inputs(scores, config, verdict)
    if config.alone:
        verdict.unchecked["files beside it"] = "--alone"
    else:
        _check_beside(scores, config, verdict, scores_sound)


def _sum_up_completeness(scores: ScoresFile, verdict: Verdict) -> None:
    verdict.completeness = completeness_of(scores)
    row = verdict.completeness.worst_row
    if row >= 0:
        verdict.worst_region = f"row {row}, {place(scores.windows_of(slice(row, row + 1))[0])}"


def _refuse_pointless_limit(verdict: Verdict, config: VerifyConfig) -> None:
    found = verdict.completeness
    if config.max_delta is None or found is None or verdict.problems or not verdict.n_regions:
        return
    if found.worst_row < 0:
        raise UsageError(
            f"--max-delta: with the method of {verdict.path} contributions need not add up, so there is no "
            "completeness error to limit."
        )


def _check_inputs(scores: ScoresFile, config: VerifyConfig, verdict: Verdict) -> None:
    models, regions, genome = config.models, config.regions, config.genome
    if models:
        verdict.add("checkpoint", ", ".join(map(str, models)), lambda: check_models(scores, models))
    else:
        verdict.unchecked["checkpoint"] = "give it with -m"
    if regions is not None:
        verdict.add("regions", str(regions), lambda: check_regions(scores, regions))
    else:
        verdict.unchecked["regions"] = "give them with -r"
    if genome is not None:
        verdict.add("genome", f"{genome}, every window", lambda: check_genome(scores, genome))
    else:
        verdict.unchecked["genome"] = "give it with -g"


def _check_beside(scores: ScoresFile, config: VerifyConfig, verdict: Verdict, scores_sound: bool) -> None:
    paths = paths_beside(scores.path, scores.target, scores.extras)
    if paths is None:
        verdict.problems.append(Problem("files", _no_prefix(scores)))
        return
    records: list[RunRecord] = []
    verdict.add("run.json", str(paths.run_json), lambda: _run_json(scores, paths, verdict, records))
    record = records[0] if records else RunRecord(paths.run_json, {})
    verdict.add("files", "all that the run wrote", lambda: check_listed_files(record, paths))
    verdict.add("skipped", str(paths.skipped_tsv), lambda: check_skipped(record, paths))
    if paths.regions_bed.exists():
        verdict.add("BED", str(paths.regions_bed), lambda: check_bed(paths.regions_bed, scores))
    else:
        verdict.unchecked["BED"] = f"there is no {paths.regions_bed}"
    tracks = [
        (None, config.bigwig or paths.bigwig(scores.target)),
        *paths.extra_bigwigs(scores.target).items(),
    ]
    for extra, bigwig in tracks:
        _check_bigwig(scores, record, bigwig, extra, verdict)
    if config.bigwig is not None and not config.bigwig.exists():
        verdict.problems.append(Problem("bigWig", f"{config.bigwig} is not there."))
    _check_digests(record, paths, verdict, scores_sound)


def _check_digests(record: RunRecord, paths: OutputPaths, verdict: Verdict, scores_sound: bool) -> None:
    """Last, for what the other checks do not look at; a file that they name is not named again."""
    if not record.section("sha256"):
        verdict.unchecked["digests"] = f"{record.path} does not give them"
        return
    named = " ".join(problem.message for problem in verdict.problems)
    files = list(replace(paths, formats=FORMATS).all())
    if not scores_sound:
        files.remove(verdict.path)
    left = [path for path in files if str(path) not in named]
    verdict.add("digests", "every byte of the files", lambda: check_digests(record, paths, left))


def _no_prefix(scores: ScoresFile) -> str:
    return (
        f"{scores.path} is not called PREFIX.{scores.target}_scores.h5, so the other files of its run "
        "cannot be found; give it its name back, or check it --alone."
    )


def _run_json(
    scores: ScoresFile, paths: OutputPaths, verdict: Verdict, records: list[RunRecord]
) -> Iterator[Problem]:
    records.append(read_run_json(paths.run_json))
    if verdict.completeness is not None:
        yield from check_run_json(records[0], scores, verdict.completeness)


def _check_bigwig(
    scores: ScoresFile, record: RunRecord, bigwig: Path, extra: str | None, verdict: Verdict
) -> None:
    settings, name = record.section("settings"), bigwig.name
    overlap, crop = settings.get("overlap"), settings.get("crop")
    if not bigwig.exists():
        verdict.unchecked[name] = "it is not there"
    elif overlap not in get_args(Overlap) or not isinstance(crop, int | None):
        verdict.unchecked[name] = f"{record.path} does not say how overlapping windows were joined"
    else:
        track = Track(bigwig, scores.path, cast(Overlap, overlap), crop, extra)
        cropped = "" if crop is None else f", the central {crop} bases of windows"
        what = f"every base; windows joined by {overlap}{cropped}"
        verdict.add(name, what, lambda: check_track(track).problems)
