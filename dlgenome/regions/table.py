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
class RegionColumns:
    """One value a row of the file, in its order; about 70 bytes a row and its name."""

    chrom_codes: NDArray[np.int32]
    """Position of each row's chromosome in the names of the table."""
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
    lines: NDArray[np.int32]
    name_bounds: NDArray[np.int64]
    """(rows + 1,): where each name begins in ``names``, and where the last one ends."""
    names: bytes
    """All names end to end."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray)) + len(
            self.names
        )


@dataclass(frozen=True, eq=False)
class RegionTable:
    """Regions in some order; ``table[i]`` and iteration give ``Region`` values.

    A subset shares the columns of its file and holds four bytes a region beside them.
    """

    source: str
    """What error messages call the file."""
    sha256: str
    """SHA-256 of the file as it was read, compressed or not."""
    columns: int
    """Columns of the file; 0 for the records of a FASTA file."""
    chrom_names: tuple[str, ...]
    """Every chromosome of the file in order of first appearance; a subset of rows keeps them all."""
    file_rows: RegionColumns
    """Every row of the file, chosen or not."""
    chosen: NDArray[np.int32] | None = None
    """The rows of the file that are in the table; None where all are, in the file's order."""

    def __len__(self) -> int:
        return len(self.file_rows.starts if self.chosen is None else self.chosen)

    def __getitem__(self, row: int) -> Region:
        input_row = range(len(self))[row] if self.chosen is None else int(self.chosen[row])
        held = self.file_rows
        return Region(
            chrom=self.chrom_names[held.chrom_codes[input_row]],
            start=int(held.starts[input_row]),
            end=int(held.ends[input_row]),
            name=self._name(input_row),
            score=int(held.scores[input_row]),
            strand=STRANDS[held.strands[input_row]],
            signal=float(held.signals[input_row]),
            p_value=float(held.p_values[input_row]),
            q_value=float(held.q_values[input_row]),
            summit=int(held.summits[input_row]),
            input_row=input_row,
            line=int(held.lines[input_row]),
        )

    def __iter__(self) -> Iterator[Region]:
        return (self[row] for row in range(len(self)))

    def _name(self, input_row: int) -> str:
        start, end = self.file_rows.name_bounds[input_row : input_row + 2]
        raw = self.file_rows.names[start:end]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def take(self, indices: NDArray[np.int64]) -> RegionTable:
        """The regions at these rows, in this order; nothing is copied but the order."""
        if len(indices) == len(self) and bool((indices[1:] > indices[:-1]).all()):
            return self
        rows = indices if self.chosen is None else self.chosen[indices]
        return replace(self, chosen=rows.astype(np.int32, copy=False))

    @property
    def input_rows(self) -> NDArray[np.int32]:
        """0-based position of each region among the data rows of the file."""
        return np.arange(len(self), dtype=np.int32) if self.chosen is None else self.chosen

    @property
    def chrom_codes(self) -> NDArray[np.int32]:
        """Position of each region's chromosome in ``chrom_names``."""
        return self._of_chosen(self.file_rows.chrom_codes)

    @property
    def starts(self) -> NDArray[np.int64]:
        """First base of each region."""
        return self._of_chosen(self.file_rows.starts)

    @property
    def ends(self) -> NDArray[np.int64]:
        """The base after the last one of each region."""
        return self._of_chosen(self.file_rows.ends)

    @property
    def summits(self) -> NDArray[np.int64]:
        """Absolute positions; -1 where the file names none."""
        return self._of_chosen(self.file_rows.summits)

    @property
    def signals(self) -> NDArray[np.float64]:
        """Column 7 of narrowPeak, 0 where there is none."""
        return self._of_chosen(self.file_rows.signals)

    @property
    def summits_missing(self) -> int:
        """Rows of a narrowPeak file whose column 10 is -1; their windows use the midpoint."""
        return int(np.count_nonzero(self.summits < 0)) if self.columns == NARROW_PEAK_COLUMNS else 0

    @property
    def nbytes(self) -> int:
        """Bytes that the table holds beside the rows of its file, which others may share."""
        return 0 if self.chosen is None else self.chosen.nbytes

    def where(self, row: int) -> str:
        """``path:line`` of a row, for error messages."""
        line = self[row].line
        return f"{self.source}:{line}" if line else self.source

    def _of_chosen(self, column: NDArray[Any]) -> NDArray[Any]:
        return column if self.chosen is None else column[self.chosen]
