"""A bigWig of per-base values, written in one pass in memory that does not depend on how many there are.

Layout: Kent et al. 2010, "BigWig and BigBed: enabling browsing of large distributed datasets",
Bioinformatics 26(17), supplementary tables. libBigWig holds all zoom levels until it closes a file; here they
leave block by block, to temporary files beside the bigWig.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Contig
from dlgenome.writers.bigwig_trees import BLOCK, write_chromosome_tree, write_place_tree

BIGWIG_MAGIC = 0x888FFC26
BASES_PER_BLOCK = 4096
HELD_BASES = 16 * BASES_PER_BLOCK
"""Values that wait to be written: short blocks are dealt with by the hundred."""
BINS_PER_BLOCK = 512
FIRST_REDUCTION, REDUCTION_STEP, MAX_ZOOM_LEVELS = 16, 4, 10
COMPRESSION_LEVEL = 6
HELD_BYTES = 64 * 1024
"""A temporary file that stays below this never reaches the disk."""

_FIXED_STEP = 3
_BIN = np.dtype(
    [(field, "<u4") for field in ("start", "end", "count")]
    + [(field, "<f8") for field in ("min", "max", "sum", "squares")]
)
"""What is known of the covered bases between start and end, all in one bin of a zoom level."""

_STORED_BIN = np.dtype(
    [(field, "<u4") for field in ("chromosome", "start", "end", "count")]
    + [(field, "<f4") for field in ("min", "max", "sum", "squares")]
)
_JOINED = {"count": np.add, "min": np.minimum, "max": np.maximum, "sum": np.add, "squares": np.add}


class BigWigFile:
    """An open bigWig: a context manager that takes runs of values in the order of the contigs.

    The file is whole when the context ends without an error, and not a bigWig before that. Raises OSError
    where the disk does.
    """

    def __init__(self, path: Path, contigs: Sequence[Contig]) -> None:
        self._contigs = tuple(contigs)
        self._ids = {contig.name: row for row, contig in enumerate(contigs)}
        self._chromosome = self._end = self._held = 0
        self._values = np.zeros(HELD_BASES, "<f4")
        self._starts: list[int] = []
        self._firsts: list[int] = []
        self._covered, self._min, self._max, self._sum, self._squares = 0, np.inf, -np.inf, 0.0, 0.0
        self._file = path.open("wb")
        self._blocks = _Blocks(self._file, path.parent)
        self._zooms = _zoom_levels(path.parent, max((contig.length for contig in contigs), default=0))
        self._file.write(bytes(64 + 24 * len(self._zooms)))
        self._summary_offset = self._file.tell()
        self._file.write(bytes(40))
        self._tree_offset = self._file.tell()
        write_chromosome_tree(self._file, contigs)
        self._data_offset = self._file.tell()
        self._file.write(bytes(8))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            for blocks in (self._blocks, *(zoom.blocks for zoom in self._zooms)):
                blocks.close()

    def add(self, name: str, start: int, values: NDArray[np.float32]) -> None:
        """Take the values of the bases from ``start`` on.

        Raises ValueError for values that overlap others, lie outside the contig or come out of order.
        """
        chromosome, end = self._ids[name], start + len(values)
        if end > self._contigs[chromosome].length or (chromosome, start) < (self._chromosome, self._end):
            raise ValueError(f"{len(values)} values from {name}:{start} on are out of place")
        if chromosome != self._chromosome:
            self._write_blocks()
            self._end_chromosome()
            self._chromosome = chromosome
        elif self._firsts and start == self._end:
            values = values[self._fill_block(values) :]
        self._end = end
        while len(values):
            self._open_block(end - len(values))
            values = values[self._fill_block(values) :]

    def _open_block(self, start: int) -> None:
        if self._held + BASES_PER_BLOCK > HELD_BASES:
            self._write_blocks()
        self._firsts.append(self._held)
        self._starts.append(start)

    def _fill_block(self, values: NDArray[np.float32]) -> int:
        """Put the first values into the last block; returns how many found room."""
        taken = values[: BASES_PER_BLOCK - (self._held - self._firsts[-1])]
        self._values[self._held : self._held + len(taken)] = taken
        self._held += len(taken)
        return len(taken)

    def _write_blocks(self) -> None:
        if not self._firsts:
            return
        values, firsts = self._values[: self._held], np.array(self._firsts)
        starts = np.array(self._starts)
        ends = starts + np.diff(firsts, append=self._held)
        contents = (
            struct.pack("<5I2BH", self._chromosome, start, end, 1, 1, _FIXED_STEP, 0, end - start)
            + values[first : first + end - start].tobytes()
            for first, start, end in zip(self._firsts, self._starts, ends.tolist(), strict=True)
        )
        self._blocks.add(self._chromosome, starts, ends, contents)
        bins = _bins_of_bases(starts, firsts, values)
        self._covered += len(values)
        self._min, self._max = min(self._min, bins["min"].min()), max(self._max, bins["max"].max())
        self._sum, self._squares = self._sum + bins["sum"].sum(), self._squares + bins["squares"].sum()
        if self._zooms:
            self._zooms[0].add(self._chromosome, bins)
        self._held = 0
        self._firsts.clear()
        self._starts.clear()

    def _end_chromosome(self) -> None:
        for zoom in self._zooms:
            zoom.end_chromosome(self._chromosome)

    def _finish(self) -> None:
        self._write_blocks()
        self._end_chromosome()
        index_offset = self._file.tell()
        self._blocks.write_index(self._file, 0)
        zoom_headers = [zoom.copy_to(self._file) for zoom in _useful(self._zooms)]
        self._file.write(struct.pack("<I", BIGWIG_MAGIC))
        self._write_at(self._data_offset, struct.pack("<Q", self._blocks.count))
        extremes = (self._min, self._max) if self._covered else (0.0, 0.0)
        summary = struct.pack("<Q4d", self._covered, *extremes, self._sum, self._squares)
        self._write_at(self._summary_offset, summary)
        self._write_at(64, b"".join(zoom_headers))
        self._file.flush()
        offsets = (self._tree_offset, self._data_offset, index_offset, 0, 0, 0, self._summary_offset)
        largest = max(24 + 4 * BASES_PER_BLOCK, _STORED_BIN.itemsize * BINS_PER_BLOCK)
        header = struct.pack("<I2H3Q2H2QIQ", BIGWIG_MAGIC, 4, len(zoom_headers), *offsets, largest, 0)
        self._write_at(0, header)

    def _write_at(self, position: int, content: bytes) -> None:
        self._file.seek(position)
        self._file.write(content)


class _Blocks:
    """Compressed blocks, one after the other in a file, and aside the index items that find them."""

    def __init__(self, data: IO[bytes], folder: Path) -> None:
        self.data = data
        self.count = 0
        self._index = _temporary(folder)

    def add(
        self, chromosome: int, starts: NDArray[np.int64], ends: NDArray[np.int64], contents: Iterable[bytes]
    ) -> None:
        packed = [zlib.compress(content, COMPRESSION_LEVEL) for content in contents]
        items = np.empty(len(packed), BLOCK)
        items["first"][:, 0] = items["last"][:, 0] = chromosome
        items["first"][:, 1], items["last"][:, 1] = starts, ends
        items["size"] = [len(each) for each in packed]
        items["offset"] = self.data.tell() + np.cumsum(items["size"]) - items["size"]
        self._index.write(items.tobytes())
        self.data.writelines(packed)
        self.count += len(packed)

    def write_index(self, file: IO[bytes], shift: int) -> None:
        write_place_tree(file, self._index, self.count, shift)

    def close(self) -> None:
        self._index.close()
        self.data.close()


class _ZoomLevel:
    """Summaries of the covered bases of bins of ``reduction`` bases; whole bins go on to the level above."""

    def __init__(self, reduction: int, folder: Path, above: _ZoomLevel | None) -> None:
        self.reduction = reduction
        self.blocks = _Blocks(_temporary(folder), folder)
        self.n_bins = 0
        self._above = above
        self._held = np.zeros(0, _BIN)

    def add(self, chromosome: int, bins: NDArray[Any]) -> None:
        """Take smaller bins; the last is held until it is known that nothing more belongs to it."""
        bins = np.concatenate((self._held, bins))
        number = bins["start"] // self.reduction
        self._held = _join(bins, np.flatnonzero(np.diff(number, prepend=number[0] + 1)))
        while len(self._held) > BINS_PER_BLOCK:
            self._write(chromosome, BINS_PER_BLOCK)

    def end_chromosome(self, chromosome: int) -> None:
        """No bin and no block holds bases of two chromosomes. Lower levels must have ended before."""
        if len(self._held):
            self._write(chromosome, len(self._held))

    def _write(self, chromosome: int, count: int) -> None:
        bins, self._held = self._held[:count], self._held[count:]
        stored = np.full(count, chromosome, _STORED_BIN)
        with np.errstate(over="ignore"):
            for field in _BIN.names or ():
                stored[field] = bins[field]
        self.blocks.add(chromosome, bins["start"][:1], bins["end"][-1:], [stored.tobytes()])
        self.n_bins += count
        if self._above is not None:
            self._above.add(chromosome, bins)

    def copy_to(self, file: IO[bytes]) -> bytes:
        """Append the level to the file; returns its entry for the head of the file."""
        data_offset = file.tell()
        file.write(struct.pack("<I", self.n_bins))
        self.blocks.data.seek(0)
        shutil.copyfileobj(self.blocks.data, file)
        index_offset = file.tell()
        self.blocks.write_index(file, data_offset + 4)
        return struct.pack("<2I2Q", self.reduction, 0, data_offset, index_offset)


def _zoom_levels(folder: Path, longest: int) -> list[_ZoomLevel]:
    """From fine to coarse; the finest is there however short the contigs are, for IGV needs one."""
    reductions = [FIRST_REDUCTION * REDUCTION_STEP**level for level in range(MAX_ZOOM_LEVELS)]
    levels: list[_ZoomLevel] = []
    for reduction in reversed(reductions):
        if reduction <= max(longest, FIRST_REDUCTION):
            levels.insert(0, _ZoomLevel(reduction, folder, levels[0] if levels else None))
    return levels


def _useful(levels: list[_ZoomLevel]) -> list[_ZoomLevel]:
    """The levels with bins, as far as each has fewer than the one before."""
    useful = [level for level in levels[:1] if level.n_bins]
    for level in levels[1:]:
        if useful and level.n_bins < useful[-1].n_bins:
            useful.append(level)
    return useful


def _bins_of_bases(
    starts: NDArray[np.int64], firsts: NDArray[np.int64], values: NDArray[np.float32]
) -> NDArray[Any]:
    """The bins of FIRST_REDUCTION bases that the values lie in, none of them in two blocks.

    A block has the bases from one of ``starts`` on; its values begin at one of ``firsts``.
    """
    bases = np.arange(len(values)) + np.repeat(starts - firsts, np.diff(firsts, append=len(values)))
    begins = bases % FIRST_REDUCTION == 0
    begins[firsts] = True
    firsts = np.flatnonzero(begins)
    wide = values.astype(np.float64)
    bins = np.zeros(len(firsts), _BIN)
    bins["start"], bins["count"] = bases[firsts], np.diff(firsts, append=len(values))
    bins["end"] = bins["start"] + bins["count"]
    bins["min"], bins["max"] = np.minimum.reduceat(wide, firsts), np.maximum.reduceat(wide, firsts)
    bins["sum"], bins["squares"] = np.add.reduceat(wide, firsts), np.add.reduceat(wide * wide, firsts)
    return bins


def _join(bins: NDArray[Any], firsts: NDArray[np.intp]) -> NDArray[Any]:
    """One bin from every stretch of bins that begins at one of ``firsts``."""
    if len(firsts) == len(bins):
        return bins
    joined = np.zeros(len(firsts), _BIN)
    joined["start"], joined["end"] = bins["start"][firsts], bins["end"][np.append(firsts[1:], 0) - 1]
    for field, join in _JOINED.items():
        joined[field] = join.reduceat(bins[field], firsts)
    return joined


def _temporary(folder: Path) -> IO[bytes]:
    return cast(IO[bytes], SpooledTemporaryFile(HELD_BYTES, dir=str(folder)))
