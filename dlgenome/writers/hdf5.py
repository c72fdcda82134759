"""``scores.h5``: the layout that chrombpnet's readers, TF-MoDISco and Fi-NeMo know, and more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dlgenome.scores import FORMAT_VERSION, PROVENANCE_ATTRIBUTES, AttributeValue, completeness_error
from dlgenome.types import Contig
from dlgenome.writers.blocks import GZIP_LEVEL, Facts
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.spool_reader import SpoolReader

COLUMN_CHUNK_ROWS = 4096
GATHERED_ROWS = 256
MAX_ATTRIBUTE_BYTES = 60_000
"""HDF5 refuses attributes of 64 KiB; a command line may be longer."""

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
    with clear_write_errors(path), h5py.File(path, "w") as file:
        _write_attributes(file, target, identity, provenance)
        _copy_chunks(file, spool, "", "raw", "int8")
        layout = spool.known_layout
        for owner, dataset in layout.datasets():
            if owner == target:
                _copy_chunks(file, spool, target, dataset, layout.score_dtype)
        _write_regions(file, spool)
        _write_genome(file, contigs)
        _write_qc(file, spool, target)


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


def _write_regions(file: h5py.File, spool: SpoolReader) -> None:
    longest = dict.fromkeys(_TEXT_COLUMNS, 1)
    for _, facts in spool.blocks():
        for column, values in _region_columns(facts).items():
            if column in longest:
                longest[column] = max([longest[column], *(len(value.encode()) for value in values)])
    for column in ("chrom", "start", "end", "name", "strand", "summit", "input_row"):
        dtype = f"S{longest[column]}" if column in longest else "<i8"
        _create_column(file, f"regions/{column}", spool.rows, dtype)
    for first_row, facts in _gathered(spool):
        for column, pieces in facts.items():
            values = [value.encode() for value in pieces] if column in longest else pieces
            created = file[f"regions/{column}"]
            created[first_row : first_row + len(values)] = np.array(values, created.dtype)


def _region_columns(facts: Facts) -> dict[str, list[Any]]:
    windows, regions = facts["windows"], facts["regions"]
    return {
        **{column: windows[column] for column in ("chrom", "start", "end")},
        **{column: regions[column] for column in ("name", "strand", "input_row")},
        "summit": windows["center"],
    }


def _gathered(spool: SpoolReader) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """(first row, columns) in pieces of more than one short block, for each write has its price."""
    first_row, gathered = 0, dict[str, list[Any]]()
    for block, facts in spool.blocks():
        if block.first_row - first_row >= GATHERED_ROWS:
            yield first_row, gathered
            first_row, gathered = block.first_row, {}
        for column, values in _region_columns(facts).items():
            gathered.setdefault(column, []).extend(values)
    yield first_row, gathered


def _write_genome(file: h5py.File, contigs: tuple[Contig, ...]) -> None:
    names = [contig.name.encode() for contig in contigs]
    longest = max((len(name) for name in names), default=1)
    _create_column(file, "genome/chrom", len(names), f"S{max(1, longest)}")[...] = names
    _create_column(file, "genome/length", len(names), "<i8")[...] = [contig.length for contig in contigs]


def _write_qc(file: h5py.File, spool: SpoolReader, target: str) -> None:
    values = read_qc(spool, target)
    values["delta_error"] = completeness_error(
        values["sum"], values["prediction"], values["reference_prediction"], values["mean_abs_delta"]
    )
    for name in sorted(values):
        _create_column(file, f"qc/{name}", spool.rows, values[name].dtype.str)[...] = values[name]


def read_qc(spool: SpoolReader, target: str) -> dict[str, NDArray[Any]]:
    """One array a value, one number a region: the predictions, the sum, their scale, and the checksums."""
    values = {name: np.empty(spool.rows, dtype) for name, dtype in _QC_TYPES.items()}
    for block, facts in spool.blocks():
        here = slice(block.first_row, block.first_row + block.rows)
        for name, column in values.items():
            column[here] = facts["qc"][target]["contribution_sum" if name == "sum" else name]
    return values


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
