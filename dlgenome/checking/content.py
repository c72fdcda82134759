"""Whether the arrays of a scores file are what they were when they were written, and fit each other."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.checking.findings import Problem, RowFindings
from dlgenome.errors import InputError
from dlgenome.scores import ScoresFile
from dlgenome.types import Window

Progress = Callable[[int, int], None]
"""Called with regions done and regions in all."""

Rows = NDArray[np.bool_]
"""One truth value a row of a piece."""

_SENTENCES = {
    "one-hot": "/raw/seq is not one-hot: every base is one 1 among zeros, or all zeros where it is unknown.",
    "padding": "/raw/seq has bases where the window lies outside its contig.",
    "finite": "the scores are not all finite numbers.",
    "checksum": "/qc/crc32 is not the checksum of /projected_shap/seq, so scores changed after they were "
    "written.",
    "projected": "/projected_shap/seq is not /raw/seq times /shap/seq.",
    "absent bases": "/projected_shap/seq is not zero at bases that are not there.",
    "sum": "/qc/sum is not the sum of /projected_shap/seq.",
    "unreadable": "the stored chunk is damaged and cannot be read.",
}
CHECKED = "one-hot sequences, finite scores, checksums, projected = raw * hypothetical, sums"

_SUM_TOLERANCE = {"float32": (1e-5, 1e-30), "float16": (1e-3, 6e-8)}
"""Sums were taken before scores were rounded: by how much they may differ, relative to the sum of absolute
scores, and for each base beside it."""


def check_content(scores: ScoresFile, progress: Progress | None = None) -> list[Problem]:
    """Every problem of the arrays, each with its rows; rows pass through a megabyte at a time.

    Raises InputError when not even the regions and checks can be read.
    """
    findings = RowFindings(_SENTENCES, lambda row: place(scores.windows_of(slice(row, row + 1))[0]))
    lengths = {contig.name: contig.length for contig in scores.contigs}
    for rows in scores.pieces():
        _check_readable(scores, rows, lengths, findings)
        if progress is not None:
            progress(min(rows.stop, scores.n_regions), scores.n_regions)
    return findings.problems()


def place(window: Window) -> str:
    """Where a window lies, and what the input calls it."""
    return f"{window.chrom}:{window.start}-{window.end} {window.region.name}"


def _check_readable(scores: ScoresFile, rows: slice, lengths: dict[str, int], findings: RowFindings) -> None:
    """Check a piece; where a chunk is damaged, the rows one by one, so that the others are still checked."""
    try:
        failed = dict(_failures(scores, rows, lengths))
    except InputError:
        start, stop, _ = rows.indices(scores.n_regions)
        if stop - start == 1:
            findings.add("unreadable", [start])
            return
        for row in range(start, stop):
            _check_readable(scores, slice(row, row + 1), lengths, findings)
        return
    for check, bad in failed.items():
        findings.add(check, (rows.start + np.flatnonzero(bad)).tolist())


def _failures(scores: ScoresFile, rows: slice, lengths: dict[str, int]) -> Iterator[tuple[str, Rows]]:
    """(check, which rows of the piece fail it)."""
    sequence, projected = scores.stored("raw/seq", rows), scores.stored("projected_shap/seq", rows)
    yield "one-hot", ~_is_one_hot(sequence)
    yield "padding", _has_padded_bases(scores, rows, sequence, lengths)
    finite = _all_finite(projected)
    yield "checksum", _checksums(projected) != scores.stored("qc/crc32", rows)
    if scores.has_hypothetical:
        hypothetical = scores.stored("shap/seq", rows)
        fits = (projected == np.where(sequence != 0, hypothetical, 0)).all(axis=(1, 2))
        yield "projected", finite & ~fits
        finite = finite & _all_finite(hypothetical)
    else:
        yield "absent bases", ((projected != 0) & (sequence == 0)).any(axis=(1, 2))
    for extra in scores.extras:
        finite = finite & _all_finite(scores.stored(f"{extra}/seq", rows))
    yield "finite", ~finite
    yield "sum", finite & ~_sums_fit(projected, scores.stored("qc/sum", rows))


def _is_one_hot(sequence: NDArray[Any]) -> Rows:
    counts = sequence.sum(axis=1, dtype=np.int64)
    known = ((sequence == 0) | (sequence == 1)).all(axis=(1, 2))
    return np.asarray(known & (counts <= 1).all(axis=1))


def _has_padded_bases(
    scores: ScoresFile, rows: slice, sequence: NDArray[Any], lengths: dict[str, int]
) -> Rows:
    """Whether any base is given before the start or behind the end of the contig."""
    bad = np.zeros(len(sequence), dtype=bool)
    columns = (scores.stored(f"regions/{field}", rows) for field in ("chrom", "start", "end"))
    for index, (chrom, start, end) in enumerate(zip(*columns, strict=True)):
        length = lengths.get(chrom.decode("utf-8", "replace"))
        if length is None or (start >= 0 and end <= length):
            continue
        inside = slice(max(0, -int(start)), max(0, length - int(start)))
        outside = np.ones(sequence.shape[2], dtype=bool)
        outside[inside] = False
        bad[index] = sequence[index][:, outside].any()
    return bad


def _all_finite(values: NDArray[Any]) -> Rows:
    return np.asarray(np.isfinite(values).all(axis=(1, 2)))


def _checksums(projected: NDArray[Any]) -> NDArray[np.uint32]:
    stored = np.ascontiguousarray(projected, dtype=projected.dtype.newbyteorder("<"))
    return np.array([zlib.crc32(row.tobytes()) for row in stored], dtype=np.uint32)


def _sums_fit(projected: NDArray[Any], sums: NDArray[np.float64]) -> Rows:
    values = projected.astype(np.float64)
    relative, each = _SUM_TOLERANCE.get(str(projected.dtype), _SUM_TOLERANCE["float32"])
    with np.errstate(invalid="ignore", over="ignore"):  # scores that are not finite are named as such
        allowed = relative * np.abs(values).sum(axis=(1, 2)) + each * values.shape[2]
        return np.asarray(np.abs(values.sum(axis=(1, 2)) - sums) <= allowed)
