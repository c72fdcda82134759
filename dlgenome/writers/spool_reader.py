"""Reading a spool: the rows that are safe, whatever happened to the end of the file."""

from __future__ import annotations

import errno
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dlgenome.types import Codes, SkippedRegion, Window
from dlgenome.writers.blocks import BlockLayout, Facts, decode_facts, decode_failures, decode_windows
from dlgenome.writers.records import LAYOUT_BLOCK, decode_layout, read_head, read_record


@dataclass(frozen=True)
class SpoolBlock:
    """Where one block lies in the spool file."""

    first_row: int
    rows: int
    part_offsets: tuple[int, ...]
    """Where each part begins, and where the last one ends."""


class SpoolReader:
    """Reads the whole records of a spool and ignores what follows the first damaged one.

    Opening it checks every record, so the disk has been read back once before the final files are made.
    Sixteen bytes a block are held: where its parts lie is read again from its head.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: BlockLayout | None = None
        self.rows = 0
        self.layout_end = 0
        """Bytes before the first block."""
        self._starts = array("q")
        self._first_rows = array("q")
        self._end = 0
        self._file = path.open("rb")
        self._scan()

    def blocks(self) -> Iterator[tuple[SpoolBlock, Facts]]:
        """Each block with the facts about its rows, in order."""
        for block in self._each_block():
            yield block, decode_facts(self._part(block, 0))

    def failures(self) -> list[SkippedRegion]:
        """The regions that failed, in the order of the run."""
        return [region for _, facts in self.blocks() for _, region in decode_failures(facts)]

    def sequences(self) -> Iterator[tuple[Window, Codes]]:
        """Every window that was scored, with the bases that it had."""
        for block, facts in self.blocks():
            parts = self.known_layout.part_slices(block.rows)["", "raw"]
            windows = iter(decode_windows(facts))
            for part in range(parts.start, parts.stop):
                codes = self._codes(self._part(block, part))
                yield from zip(islice(windows, len(codes)), codes, strict=False)

    def _codes(self, chunk: bytes) -> Codes:
        """(rows, length); rows that fill up the last chunk come along."""
        rows = np.frombuffer(zlib.decompress(chunk), np.int8).reshape(-1, 4, self.known_layout.length)
        return np.where(rows.any(1), rows.argmax(1), 4).astype(np.uint8)

    def full_blocks(self) -> int:
        """Blocks before the first that is not full: what a run can go on from."""
        full = self.known_layout.block_rows
        blocks = range(len(self._starts))
        return next((n for n in blocks if self._rows_before(n + 1) != full * (n + 1)), len(blocks))

    def blocks_end(self, n_blocks: int) -> tuple[int, int, int]:
        """(blocks, rows, bytes of the file) up to the end of the first blocks."""
        end = self._starts[n_blocks] if n_blocks < len(self._starts) else self._end
        return n_blocks, self._rows_before(n_blocks), end

    def next_row(self, n_blocks: int) -> int:
        """The place, among the windows of the run, that follows everything in the first blocks."""
        if not n_blocks:
            return 0
        facts = decode_facts(self._part(self._block(n_blocks - 1), 0))
        rows: list[int] = [*facts["rows"], *(row for row, _ in decode_failures(facts))]
        return max(rows) + 1

    def chunks(self, target: str, dataset: str) -> Iterator[tuple[int, bytes]]:
        """(first row, compressed chunk) of ``raw`` (target ``""``), ``shap``, ``projected_shap``, extra."""
        layout = self.known_layout
        rows_per_chunk = layout.sequence_chunk_rows if dataset == "raw" else layout.score_chunk_rows
        for block in self._each_block():
            parts = layout.part_slices(block.rows)[target, dataset]
            for position, part in enumerate(range(parts.start, parts.stop)):
                yield block.first_row + position * rows_per_chunk, self._part(block, part)

    @property
    def known_layout(self) -> BlockLayout:
        """The layout; raises ValueError for a spool that holds no rows."""
        if self.layout is None:
            raise ValueError(f"{self.path} holds no rows")
        return self.layout

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows_before(self, number: int) -> int:
        return self._first_rows[number] if number < len(self._first_rows) else self.rows

    def _each_block(self) -> Iterator[SpoolBlock]:
        return (self._block(number) for number in range(len(self._starts)))

    def _block(self, number: int) -> SpoolBlock:
        self._file.seek(self._starts[number])
        head = read_head(self._file, number)
        if head is None:
            raise OSError(errno.EIO, f"block {number} cannot be read a second time", str(self.path))
        n_rows, lengths, _ = head
        return SpoolBlock(
            self._first_rows[number], n_rows, tuple(accumulate(lengths, initial=self._file.tell()))
        )

    def _part(self, block: SpoolBlock, part: int) -> bytes:
        start, end = block.part_offsets[part : part + 2]
        self._file.seek(start)
        return self._file.read(end - start)

    def _scan(self) -> None:
        expected = LAYOUT_BLOCK
        start = 0
        while (record := read_record(self._file, expected)) is not None:
            n_rows, lengths = record
            self._end = self._file.tell()
            if expected == LAYOUT_BLOCK:
                self._file.seek(self._end - lengths[0])
                self.layout = decode_layout(self._file.read(lengths[0]))
                self.layout_end = self._end
            else:
                self._starts.append(start)
                self._first_rows.append(self.rows)
                self.rows += n_rows
            start = self._end
            expected += 1
