"""References that the user made, read from HDF5 or npz."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import InputError, UsageError, first_line
from dlgenome.guards.archives import ARCHIVE_ERRORS, open_archive
from dlgenome.guards.arrays import NUMBER_KINDS, check_npy
from dlgenome.guards.hdf5 import check_hdf5
from dlgenome.types import Codes

KEY = "references"
LARGEST_NPZ = 1 << 30
"""Bytes of the largest array taken from an npz file, which can only be read whole."""
SUM_TOLERANCE = 1e-3
"""How far a column may be from a sum of 0 or 1; wide enough for frequencies stored as float16."""
_LARGEST_SET = 4 * 2**30
"""Bytes of the references of one sequence, which are held at once."""
_LARGEST_RATIO = 200
"""How many times the stored bytes a set may claim; a letter as four float64 in four bits is 64 times."""
_ALWAYS_ALLOWED = 64 * 2**20


class FileReferences:
    """References from a file, either the same for every sequence or a set for each input row.

    The same for all are read and checked at once. A set for each row is read and checked row by row, so that
    an HDF5 file may be larger than memory.
    """

    is_coded = False

    def __init__(self, path: Path, table: Any, hdf5_file: h5py.File | None) -> None:
        self.path = path
        self.name = f"file:{path.name}"
        self.n_references: int = table.shape[-3]
        self._hdf5_file = hdf5_file
        self._per_row = len(table.shape) == 4
        self._table = table if self._per_row else self._checked(table, None)

    def draw(self, codes: Codes, input_row: int) -> NDArray[np.float32]:
        """The references of one sequence of codes, (references, 4, length); zero where it is N.

        Raises InputError where the file cannot be read or holds impossible values.
        """
        references = self._checked(self._table, input_row) if self._per_row else self._table
        result: NDArray[np.float32] = references * (codes < 4)
        return result

    def draw_batch(self, codes: Codes, input_rows: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        """The references of (sequences, length) codes, (sequences, references, 4, length); as ``draw``."""
        shape = (len(codes), self.n_references, 4, codes.shape[1])
        references = np.empty(shape, dtype=np.float32)
        for position, (sequence, input_row) in enumerate(zip(codes, input_rows, strict=True)):
            references[position] = self.draw(sequence, int(input_row))
        return references

    def close(self) -> None:
        """Close the file; the references can no longer be drawn."""
        if self._hdf5_file is not None:
            self._hdf5_file.close()

    def _checked(self, table: Any, input_row: int | None) -> NDArray[np.float32]:
        try:
            values = table[() if input_row is None else input_row]
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(_unreadable(self.path, error)) from error
        references = np.asarray(values, dtype=np.float32)
        _check_values(references, self.path, "" if input_row is None else f"input row {input_row}, ")
        return references


def open_references(
    path: Path, *, n_references: int | None, window: int, n_input_rows: int
) -> FileReferences:
    """The references in an HDF5 or npz file, under the key ``references``.

    Their shape is (references, 4, length) for all sequences or (input rows, references, 4, length). Raises
    InputError where the file is missing, damaged or does not fit the window and the input rows, and
    UsageError where ``n_references`` is given and the file holds another number.
    """
    if not path.is_file():
        raise InputError(f"--references file:{path}: there is no such file; check the path.")
    hdf5_file = _open_hdf5(path)
    try:
        if hdf5_file is None:
            table = _npz_table(path, window, n_input_rows)
        else:
            table = _hdf5_table(path, hdf5_file, window, n_input_rows)
        if n_references not in (None, table.shape[-3]):
            raise UsageError(
                f"--n-references {n_references} was given, but {path} holds {table.shape[-3]} references for "
                "each sequence; leave the flag out to use them all"
            )
        return FileReferences(path, table, hdf5_file)
    except BaseException:
        if hdf5_file is not None:
            hdf5_file.close()
        raise


def _open_hdf5(path: Path) -> h5py.File | None:
    """The open file, or None where it is none of HDF5."""
    try:
        if not h5py.is_hdf5(path):
            return None
        check_hdf5(path)
        return h5py.File(path, "r", locking="best-effort")
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(_unreadable(path, error)) from error


def _hdf5_table(path: Path, hdf5_file: h5py.File, window: int, n_input_rows: int) -> Any:
    if KEY not in hdf5_file:
        raise InputError(_missing_key(path, list(hdf5_file)))
    table = hdf5_file[KEY]
    if not isinstance(table, h5py.Dataset) or table.dtype.kind not in NUMBER_KINDS:
        raise InputError(f"{path}: {KEY!r} must be a dataset of numbers")
    creation = table.id.get_create_plist()
    for index in range(creation.get_nfilters()):
        code, _, _, filter_name = creation.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            raise InputError(
                f"{path}: {KEY!r} is compressed with {filter_name.decode(errors='replace') or 'a filter'} "
                f"(HDF5 filter {code}), which is not installed here; write it with gzip instead"
            )
    _check_shape(table.shape, path, window, n_input_rows)
    _check_size(path, table)
    return table


def _check_size(path: Path, table: h5py.Dataset) -> None:
    """Refuse what would not fit into the memory, before it is read."""
    at_once = math.prod(table.shape[-3:]) * table.dtype.itemsize
    stored = table.id.get_storage_size()
    if at_once > min(_LARGEST_SET, _ALWAYS_ALLOWED + _LARGEST_RATIO * stored):
        raise InputError(
            f"{path}: the references claim the shape {table.shape}, {at_once:,} bytes for a sequence, and "
            f"the file holds {stored:,} in all; give fewer references, or make the file again"
        )


def _npz_table(path: Path, window: int, n_input_rows: int) -> NDArray[Any]:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is neither an HDF5 nor an npz file, or it was cut short")
    with open_archive(path, may_shrink=True) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if KEY not in names:
            raise InputError(_missing_key(path, names))
        member = archive.infolist()[names.index(KEY)]
        if member.file_size > LARGEST_NPZ:
            raise InputError(
                f"{path}: {member.file_size / 2**30:.1f} GiB of references are too many for an npz file, "
                "which is read whole; write them as HDF5, which is read row by row"
            )
        try:
            with archive.open(member) as stream:
                shape = check_npy(stream, member.file_size)
            _check_shape(shape, path, window, n_input_rows)
            with archive.open(member) as stream:
                table: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        except ARCHIVE_ERRORS as error:
            raise InputError(_unreadable(path, error)) from error
    return table


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path}: the references cannot be read ({first_line(error)}); is the file whole?"


def _missing_key(path: Path, keys: list[str]) -> str:
    found = ", ".join(map(repr, sorted(keys)[:10])) or "nothing"
    return f"{path}: the references must be stored under {KEY!r}; the file holds {found}"


def _check_shape(shape: tuple[int, ...], path: Path, window: int, n_input_rows: int) -> None:
    prefix = f"{path}: the references have the shape {shape}"
    if len(shape) not in (3, 4):
        raise InputError(
            f"{prefix}; expected (references, 4, {window}) for all sequences or "
            f"({n_input_rows}, references, 4, {window}) with a set for each input row"
        )
    if shape[-2] != 4:
        hint = "; swap the last two" if shape[-1] == 4 else ""
        raise InputError(f"{prefix}, but the last two axes must be 4 bases and {window} positions{hint}")
    if shape[-1] != window:
        raise InputError(f"{prefix}: {shape[-1]} positions, but the window of the model is {window}")
    if shape[-3] == 0:
        raise InputError(f"{prefix}: there is no reference in it")
    if len(shape) == 4 and shape[0] != n_input_rows:
        raise InputError(
            f"{prefix}: {shape[0]} input rows, but the input has {n_input_rows}; rows that are not "
            "scored need references too"
        )


def _check_values(references: NDArray[np.float32], path: Path, where: str) -> None:
    sums = references.sum(axis=-2, keepdims=True)
    wrong_column = (np.abs(sums - 1) > SUM_TOLERANCE) & (np.abs(sums) > SUM_TOLERANCE)
    for wrong, problem in (
        (~np.isfinite(references), "is not a finite number"),
        (references < 0, "is negative"),
        (wrong_column, "is in a column that sums to neither 1 nor 0 (a frequency column or an N)"),
    ):
        if wrong.any():
            reference, base, position = (int(axis) for axis in np.argwhere(wrong)[0])
            raise InputError(
                f"{path}: {where}reference {reference}, position {position} (counted from 0): "
                f"{references[reference, base, position]:g} {problem}"
            )
