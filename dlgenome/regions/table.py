"""The regions of one file, held by column so that millions of them fit in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Region, Strand

STRANDS: tuple[Strand, ...] = ("+", "-", ".")
NARROW_PEAK_COLUMNS = 10


@dataclass(frozen=True, eq=False)
class RegionTable:
    """Regions in a fixed order, about 100 bytes each; ``table[i]`` and iteration give ``Region`` values."""

    source: str
    """What error messages call the file."""
    sha256: str
    """SHA-256 of the file as it was read, compressed or not."""
    columns: int
    """Columns of the file; 0 for the records of a FASTA file."""
    chrom_names: tuple[str, ...]
    """Every chromosome of the file in order of first appearance; a subset of rows keeps them all."""
    chrom_codes: NDArray[np.int32]
    """Position of each region's chromosome in ``chrom_names``."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    scores: NDArray[np.int16]
    strands: NDArray[np.int8]
    """Position in ``STRANDS``."""
    signals: NDArray[np.float64]
    p_values: NDArray[np.float64]
    q_values: NDArray[np.float64]
    summits: NDArray[np.int64]
    """Absolute positions; -1 where the file names none."""
    input_rows: NDArray[np.int32]
    lines: NDArray[np.int32]
    name_starts: NDArray[np.int64]
    name_lengths: NDArray[np.int32]
    names: bytes
    """All names end to end, shared by every subset of the table."""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Region:
        return Region(
            chrom=self.chrom_names[self.chrom_codes[row]],
            start=int(self.starts[row]),
            end=int(self.ends[row]),
            name=self._name(row),
            score=int(self.scores[row]),
            strand=STRANDS[self.strands[row]],
            signal=float(self.signals[row]),
            p_value=float(self.p_values[row]),
            q_value=float(self.q_values[row]),
            summit=int(self.summits[row]),
            input_row=int(self.input_rows[row]),
            line=int(self.lines[row]),
        )

    def __iter__(self) -> Iterator[Region]:
        return (self[row] for row in range(len(self)))

    def _name(self, row: int) -> str:
        start = int(self.name_starts[row])
        raw = self.names[start : start + int(self.name_lengths[row])]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def take(self, indices: NDArray[np.int64]) -> RegionTable:
        """The regions at these rows, in this order; the names are shared, not copied."""
        columns: dict[str, Any] = {name: column[indices] for name, column in self._columns().items()}
        return replace(self, **columns)

    @property
    def summits_missing(self) -> int:
        """Rows of a narrowPeak file whose column 10 is -1; their windows use the midpoint."""
        return int(np.count_nonzero(self.summits < 0)) if self.columns == NARROW_PEAK_COLUMNS else 0

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns and the names."""
        return len(self.names) + sum(column.nbytes for column in self._columns().values())

    def where(self, row: int) -> str:
        """``path:line`` of a row, for error messages."""
        line = int(self.lines[row])
        return f"{self.source}:{line}" if line else self.source

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
