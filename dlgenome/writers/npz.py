"""The pair of npz files that ``modisco motifs -s ... -a ...`` takes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from dlgenome.scores import ScoresFile
from dlgenome.writers.disk import clear_write_errors

PIECE_BYTES = 4 * 1024 * 1024


def write_npz(ohe_path: Path, attr_path: Path, scores: ScoresFile) -> None:
    """Write the one-hot sequences and the hypothetical contributions, both (N, 4, L) under the key ``arr_0``.

    Rows pass through in small pieces. Raises InputError when the method has no hypothetical contributions.
    """
    shape = (scores.n_regions, 4, scores.length)
    step = max(1, PIECE_BYTES // (16 * scores.length))
    pieces = [slice(first, first + step) for first in range(0, scores.n_regions, step)]
    _write(ohe_path, shape, np.dtype("int8"), (scores.one_hot(piece) for piece in pieces))
    dtype = np.dtype(scores.score_dtype)
    _write(attr_path, shape, dtype, (scores.hypothetical(piece).astype(dtype) for piece in pieces))


def _write(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], pieces: Iterator[NDArray[Any]]) -> None:
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with (
        clear_write_errors(path),
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        npy_format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(piece.tobytes())
