"""Whether the attributes, regions and completeness numbers of a scores file make sense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.checking.content import place
from dlgenome.checking.findings import Problem, RowFindings
from dlgenome.provenance import genome_digest
from dlgenome.scores import CompletenessSummary, ScoresFile, completeness_error, summarize_completeness

IDENTITY = (
    *("target_name", "target", "checkpoint_sha256", "regions_sha256", "genome_digest", "window", "edge"),
    *("method", "rule", "references", "n_references", "seed", "strands", "precision", "score_dtype"),
    "batch_size",
)
"""Attributes without which it is not known what the scores are."""

_POSITIONS = ("start", "end", "summit", "input_row")
_TOLERANCE = 1e-9
"""Of recomputed completeness errors, relative: the formula is the same, its order of additions may not be."""

_SENTENCES = {
    "contig": "the contig is not in /genome/chrom.",
    "window": "the window is not as long as the sequences.",
    "inside contig": "the window reaches over the end of its contig, which only --edge pad allows.",
    "off contig": "the window lies outside its contig.",
    "centre": "/regions/summit is not the centre of the window.",
    "strand": "/regions/strand is not +, - or a dot.",
    "input row": "/regions/input_row is negative.",
    "twice": "/regions/input_row is that of another row, too, so a region is there twice.",
    "predictions": "a prediction in /qc is not a finite number.",
    "references": "/qc/n_references does not fit the attribute n_references.",
    "completeness": "/qc/delta_error is not what /qc/sum, the predictions and /qc/mean_abs_delta give.",
    "scale": "/qc/mean_abs_delta is not a number, or negative.",
}


def check_columns(scores: ScoresFile) -> list[Problem]:
    """Every problem of the attributes, of ``/genome``, ``/regions`` and ``/qc``.

    Raises InputError when one of them cannot be read.
    """
    findings = RowFindings(_SENTENCES, lambda row: place(scores.windows_of(slice(row, row + 1))[0]))
    for check, bad in (*_region_failures(scores), *_qc_failures(scores)):
        findings.add(check, np.flatnonzero(bad).tolist())
    return [*_attribute_problems(scores), *_genome_problems(scores), *findings.problems()]


def completeness_of(scores: ScoresFile) -> CompletenessSummary:
    """How well the contributions add up, worked out anew where the file allows.

    Raises InputError when the numbers cannot be read.
    """
    recomputed = _recomputed(scores)
    return summarize_completeness(scores.stored("qc/delta_error") if recomputed is None else recomputed)


def _recomputed(scores: ScoresFile) -> NDArray[np.float64] | None:
    """None for the first files, which do not say what they divided by."""
    if "mean_abs_delta" not in scores.qc:
        return None
    fields = ("sum", "prediction", "reference_prediction", "mean_abs_delta")
    with np.errstate(invalid="ignore", over="ignore"):
        return completeness_error(*(scores.stored(f"qc/{field}") for field in fields))


def _attribute_problems(scores: ScoresFile) -> Iterator[Problem]:
    found = scores.attributes
    missing = [name for name in IDENTITY if name not in found]
    if missing:
        yield Problem("attributes", f"the root attributes lack {', '.join(missing)}.")
    facts = {"window": scores.length, "score_dtype": scores.score_dtype}
    for name, fact in facts.items():
        if name in found and found[name] != fact:
            yield Problem("attributes", f"the attribute {name} is {found[name]}, and the scores have {fact}.")


def _genome_problems(scores: ScoresFile) -> Iterator[Problem]:
    twice = [name for name, count in Counter(c.name for c in scores.contigs).items() if count > 1]
    if twice:
        yield Problem("genome", f"/genome/chrom names {twice[0]} twice.")
    digest = genome_digest((contig.name, contig.length) for contig in scores.contigs)
    if "genome_digest" in scores.attributes and scores.attributes["genome_digest"] != digest:
        yield Problem("genome", "/genome is not what the attribute genome_digest was made of.")


def _region_failures(scores: ScoresFile) -> Iterator[tuple[str, NDArray[Any]]]:
    starts, ends, centers, rows = (_whole_numbers(scores, field) for field in _POSITIONS)
    lengths = _contig_lengths(scores)
    known = lengths >= 0
    yield "contig", ~known
    yield "window", ends - starts != scores.length
    padded = scores.attributes.get("edge") == "pad"
    yield "off contig", known & ((ends <= 0) | (starts >= lengths))
    if not padded:
        yield "inside contig", known & ((starts < 0) | (ends > lengths)) & (ends > 0) & (starts < lengths)
    yield "centre", centers - scores.length // 2 != starts
    yield "strand", ~np.isin(scores.stored("regions/strand"), [b"+", b"-", b"."])
    yield "input row", rows < 0
    order = np.argsort(rows, kind="stable")
    repeated = np.zeros(len(rows), dtype=bool)
    repeated[order[1:]] = rows[order[1:]] == rows[order[:-1]]
    yield "twice", repeated


def _whole_numbers(scores: ScoresFile, field: str) -> NDArray[np.int64]:
    return scores.stored(f"regions/{field}").astype(np.int64, copy=False)


def _contig_lengths(scores: ScoresFile) -> NDArray[np.int64]:
    """Length of each row's contig, -1 where the file does not name it."""
    lengths = {contig.name.encode(): contig.length for contig in scores.contigs}
    names, which = np.unique(scores.stored("regions/chrom"), return_inverse=True)
    found: NDArray[np.int64] = np.array([lengths.get(bytes(name), -1) for name in names], dtype=np.int64)
    return found[which] if len(names) else np.empty(0, dtype=np.int64)


def _references_fit(scores: ScoresFile) -> NDArray[np.bool_]:
    """Every region has as many references as a round draws; where rounds are added, a multiple of that."""
    found, each = scores.stored("qc/n_references"), scores.attributes.get("n_references")
    if not isinstance(each, int) or each < 1:
        return np.asarray(found >= 1)
    if "adaptive_references" in scores.attributes:
        return np.asarray((found >= each) & (found % each == 0))
    return np.asarray(found == each)


def _qc_failures(scores: ScoresFile) -> Iterator[tuple[str, NDArray[Any]]]:
    predictions = (scores.stored(f"qc/{field}") for field in ("prediction", "reference_prediction"))
    yield "predictions", ~np.all([np.isfinite(values) for values in predictions], axis=0)
    yield "references", ~_references_fit(scores)
    recomputed = _recomputed(scores)
    if recomputed is None:
        return
    scale, stored = scores.stored("qc/mean_abs_delta"), scores.stored("qc/delta_error")
    # Methods without a completeness property have no scale at all.
    if scores.attributes.get("method") == "deeplift" or not np.isnan(scale).all():
        yield "scale", ~(scale >= 0)
    yield "completeness", ~np.isclose(stored, recomputed, rtol=_TOLERANCE, atol=0, equal_nan=True)
