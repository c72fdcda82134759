"""NumPy's ``.npy`` format, whose header is compared with what follows it before memory is taken."""

from __future__ import annotations

import math
import warnings
from typing import IO

import numpy as np

NUMBER_KINDS = "fiub"
"""NumPy kinds that are real numbers; the others hold words, records or pickled objects."""


def check_npy(stream: IO[bytes], size: int) -> tuple[int, ...]:
    """Shape of the array in a ``.npy`` stream of ``size`` bytes; reads the header alone.

    Raises ValueError where it holds anything but numbers, or claims another size than it has.
    """
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, which are read all the same
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"its version {version[0]}.{version[1]} is not one for arrays of numbers")
    if dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"it holds values of the kind {dtype} instead of numbers")
    claimed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if any(axis < 0 for axis in shape) or claimed != held:
        raise ValueError(f"it claims the shape {shape} of {claimed:,} bytes and holds {held:,}")
    return shape
