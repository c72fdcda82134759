"""Letters to base codes and back: A, C, G, T are 0 to 3, everything else is 4 (N)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Codes

BASES = "ACGT"
N_CODE = 4


def _code_of_each_byte() -> Codes:
    table = np.full(256, N_CODE, dtype=np.uint8)
    for code, base in enumerate(BASES):
        table[ord(base)] = table[ord(base.lower())] = code
    return table


_CODE_OF_BYTE = _code_of_each_byte()
_BYTE_OF_CODE = np.frombuffer(b"ACGTN", dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, N_CODE], dtype=np.uint8)
_ROWS = np.arange(len(BASES), dtype=np.uint8)[:, np.newaxis]


def encode(text: str | bytes) -> Codes:
    """Base codes of a sequence, shape (length,); upper and lower case alike, 4 for any other letter."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    return _CODE_OF_BYTE[np.frombuffer(raw, dtype=np.uint8)]


def decode(codes: Codes) -> str:
    """The sequence as upper-case letters, N for code 4; ``codes`` has shape (length,)."""
    return _BYTE_OF_CODE[codes].tobytes().decode("ascii")


def one_hot(codes: Codes) -> NDArray[np.int8]:
    """One row per base in the order A, C, G, T, shape (..., 4, length); the column of an N is zero."""
    matches: NDArray[np.bool_] = codes[..., np.newaxis, :] == _ROWS
    return matches.view(np.int8)


def reverse_complement(codes: Codes) -> Codes:
    """Codes of the other strand, read in its own direction; N stays N."""
    return np.ascontiguousarray(_COMPLEMENT[codes[..., ::-1]])
