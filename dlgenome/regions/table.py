"""The regions of one file, packed so that millions of them fit in little memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Region, Strand

STRANDS: tuple[Strand, ...] = ("+", "-", ".")
NARROW_PEAK_COLUMNS = 10

PIECE_ROWS = 2**14
"""Rows are held in pieces of this many: one array that grows would be copied again and again."""

_ROW = np.dtype(
    [
        ("chrom_code", "<i4"),
        ("start", "<i8"),
        ("end", "<i8"),
        ("score", "<i2"),
        ("strand", "i1"),
        ("signal", "<f8"),
        ("p_value", "<f8"),
        ("q_value", "<f8"),
        ("summit", "<i8"),
        ("line", "<i4"),
        ("name_end", "<u4"),
    ]
)
_PACKER = struct.Struct("<iqqhbdddqiI")
"""The same layout, for one row at a time."""


@dataclass(frozen=True, eq=False)
class RegionPiece:
    """Rows of a file that follow each other."""

    rows: NDArray[np.void]
    names: bytes
    """Their names end to end; each ends at its ``name_end``."""

    def name(self, row: int) -> str:
        """The name of the row at this place in the piece."""
        start = int(self.rows["name_end"][row - 1]) if row else 0
        raw = self.names[start : int(self.rows["name_end"][row])]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")


class RegionPacker:
    """Packs rows into pieces while a file is read."""

    def __init__(self) -> None:
        self.count = 0
        """Rows added so far."""
        self._pieces: list[RegionPiece] = []
        self._rows, self._names = bytearray(), bytearray()

    def add(
        self,
        chrom_code: int,
        start: int,
        end: int,
        name: bytes,
        *,
        score: int = 0,
        strand: int = 2,
        values: tuple[float, float, float] = (0.0, -1.0, -1.0),
        summit: int = -1,
        line: int = 0,
    ) -> None:
        """Add a row; ``strand`` is a position in ``STRANDS``, ``values`` are signal, p and q value."""
        self._names += name
        self._rows += _PACKER.pack(
            chrom_code, start, end, score, strand, *values, summit, line, len(self._names)
        )
        self.count += 1
        if self.count % PIECE_ROWS == 0:
            self._cut()

    def finish(self) -> tuple[RegionPiece, ...]:
        """Everything that was added."""
        if self._rows:
            self._cut()
        return tuple(self._pieces)

    def _cut(self) -> None:
        self._pieces.append(RegionPiece(np.frombuffer(bytes(self._rows), _ROW), bytes(self._names)))
        self._rows.clear()
        self._names.clear()


@dataclass(frozen=True, eq=False)
class RegionTable:
    """Regions in some order; ``table[i]`` and iteration give ``Region`` values.

    A row of the file takes 63 bytes and its name; a subset shares the rows and holds four bytes a region.
    """

    source: str
    """What error messages call the file."""
    sha256: str
    """SHA-256 of the file as it was read, compressed or not."""
    columns: int
    """Columns of the file; 0 for the records of a FASTA file."""
    chrom_names: tuple[str, ...]
    """Every chromosome of the file in order of first appearance; a subset of rows keeps them all."""
    pieces: tuple[RegionPiece, ...]
    """Every row of the file, chosen or not; all pieces but the last have ``PIECE_ROWS`` rows."""
    chosen: NDArray[np.int32] | None = None
    """The rows of the file that are in the table; None where all are, in the file's order."""

    def __len__(self) -> int:
        if self.chosen is not None:
            return len(self.chosen)
        return (len(self.pieces) - 1) * PIECE_ROWS + len(self.pieces[-1].rows) if self.pieces else 0

    def __getitem__(self, row: int) -> Region:
        input_row = range(len(self))[row] if self.chosen is None else int(self.chosen[row])
        piece, place = self.pieces[input_row // PIECE_ROWS], input_row % PIECE_ROWS
        code, start, end, score, strand, signal, p_value, q_value, summit, line, _ = piece.rows[place].item()
        return Region(
            chrom=self.chrom_names[code],
            start=start,
            end=end,
            name=piece.name(place),
            score=score,
            strand=STRANDS[strand],
            signal=signal,
            p_value=p_value,
            q_value=q_value,
            summit=summit,
            input_row=input_row,
            line=line,
        )

    def __iter__(self) -> Iterator[Region]:
        return (self[row] for row in range(len(self)))

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
        """Position of each region's chromosome in ``chrom_names``; a new array, as all the columns are."""
        return self._column("chrom_code")

    @property
    def starts(self) -> NDArray[np.int64]:
        """First base of each region."""
        return self._column("start")

    @property
    def ends(self) -> NDArray[np.int64]:
        """The base after the last one of each region."""
        return self._column("end")

    @property
    def summits(self) -> NDArray[np.int64]:
        """Absolute positions; -1 where the file names none."""
        return self._column("summit")

    @property
    def signals(self) -> NDArray[np.float64]:
        """Column 7 of narrowPeak, 0 where there is none."""
        return self._column("signal")

    @property
    def summits_missing(self) -> int:
        """Rows of a narrowPeak file whose column 10 is -1; their windows use the midpoint."""
        return int(np.count_nonzero(self.summits < 0)) if self.columns == NARROW_PEAK_COLUMNS else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and names of the file, which subsets share, and of the order."""
        held = sum(piece.rows.nbytes + len(piece.names) for piece in self.pieces)
        return held + (0 if self.chosen is None else self.chosen.nbytes)

    def where(self, row: int) -> str:
        """``path:line`` of a row, for error messages."""
        line = self[row].line
        return f"{self.source}:{line}" if line else self.source

    def _column(self, name: str) -> NDArray[Any]:
        pieces = [piece.rows[name] for piece in self.pieces]
        whole: NDArray[Any] = np.concatenate(pieces) if pieces else np.zeros(0, _ROW[name])
        return whole if self.chosen is None else whole[self.chosen]
