"""NumPy's ``.npy`` format, whose header is compared with what follows it before memory is taken."""

from __future__ import annotations

import math
import warnings
from typing import IO, Any

import numpy as np

from dlgenome.errors import first_line

NUMBER_KINDS = "fiub"
"""NumPy kinds that are real numbers; the others hold words, records or pickled objects."""


def check_npy(stream: IO[bytes], size: int) -> tuple[int, ...]:
    """Shape of the array in a ``.npy`` stream of ``size`` bytes; reads the header alone.

    Raises ValueError where it holds anything but numbers, or claims another size than it has.
    """
    shape, dtype = _header(stream)
    if dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"it holds values of the kind {dtype} instead of numbers")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if any(axis < 0 for axis in shape) or claimed != held:
        raise ValueError(f"it claims the shape {shape} of {claimed:,} bytes and holds {held:,}")
    return shape


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its version {version[0]}.{version[1]} is not one for arrays of numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote, which are read all the same
            shape, _, dtype = readers[version](stream)
    except Exception as error:  # NumPy lets pass what Python's tokenizer and compiler raise
        raise ValueError(f"its header is damaged ({first_line(error)})") from error
    return shape, dtype
