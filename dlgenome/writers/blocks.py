"""Finished rows as a block of bytes: what one record of the spool holds, ready to be put into an HDF5 file.

A block is a list of parts: the facts about its rows (JSON, deflated), the chunks of ``/raw/seq``, then for
each target the chunks of ``/shap/seq`` (where there is one), of ``/projected_shap/seq`` and of the extras. A
chunk holds whole regions and has been through HDF5's shuffle and deflate filters already, so that the HDF5
writer copies it as it is.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from dlgenome.encoding import one_hot
from dlgenome.errors import InputError
from dlgenome.types import FailedWindow, Region, RegionScores, ScoredWindow, SkippedRegion, Window

ScoreDtype = Literal["float32", "float16"]

GZIP_LEVEL = 1
CHUNK_BYTES = 64 * 1024
MAX_CHUNK_ROWS = 256
"""Short sequences would otherwise wait for thousands of others before a block of them is safe on the disk."""

Facts = dict[str, Any]
"""Columns of a block: ``windows`` (a list for each field), ``qc`` (for each target a list for each value)."""

_SCORE_FIELDS = {"shap": "hypothetical", "projected_shap": "projected"}
_WINDOW_FIELDS = ("chrom", "start", "end", "center")
_REGION_FIELDS = tuple(field.name for field in fields(Region))
_QC_FIELDS = ("prediction", "reference_prediction", "contribution_sum", "mean_abs_delta", "n_references")


def chunk_rows(length: int, item_bytes: int) -> int:
    """Rows of (4, length) in a chunk: the power of two that comes nearest to 64 KiB."""
    exact: float = CHUNK_BYTES / (4 * length * item_bytes)
    return min(MAX_CHUNK_ROWS, 1 << max(0, round(math.log2(exact))))


@dataclass(frozen=True)
class BlockLayout:
    """What every block of a run looks like."""

    length: int
    score_dtype: ScoreDtype
    targets: tuple[str, ...]
    hypothetical: tuple[bool, ...]
    """Whether each target has hypothetical contributions."""
    extras: tuple[str, ...] = ()
    """Further arrays that every target has, sorted."""

    @property
    def sequence_chunk_rows(self) -> int:
        """Regions in a chunk of ``/raw/seq``."""
        return chunk_rows(self.length, 1)

    @property
    def score_chunk_rows(self) -> int:
        """Regions in a chunk of scores."""
        return chunk_rows(self.length, np.dtype(self.score_dtype).itemsize)

    @property
    def block_rows(self) -> int:
        """Rows of every block but the last; a multiple of the rows of every chunk."""
        return max(self.sequence_chunk_rows, self.score_chunk_rows)

    def fits(self, row: ScoredWindow) -> bool:
        """Whether the row has this length, and the same kinds of scores for the same targets."""
        kinds = zip(self.targets, self.hypothetical, strict=True)
        return len(row.codes) == self.length and all(
            (row.scores[target].hypothetical is not None) == has_hypothetical
            and tuple(sorted(row.scores[target].extras)) == self.extras
            for target, has_hypothetical in kinds
        )

    def datasets(self) -> Iterator[tuple[str, str]]:
        """(target, dataset) of all the scores, in the order of their parts."""
        for target, has_hypothetical in zip(self.targets, self.hypothetical, strict=True):
            for dataset in ("shap", "projected_shap") if has_hypothetical else ("projected_shap",):
                yield target, dataset
            for extra in self.extras:
                yield target, extra

    def part_slices(self, rows: int) -> dict[tuple[str, str], slice]:
        """(target, dataset) -> its parts in a block of ``rows`` rows; the sequence has target ``""``."""
        score_chunks = -(-rows // self.score_chunk_rows)
        stop = 1 + -(-rows // self.sequence_chunk_rows)
        slices = {("", "raw"): slice(1, stop)}
        for target, dataset in self.datasets():
            slices[target, dataset] = slice(stop, stop + score_chunks)
            stop += score_chunks
        return slices


def encode_block(
    layout: BlockLayout, rows: Sequence[ScoredWindow], failed: Sequence[FailedWindow] = ()
) -> list[bytes]:
    """The parts of a block: rows, and what failed before, between and after them.

    Raises InputError for scores that are not numbers or do not fit the dtype.
    """
    crcs: dict[str, list[int]] = {target: [] for target in layout.targets}
    chunks = _encode_rows(layout, rows, crcs) if rows else []
    facts = {**_facts(layout, rows, crcs), "failed": [_failure(one) for one in failed]}
    return [zlib.compress(json.dumps(facts).encode(), GZIP_LEVEL), *chunks]


def _encode_rows(
    layout: BlockLayout, rows: Sequence[ScoredWindow], crcs: dict[str, list[int]]
) -> list[bytes]:
    """The chunks of all datasets; fills in the checksums of the projected scores."""
    sequences = one_hot(np.stack([row.codes for row in rows]))
    chunks = _encode_chunks(sequences, layout.sequence_chunk_rows)
    for target, dataset in layout.datasets():
        stored = _scores(layout, rows, target, dataset)
        chunks += _encode_chunks(stored, layout.score_chunk_rows)
        if dataset == "projected_shap":
            crcs[target] = [zlib.crc32(values.tobytes()) for values in stored]
    return chunks


def decode_facts(part: bytes) -> Facts:
    """The facts that ``encode_block`` put into its first part."""
    return cast(Facts, json.loads(zlib.decompress(part)))


def decode_windows(facts: Facts) -> list[Window]:
    """The windows of a block, with everything the input said about their regions."""
    regions = map(Region, *(facts["regions"][field] for field in _REGION_FIELDS))
    return list(map(Window, regions, *(facts["windows"][field] for field in _WINDOW_FIELDS)))


def decode_failures(facts: Facts) -> list[tuple[int, SkippedRegion]]:
    """(place among the windows, region and reason) of what failed."""
    return [
        (failure["row"], SkippedRegion(Region(**failure["region"]), failure["reason"]))
        for failure in facts["failed"]
    ]


def _scores(
    layout: BlockLayout, rows: Sequence[ScoredWindow], target: str, dataset: str
) -> NDArray[np.floating[Any]]:
    values = np.stack([_array(row.scores[target], dataset) for row in rows]).astype("<f4", copy=False)
    with np.errstate(over="ignore"):
        stored = values.astype(np.dtype(layout.score_dtype).newbyteorder("<"), copy=False)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2)))
    if len(bad):
        window = rows[int(bad[0])].window
        if np.isfinite(values[bad[0]]).all():
            raise InputError(
                f"Scores of {window.place}, target {target}, are too large for float16; use --score-dtype "
                "float32."
            )
        raise InputError(
            f"The model gives scores that are not finite numbers for {window.place}, target {target}; "
            "look for NaN or infinity in its weights, or try --precision float64."
        )
    return stored


def _array(scores: RegionScores, dataset: str) -> NDArray[np.float32]:
    if dataset in _SCORE_FIELDS:
        return cast(NDArray[np.float32], getattr(scores, _SCORE_FIELDS[dataset]))
    return scores.extras[dataset]


def _encode_chunks(values: NDArray[Any], rows_per_chunk: int) -> list[bytes]:
    return [
        _encode_chunk(values[first : first + rows_per_chunk], rows_per_chunk)
        for first in range(0, len(values), rows_per_chunk)
    ]


def _encode_chunk(values: NDArray[Any], rows_per_chunk: int) -> bytes:
    """HDF5's shuffle (all first bytes, then all second bytes, ...) and deflate; chunks are always full."""
    missing = rows_per_chunk - len(values)
    if missing:
        values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    by_item = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.dtype.itemsize)
    return zlib.compress(by_item.T.tobytes(), GZIP_LEVEL)


def _failure(failed: FailedWindow) -> dict[str, Any]:
    region = {field: getattr(failed.window.region, field) for field in _REGION_FIELDS}
    return {"row": failed.row, "reason": failed.reason, "region": region}


def _facts(layout: BlockLayout, rows: Sequence[ScoredWindow], crcs: dict[str, list[int]]) -> Facts:
    return {
        "rows": [row.row for row in rows],
        "windows": {field: [getattr(row.window, field) for row in rows] for field in _WINDOW_FIELDS},
        "regions": {field: [getattr(row.window.region, field) for row in rows] for field in _REGION_FIELDS},
        "qc": {
            target: {
                **{field: [getattr(row.scores[target], field) for row in rows] for field in _QC_FIELDS},
                "crc32": crcs[target],
            }
            for target in layout.targets
        },
    }
