"""``scores.h5``: the layout that chrombpnet's readers, TF-MoDISco and Fi-NeMo know, and more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from dlgenome.scores import (
    FORMAT_VERSION,
    PROVENANCE_ATTRIBUTES,
    AttributeValue,
    completeness_error,
    completeness_floor,
)
from dlgenome.types import Contig
from dlgenome.writers.blocks import GZIP_LEVEL, Facts
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.spool_reader import SpoolReader

COLUMN_CHUNK_ROWS = 4096
MAX_ATTRIBUTE_BYTES = 60_000
"""HDF5 refuses attributes of 64 KiB; a command line may be longer."""

_REGION_FACTS = {
    "chrom": ("windows", "chrom"),
    "start": ("windows", "start"),
    "end": ("windows", "end"),
    "name": ("regions", "name"),
    "strand": ("regions", "strand"),
    "summit": ("windows", "center"),
    "input_row": ("regions", "input_row"),
}
"""Column of ``/regions`` -> where it stands in the facts of a block."""
_TEXT_COLUMNS = ("chrom", "name", "strand")
_QC_TYPES = {
    "prediction": "<f8",
    "reference_prediction": "<f8",
    "sum": "<f8",
    "mean_abs_delta": "<f8",
    "n_references": "<i4",
    "crc32": "<u4",
}


def write_scores(
    path: Path,
    spool: SpoolReader,
    target: str,
    contigs: tuple[Contig, ...],
    identity: Mapping[str, AttributeValue],
    provenance: Mapping[str, AttributeValue],
) -> None:
    """Write the scores of one target from the spool; memory does not depend on the number of regions' scores.

    The same rows, contigs and identity give the same bytes, whatever the day; only provenance may differ.
    """
    with clear_write_errors(path), h5py.File(path, "w", locking="best-effort") as file:
        _write_attributes(file, target, identity, provenance)
        _copy_chunks(file, spool, "", "raw", "int8")
        layout = spool.known_layout
        for owner, dataset in layout.datasets():
            if owner == target:
                _copy_chunks(file, spool, target, dataset, layout.score_dtype)
        _create_columns(file, spool)
        _write_genome(file, contigs)
        _write_columns(file, spool, target)
        _write_delta_error(file, spool.rows)


def _write_attributes(
    file: h5py.File,
    target: str,
    identity: Mapping[str, AttributeValue],
    provenance: Mapping[str, AttributeValue],
) -> None:
    misplaced = (provenance.keys() - PROVENANCE_ATTRIBUTES) | (identity.keys() & PROVENANCE_ATTRIBUTES)
    if misplaced:
        raise ValueError(f"attribute {min(misplaced)!r} is on the wrong side of PROVENANCE_ATTRIBUTES")
    attributes = {**identity, "format_version": FORMAT_VERSION, "target_name": target, **provenance}
    for key, value in sorted(attributes.items()):
        file.attrs[key] = np.bytes_(value.encode()[:MAX_ATTRIBUTE_BYTES]) if isinstance(value, str) else value


def _copy_chunks(file: h5py.File, spool: SpoolReader, target: str, dataset: str, dtype: str) -> None:
    """Copy compressed chunks as they are; the extendable axis lets a chunk be longer than the dataset."""
    layout = spool.known_layout
    rows = layout.sequence_chunk_rows if dataset == "raw" else layout.score_chunk_rows
    created = file.create_dataset(
        f"{dataset}/seq",
        shape=(spool.rows, 4, layout.length),
        maxshape=(None, 4, layout.length),
        chunks=(rows, 4, layout.length),
        dtype=np.dtype(dtype).newbyteorder("<"),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=True,
        track_times=False,
    )
    for first_row, chunk in spool.chunks(target, dataset):
        created.id.write_direct_chunk((first_row, 0, 0), chunk)


def _create_columns(file: h5py.File, spool: SpoolReader) -> None:
    longest = dict.fromkeys(_TEXT_COLUMNS, 1)
    for _, facts in spool.blocks():
        for column, held in longest.items():
            values = _region_values(facts, column)
            longest[column] = max([held, *(len(value.encode()) for value in values)])
    for column in _REGION_FACTS:
        dtype = f"S{longest[column]}" if column in longest else "<i8"
        _create_column(file, f"regions/{column}", spool.rows, dtype)
    for name, dtype in sorted({**_QC_TYPES, "delta_error": "<f8"}.items()):
        _create_column(file, f"qc/{name}", spool.rows, dtype)


def _write_columns(file: h5py.File, spool: SpoolReader, target: str) -> None:
    """Write what the facts of the blocks say of the regions and of one target, whole chunks at a time."""
    held: dict[str, list[Any]] = {f"regions/{column}": [] for column in _REGION_FACTS}
    held |= {f"qc/{name}": [] for name in _QC_TYPES}
    written = 0
    for _, facts in spool.blocks():
        for column in _REGION_FACTS:
            held[f"regions/{column}"] += _region_values(facts, column)
        for name in _QC_TYPES:
            held[f"qc/{name}"] += facts["qc"][target]["contribution_sum" if name == "sum" else name]
        while len(held["regions/start"]) >= COLUMN_CHUNK_ROWS:
            written = _write_held(file, held, written)
    _write_held(file, held, written)


def _write_held(file: h5py.File, held: dict[str, list[Any]], first_row: int) -> int:
    """Write the first rows of the columns, and drop them; returns the row that is then the first."""
    for name, values in held.items():
        piece = values[:COLUMN_CHUNK_ROWS]
        del values[:COLUMN_CHUNK_ROWS]
        if name.removeprefix("regions/") in _TEXT_COLUMNS:
            piece = [value.encode() for value in piece]
        file[name][first_row : first_row + len(piece)] = np.array(piece, file[name].dtype)
    return first_row + COLUMN_CHUNK_ROWS


def _region_values(facts: Facts, column: str) -> list[Any]:
    group, field = _REGION_FACTS[column]
    return cast(list[Any], facts[group][field])


def _write_delta_error(file: h5py.File, n_rows: int) -> None:
    qc = file["qc"]
    floor = completeness_floor(qc["mean_abs_delta"][...])
    for start in range(0, n_rows, COLUMN_CHUNK_ROWS):
        rows = slice(start, min(start + COLUMN_CHUNK_ROWS, n_rows))
        columns = (qc[name][rows] for name in ("sum", "prediction", "reference_prediction", "mean_abs_delta"))
        qc["delta_error"][rows] = completeness_error(*columns, floor=floor)


def _write_genome(file: h5py.File, contigs: tuple[Contig, ...]) -> None:
    names = [contig.name.encode() for contig in contigs]
    longest = max((len(name) for name in names), default=1)
    _create_column(file, "genome/chrom", len(names), f"S{max(1, longest)}")[...] = names
    _create_column(file, "genome/length", len(names), "<i8")[...] = [contig.length for contig in contigs]


def _create_column(file: h5py.File, name: str, rows: int, dtype: str) -> h5py.Dataset:
    return file.create_dataset(
        name,
        shape=(rows,),
        maxshape=(None,),
        chunks=(COLUMN_CHUNK_ROWS,),
        dtype=dtype,
        compression="gzip",
        compression_opts=GZIP_LEVEL,
        shuffle=True,
        track_times=False,
    )
