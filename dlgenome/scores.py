"""The one reader of finished ``scores.h5`` files, and what their completeness numbers mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import InputError
from dlgenome.types import Codes, Contig, Region, Window

FORMAT_VERSION = 1

PROVENANCE_ATTRIBUTES = frozenset(
    {
        "command_line",
        "checkpoint_path",
        "device",
        "device_name",
        "genome_path",
        "host",
        "platform",
        "regions_path",
        "shards",
        "threads",
        "versions",
        "working_directory",
        *(f"{name}_version" for name in ("dlgenome", "program", "python", "torch", "numpy", "h5py", "numba")),
    }
)
"""Root attributes that say how a file came to be; two files are equal whatever these are."""

QC_FIELDS = ("prediction", "reference_prediction", "sum", "delta_error", "n_references", "crc32")
REGION_FIELDS = ("chrom", "start", "end", "name", "strand", "summit", "input_row")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_TENSORS = ("raw/seq", "projected_shap/seq")
_REQUIRED = (
    *_TENSORS,
    *(f"regions/{field}" for field in REGION_FIELDS),
    *(f"qc/{field}" for field in QC_FIELDS),
    "genome/chrom",
    "genome/length",
)

AttributeValue = str | int | float | bool


def completeness_error(
    contribution_sum: NDArray[np.float64],
    prediction: NDArray[np.float64],
    reference_prediction: NDArray[np.float64],
    mean_abs_delta: NDArray[np.float64],
) -> NDArray[np.float64]:
    """|sum of contributions - (f(x) - mean f(ref))| / mean of |f(x) - f(ref)|, for each region.

    The denominator is floored at 1e-6 of its median over the run. NaN where ``mean_abs_delta`` is NaN,
    which is how methods without a completeness property say so.
    """
    known = mean_abs_delta[~np.isnan(mean_abs_delta)]
    floor = 1e-6 * float(np.median(known)) if len(known) else np.nan
    missed = np.abs(contribution_sum - (prediction - reference_prediction))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = missed / np.maximum(mean_abs_delta, floor)
    # A run in which the output never moves has a scale of zero, and missing nothing is then no error.
    error[(missed == 0) & ~np.isnan(mean_abs_delta)] = 0.0
    return error


@dataclass(frozen=True)
class CompletenessSummary:
    """How well the contributions of a run add up; all NaN for methods without a completeness property."""

    median: float
    percentile_99: float
    maximum: float
    worst_row: int
    """Row of the maximum, or -1."""


def summarize_completeness(delta_error: NDArray[np.float64]) -> CompletenessSummary:
    """Median, 99th percentile and maximum of the completeness errors that are numbers."""
    known = delta_error[~np.isnan(delta_error)]
    if not len(known):
        return CompletenessSummary(np.nan, np.nan, np.nan, -1)
    return CompletenessSummary(
        median=float(np.percentile(known, 50, method="higher")),
        percentile_99=float(np.percentile(known, 99, method="higher")),
        maximum=float(known.max()),
        worst_row=int(np.nanargmax(delta_error)),
    )


class ScoresFile:
    """An open ``scores.h5``: a context manager that gives rows as arrays and regions as values.

    Raises InputError when the file is missing, damaged, made by something else, or compressed in a way that
    this installation cannot read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            _check_structure(self.path, self._file)
            _check_filters(self.path, self._file)
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
    def regions(self) -> dict[str, NDArray[Any]]:
        """The columns of ``/regions``, names as str; ``start`` and ``end`` are the scored window."""
        return {field: self._column(f"regions/{field}") for field in REGION_FIELDS}

    @cached_property
    def qc(self) -> dict[str, NDArray[Any]]:
        """The columns of ``/qc``, one value for each region."""
        return {field: self._column(f"qc/{field}") for field in QC_FIELDS}

    def window(self, row: int) -> Window:
        """The window of a row; its region has the window's own start and end, for no other is stored."""
        chrom, start, end, name, strand, summit, input_row = (
            self.regions[field][row].item() for field in REGION_FIELDS
        )
        region = Region(chrom, start, end, name=name, strand=strand, summit=summit, input_row=input_row)
        return Window(region, chrom, start, end, summit)

    def windows(self) -> Iterator[Window]:
        """The windows of all rows."""
        return (self.window(row) for row in range(self.n_regions))

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

    def _column(self, name: str) -> NDArray[Any]:
        values = self._read(name, slice(None))
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values

    def _read(self, name: str, rows: int | slice) -> NDArray[Any]:
        try:
            return cast(NDArray[Any], self._file[name][rows])
        except OSError as error:
            raise InputError(
                f"{self.path} is damaged: /{name} cannot be read. Make the file again, or copy it again."
            ) from error


def _open(path: Path) -> h5py.File:
    try:
        with path.open("rb") as file:
            signature = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if signature != _SIGNATURE:
        raise InputError(f"{path} is not an HDF5 file; give a scores.h5 that `dlgenome attribute` wrote.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} is cut off or damaged, so HDF5 cannot open it; make it again, or copy it again."
        ) from error


def _check_structure(path: Path, file: h5py.File) -> None:
    version = file.attrs.get("format_version")
    missing = [name for name in _REQUIRED if not isinstance(file.get(name), h5py.Dataset)]
    if version is None or missing:
        lacking = f"/{missing[0]}" if missing else "the attribute format_version"
        raise InputError(f"{path} was not written by dlgenome: it lacks {lacking}.")
    if int(version) > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {int(version)}, newer than this dlgenome reads; update dlgenome."
        )
    shape = file["raw/seq"].shape
    if len(shape) != 3 or shape[1] != 4:
        raise InputError(f"{path} is damaged: /raw/seq has the shape {shape}, not (regions, 4, length).")
    for name in ("shap/seq", "projected_shap/seq"):
        if name in file and file[name].shape != shape:
            raise InputError(f"{path} is damaged: /{name} and /raw/seq differ in shape.")
    for name in _REQUIRED:
        if name.startswith(("regions/", "qc/")) and file[name].shape != shape[:1]:
            raise InputError(
                f"{path} is damaged: /{name} does not have one value for each of {shape[0]} regions."
            )


def _check_filters(path: Path, file: h5py.File) -> None:
    for name in (*_REQUIRED, "shap/seq"):
        if name not in file:
            continue
        creation = file[name].id.get_create_plist()
        for position in range(creation.get_nfilters()):
            code, _, _, label = creation.get_filter(position)
            if not h5py.h5z.filter_avail(code):
                known_as = label.decode(errors="replace") or "unnamed"
                raise InputError(
                    f"{path} is compressed with the HDF5 filter {code} ({known_as}), which is not installed; "
                    "rewrite the file with `h5repack -f GZIP=1`."
                )


def _plain(value: Any) -> AttributeValue:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return cast(AttributeValue, value.item() if isinstance(value, np.generic) else value)
