"""The one reader of finished ``scores.h5`` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from h5py import Dataset
from numpy.typing import NDArray

from dlgenome.errors import InputError
from dlgenome.scores.columns import Columns
from dlgenome.scores.structure import (
    PROVENANCE_ATTRIBUTES,
    QC_FIELDS,
    REGION_FIELDS,
    check_filters,
    check_structure,
    extra_names,
    open_file,
    reading,
)
from dlgenome.types import Codes, Contig, Region, RegionScores, ScoredWindow, Window

AttributeValue = str | int | float | bool

PIECE_BYTES = 2**20
"""Float32 scores of the rows that are read at once where a whole file passes through."""


class ScoresFile:
    """An open ``scores.h5``: a context manager that gives rows as arrays and regions as values.

    Raises InputError when the file is missing, damaged, made by something else, or compressed in a way that
    this installation cannot read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = open_file(self.path)
        try:
            with reading(self.path):
                check_structure(self.path, self._file)
                check_filters(self.path, self._file)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n_regions(self) -> int:
        """Number of rows."""
        return int(self._file["raw/seq"].shape[0])

    @property
    def length(self) -> int:
        """Bases in every window."""
        return int(self._file["raw/seq"].shape[2])

    @property
    def has_hypothetical(self) -> bool:
        """False for methods that have no hypothetical contributions."""
        return "shap/seq" in self._file

    @property
    def score_dtype(self) -> str:
        """``float32`` or ``float16``, as stored."""
        return str(self._file["projected_shap/seq"].dtype)

    @cached_property
    def attributes(self) -> dict[str, AttributeValue]:
        """Every root attribute as a plain value."""
        with reading(self.path, "its attributes"):
            return {key: _plain(value) for key, value in self._file.attrs.items()}

    @property
    def identity(self) -> dict[str, AttributeValue]:
        """The attributes that equal runs share."""
        return {key: value for key, value in self.attributes.items() if key not in PROVENANCE_ATTRIBUTES}

    @property
    def target(self) -> str:
        """The target's name, as in the file name."""
        return str(self.attributes.get("target_name", ""))

    @cached_property
    def contigs(self) -> tuple[Contig, ...]:
        """Every sequence of the genome, in FASTA order."""
        names, lengths = self._column("genome/chrom"), self._column("genome/length")
        return tuple(Contig(str(name), int(length)) for name, length in zip(names, lengths, strict=True))

    @cached_property
    def regions(self) -> Mapping[str, NDArray[Any]]:
        """The columns of ``/regions``, names as str; ``start`` and ``end`` are the scored window."""
        return Columns(REGION_FIELDS, lambda field: self._column(f"regions/{field}"))

    @cached_property
    def qc(self) -> Mapping[str, NDArray[Any]]:
        """The columns of ``/qc``, one value for each region; the first files lack ``mean_abs_delta``."""
        there = tuple(field for field in QC_FIELDS if f"qc/{field}" in self._file)
        return Columns(there, lambda field: self._column(f"qc/{field}"))

    def window(self, row: int) -> Window:
        """The window of a row; its region has the window's own start and end, for no other is stored."""
        return _window(self.regions, row)

    def windows(self) -> Iterator[Window]:
        """The windows of all rows."""
        return (self.window(row) for row in range(self.n_regions))

    def windows_of(self, rows: slice) -> list[Window]:
        """The windows of some rows; nothing is kept, so a whole file can pass through in pieces."""
        regions = {field: self._column(f"regions/{field}", rows) for field in REGION_FIELDS}
        return [_window(regions, index) for index in range(len(regions["start"]))]

    def pieces(self, n_bytes: int = PIECE_BYTES) -> Iterator[slice]:
        """Slices of all rows whose scores are about so large; a power of two of rows, as chunks are."""
        fitting = max(1, n_bytes // (16 * max(1, self.length)))
        step = 1 << (fitting.bit_length() - 1)
        return (slice(start, start + step) for start in range(0, self.n_regions, step))

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """Every dataset of the file by its path, sorted."""
        found: list[str] = []
        self._file.visititems(lambda name, item: found.append(name) if isinstance(item, Dataset) else None)
        return tuple(sorted(found))

    def stored(self, name: str, rows: int | slice = slice(None)) -> NDArray[Any]:
        """Rows of any dataset exactly as they are stored: half floats stay so, names are bytes."""
        return self._read(name, rows)

    def one_hot(self, rows: int | slice) -> NDArray[np.int8]:
        """(4, length) for a row number, (rows, 4, length) for a slice; N is a column of zeros."""
        return cast(NDArray[np.int8], self._read("raw/seq", rows))

    def sequence(self, rows: int | slice) -> Codes:
        """(length,) or (rows, length) base codes; 4 where the base is none of A, C, G, T."""
        one_hot = self.one_hot(rows)
        codes = np.where(one_hot.any(axis=-2), one_hot.argmax(axis=-2), 4)
        return codes.astype(np.uint8)

    def hypothetical(self, rows: int | slice) -> NDArray[np.float32]:
        """(4, length) or (rows, 4, length) contribution that each base would have.

        Raises InputError for a method that has none.
        """
        if not self.has_hypothetical:
            method = self.attributes.get("method", "its method")
            raise InputError(f"{self.path} has no hypothetical contributions, because {method} has none.")
        return self._read("shap/seq", rows).astype(np.float32, copy=False)

    def projected(self, rows: int | slice) -> NDArray[np.float32]:
        """(4, length) or (rows, 4, length) contribution of the base that is there, zero elsewhere."""
        return self._read("projected_shap/seq", rows).astype(np.float32, copy=False)

    @cached_property
    def extras(self) -> tuple[str, ...]:
        """Names of the further arrays, sorted: ``fold_sd``, ``reference_se``, or none."""
        return extra_names(self._file)

    def extra(self, name: str, rows: int | slice) -> NDArray[np.float32]:
        """(4, length) or (rows, 4, length) of the array ``name``; raises InputError if there is none."""
        if name not in self.extras:
            held = ", ".join(self.extras) or "no further arrays"
            raise InputError(f"{self.path} has no {name}; it holds {held}.")
        return self._read(f"{name}/seq", rows).astype(np.float32, copy=False)

    def scored(self, rows: slice) -> list[ScoredWindow]:
        """The rows as a run hands them to its writers, under this file's target.

        Nothing is kept, so a whole file can pass through in pieces. Raises InputError for a file without
        ``/qc/mean_abs_delta``, as the first ones were.
        """
        if "mean_abs_delta" not in self._file["qc"]:
            raise InputError(
                f"{self.path} is from an early dlgenome that did not store /qc/mean_abs_delta; make it again."
            )
        windows, codes, scores = self.windows_of(rows), self.sequence(rows), self._region_scores(rows)
        first = rows.indices(self.n_regions)[0]
        return [
            ScoredWindow(first + index, windows[index], codes[index], {self.target: found})
            for index, found in enumerate(scores)
        ]

    def _region_scores(self, rows: slice) -> list[RegionScores]:
        qc = {field: self._column(f"qc/{field}", rows).tolist() for field in QC_FIELDS}
        projected = self.projected(rows)
        hypothetical = self.hypothetical(rows) if self.has_hypothetical else [None] * len(projected)
        extras = {name: self.extra(name, rows) for name in self.extras}
        return [
            RegionScores(
                hypothetical=hypothetical[index],
                projected=projected[index],
                prediction=qc["prediction"][index],
                reference_prediction=qc["reference_prediction"][index],
                contribution_sum=qc["sum"][index],
                mean_abs_delta=qc["mean_abs_delta"][index],
                n_references=qc["n_references"][index],
                extras={name: values[index] for name, values in extras.items()},
            )
            for index in range(len(projected))
        ]

    def _column(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        values = self._read(name, rows)
        if values.dtype.kind != "S":
            return values
        try:
            return np.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is damaged: /{name} holds bytes that are not text.") from error

    def _read(self, name: str, rows: int | slice) -> NDArray[Any]:
        with reading(self.path, f"/{name}"):
            return cast(NDArray[Any], self._file[name][rows])


def _window(columns: Mapping[str, NDArray[Any]], index: int) -> Window:
    chrom, start, end, name, strand, summit, input_row = (
        columns[field][index].item() for field in REGION_FIELDS
    )
    region = Region(chrom, start, end, name=name, strand=strand, summit=summit, input_row=input_row)
    return Window(region, chrom, start, end, summit)


def _plain(value: Any) -> AttributeValue:
    plain = value.item() if isinstance(value, np.generic) else value
    plain = plain.decode("utf-8") if isinstance(plain, bytes) else plain
    if not isinstance(plain, str | int | float | bool):
        raise TypeError(f"an attribute holds {value!r}")
    return plain
