"""What a ``scores.h5`` consists of, and the checks that come before any of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from dlgenome.errors import InputError
from dlgenome.guards.hdf5 import check_hdf5

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

QC_FIELDS = (
    "prediction",
    "reference_prediction",
    "sum",
    "mean_abs_delta",
    "delta_error",
    "n_references",
    "crc32",
)
REGION_FIELDS = ("chrom", "start", "end", "name", "strand", "summit", "input_row")

LATER_QC_FIELDS = frozenset({"mean_abs_delta"})
"""Fields that the first files did without."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_TENSORS = ("raw/seq", "projected_shap/seq")
_REQUIRED = (
    *_TENSORS,
    *(f"regions/{field}" for field in REGION_FIELDS),
    *(f"qc/{field}" for field in QC_FIELDS if field not in LATER_QC_FIELDS),
    "genome/chrom",
    "genome/length",
)
_KINDS = {
    "raw/seq": "iu",
    **{f"regions/{field}": "S" for field in ("chrom", "name", "strand")},
    **{f"regions/{field}": "iu" for field in ("start", "end", "summit", "input_row")},
    **{f"qc/{field}": "iu" for field in ("n_references", "crc32")},
    "genome/chrom": "S",
    "genome/length": "iu",
}
"""numpy's letters for the kinds of values that a dataset may hold; all others hold floating-point numbers."""
_WIDEST_COLUMN = 64 * 2**20
"""Bytes that a column, which is read whole, may have in any file."""
_COLUMN_SHARE = 20
"""And beyond that, how many times the whole file; in true files a column is a small part of it."""
_LARGEST_ROW = 2**30
_GROUPS = frozenset({"raw", "shap", "projected_shap", "regions", "genome", "qc"})


def open_file(path: Path) -> h5py.File:
    """The HDF5 file, open for reading; raises InputError where HDF5 cannot open it."""
    try:
        with path.open("rb") as file:
            signature = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if signature != _SIGNATURE:
        raise InputError(f"{path} is not an HDF5 file; give a scores.h5 that `dlgenome attribute` wrote.")
    check_hdf5(path)
    with reading(path):
        return h5py.File(path, "r", locking="best-effort")


@contextmanager
def reading(path: Path, what: str = "the file") -> Iterator[None]:
    """Whatever h5py and NumPy raise on a damaged file, as one sentence."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged: {what} cannot be read. Make the file again, or copy it again."
        ) from error


def extra_names(file: h5py.File) -> tuple[str, ...]:
    """Groups that hold a further array of scores, sorted."""
    others = (name for name in file if name not in _GROUPS)
    return tuple(sorted(name for name in others if isinstance(file.get(f"{name}/seq"), h5py.Dataset)))


def check_structure(path: Path, file: h5py.File) -> None:
    """Raise InputError unless everything is there, in shapes that go together."""
    for problem in structure_problems(file):
        raise InputError(f"{path} {problem}")


def find_structure_problems(path: Path) -> tuple[str, ...]:
    """All that `structure_problems` says of a file; raises InputError where HDF5 cannot open it."""
    with open_file(path) as file, reading(path):
        return tuple(structure_problems(file))


def structure_problems(file: h5py.File) -> Iterator[str]:
    """Everything that keeps the file from being read, each as the sentence that follows the file's name."""
    version = file.attrs.get("format_version")
    missing = [f"/{name}" for name in _REQUIRED if not isinstance(file.get(name), h5py.Dataset)]
    if not isinstance(version, int | np.integer):
        missing.append("the attribute format_version")
    elif version > FORMAT_VERSION:
        yield f"has format version {version}, newer than this dlgenome reads; update dlgenome."
        return
    yield from (f"was not written by dlgenome: it lacks {name}." for name in missing)
    if "/raw/seq" in missing:
        return
    shape = file["raw/seq"].shape
    if len(shape) != 3 or shape[1] != 4:
        yield f"is damaged: /raw/seq has the shape {shape}, not (regions, 4, length)."
        return
    tensors = (*_TENSORS, "shap/seq", *(f"{extra}/seq" for extra in extra_names(file)))
    columns = (*_REQUIRED[len(_TENSORS) :], *(f"qc/{field}" for field in LATER_QC_FIELDS))
    for name in (*tensors, *columns):
        if isinstance(file.get(name), h5py.Dataset):
            yield from _dataset_problems(name, file[name], shape)
    if not missing and file["genome/chrom"].shape != file["genome/length"].shape:
        yield "is damaged: /genome/chrom and /genome/length differ in shape."


def _dataset_problems(name: str, dataset: h5py.Dataset, shape: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with the shape of one dataset, and with the kind of its values."""
    group, _, field = name.partition("/")
    if field == "seq" and dataset.shape != shape:
        yield f"is damaged: /{name} and /raw/seq differ in shape."
    if group in ("regions", "qc") and dataset.shape != shape[:1]:
        yield f"is damaged: /{name} does not have one value for each of {shape[0]} regions."
    if group == "genome" and len(dataset.shape) != 1:
        yield f"is damaged: /{name} has the shape {dataset.shape}, not one value a sequence of the genome."
    if dataset.dtype.kind not in _KINDS.get(name, "f"):
        yield f"is damaged: the values of /{name} are of the kind {dataset.dtype}."
    whole = field != "seq"
    largest = _WIDEST_COLUMN + _COLUMN_SHARE * dataset.file.id.get_filesize() if whole else _LARGEST_ROW
    if dataset.nbytes // (1 if whole else max(1, len(dataset))) > largest:
        yield f"is damaged: /{name} claims {dataset.nbytes:,} bytes, more than such a file can need."


def check_filters(path: Path, file: h5py.File) -> None:
    """Raise InputError for compression that this installation cannot undo."""
    columns = (f"qc/{field}" for field in LATER_QC_FIELDS)
    extras = (f"{extra}/seq" for extra in extra_names(file))
    for name in (*_REQUIRED, "shap/seq", *columns, *extras):
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
