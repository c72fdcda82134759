"""Reading a spool: the rows that are safe, whatever happened to the end of the file."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dlgenome.types import Codes, SkippedRegion, Window
from dlgenome.writers.blocks import BlockLayout, Facts, decode_facts, decode_failures, decode_windows
from dlgenome.writers.records import LAYOUT_BLOCK, decode_layout, read_record


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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: BlockLayout | None = None
        self.rows = 0
        self.layout_end = 0
        """Bytes before the first block."""
        self._blocks: list[SpoolBlock] = []
        self._file = path.open("rb")
        self._scan()

    def blocks(self) -> Iterator[tuple[SpoolBlock, Facts]]:
        """Each block with the facts about its rows, in order."""
        for block in self._blocks:
            yield block, decode_facts(self._part(block, 0))

    def failures(self) -> list[SkippedRegion]:
        """The regions that failed, in the order of the run."""
        return [region for _, facts in self.blocks() for _, region in decode_failures(facts)]

    def samples(self) -> Iterator[tuple[Window, Codes]]:
        """The first row of the first and of the last block: a window and the bases that it had."""
        for block in dict.fromkeys((self._blocks[0], self._blocks[-1])) if self._blocks else ():
            facts = decode_facts(self._part(block, 0))
            if facts["rows"]:
                part = self.known_layout.part_slices(block.rows)["", "raw"].start
                yield decode_windows(facts)[0], self._first_codes(self._part(block, part))

    def _first_codes(self, chunk: bytes) -> Codes:
        length = self.known_layout.length
        row = np.frombuffer(zlib.decompress(chunk), np.int8, 4 * length).reshape(4, length)
        return np.where(row.any(0), row.argmax(0), 4).astype(np.uint8)

    def full_blocks(self) -> int:
        """Blocks before the first that is not full: what a run can go on from."""
        full = self.known_layout.block_rows
        return next((n for n, block in enumerate(self._blocks) if block.rows != full), len(self._blocks))

    def blocks_end(self, n_blocks: int) -> tuple[int, int, int]:
        """(blocks, rows, bytes of the file) up to the end of the first blocks."""
        rows = sum(block.rows for block in self._blocks[:n_blocks])
        end = self._blocks[n_blocks - 1].part_offsets[-1] if n_blocks else self.layout_end
        return n_blocks, rows, end

    def next_row(self, n_blocks: int) -> int:
        """The place, among the windows of the run, that follows everything in the first blocks."""
        if not n_blocks:
            return 0
        facts = decode_facts(self._part(self._blocks[n_blocks - 1], 0))
        rows: list[int] = [*facts["rows"], *(row for row, _ in decode_failures(facts))]
        return max(rows) + 1

    def chunks(self, target: str, dataset: str) -> Iterator[tuple[int, bytes]]:
        """(first row, compressed chunk) of ``raw`` (target ``""``), ``shap``, ``projected_shap``, extra."""
        layout = self.known_layout
        rows_per_chunk = layout.sequence_chunk_rows if dataset == "raw" else layout.score_chunk_rows
        for block in self._blocks:
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

    def _part(self, block: SpoolBlock, part: int) -> bytes:
        start, end = block.part_offsets[part : part + 2]
        self._file.seek(start)
        return self._file.read(end - start)

    def _scan(self) -> None:
        expected = LAYOUT_BLOCK
        while (record := read_record(self._file, expected)) is not None:
            n_rows, lengths = record
            end = self._file.tell()
            offsets = [end - sum(lengths)]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            block = SpoolBlock(self.rows, n_rows, tuple(offsets))
            if expected == LAYOUT_BLOCK:
                self.layout = decode_layout(self._part(block, 0))
                self._file.seek(end)
                self.layout_end = end
            else:
                self._blocks.append(block)
                self.rows += n_rows
            expected += 1
