"""The spool: finished rows, safe on disk within seconds, from which the final files are made once at the end.

A record is a head (magic, block number, number of rows, number of parts, a length and a CRC32 for each
part, and a CRC32 of the head itself) followed by the parts. The record with block number -1 comes first and
holds the layout. A reader stops at the first record that is not whole, so a spool that was cut anywhere
loses at most its last block.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from dlgenome.errors import UsageError
from dlgenome.types import ScoredWindow
from dlgenome.writers.blocks import (
    BlockLayout,
    Facts,
    ScoreDtype,
    decode_facts,
    encode_block,
    layout_of,
)
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.paths import OutputPaths

SYNC_SECONDS = 5.0

_MAGIC = b"dlgspool"
_HEAD = struct.Struct("<8siII")
_PART = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_LAYOUT_BLOCK = -1
_MAX_PARTS = 2**20


class Spool:
    """Takes finished rows in order; compresses them in worker threads and keeps them in ``PREFIX.partial``.

    Rows reach the disk in blocks of a fixed number of rows, synced at least every five seconds while rows
    arrive.
    """

    def __init__(self, paths: OutputPaths, *, score_dtype: ScoreDtype = "float32", threads: int = 2) -> None:
        self.paths = paths
        self.score_dtype = score_dtype
        self.rows = 0
        self._threads = max(1, threads)
        self._layout: BlockLayout | None = None
        self._waiting: list[ScoredWindow] = []
        self._encoding: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._blocks = 0
        self._last_sync = time.monotonic()
        with clear_write_errors(paths.spool):
            self._file = paths.spool.open("xb")
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="dlgenome-spool")

    def append(self, rows: Sequence[ScoredWindow]) -> None:
        """Add the next rows; returns when they are taken over, and waits while too much is unwritten.

        An empty list is welcome: it gives the spool a chance to sync what it has.
        Raises Interrupted when the disk is full and InputError for scores that cannot be stored.
        """
        for row in rows:
            layout = self._layout or self._begin(row)
            self._check(row, layout)
            self._waiting.append(row)
            self.rows += 1
            if len(self._waiting) == layout.block_rows:
                self._encode_waiting(layout)
        overdue = time.monotonic() - self._last_sync > SYNC_SECONDS
        self._write_encoded(0 if overdue else 2 * self._threads)
        if overdue:
            self._sync()

    def close(self) -> None:
        """Write what is left, the last block perhaps a short one, and sync; may be called twice."""
        if self._file.closed:
            return
        try:
            if self._waiting and self._layout is not None:
                self._encode_waiting(self._layout)
            self._write_encoded(0)
            self._sync()
        finally:
            self._pool.shutdown(cancel_futures=True)
            with clear_write_errors(self.paths.spool):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, first: ScoredWindow) -> BlockLayout:
        layout = layout_of(first, self.paths.targets, self.score_dtype)
        if "npz" in self.paths.formats and not all(layout.hypothetical):
            raise UsageError(
                "npz files hold hypothetical contributions and this method has none; drop npz from --formats."
            )
        if layout.extras != tuple(sorted(self.paths.extras)):
            raise ValueError(f"the scores hold {layout.extras} and the output paths name {self.paths.extras}")
        self._layout = layout
        self._write(_LAYOUT_BLOCK, 0, [json.dumps(asdict(layout)).encode()])
        return layout

    def _check(self, row: ScoredWindow, layout: BlockLayout) -> None:
        if row.row != self.rows:
            raise ValueError(f"row {row.row} came where row {self.rows} was due")
        if not layout.fits(row):
            raise ValueError(f"row {row.row} has another length or other scores than the rows before it")

    def _encode_waiting(self, layout: BlockLayout) -> None:
        rows, self._waiting = self._waiting, []
        self._encoding.append((len(rows), self._pool.submit(encode_block, layout, rows)))
        self._write_encoded(2 * self._threads)

    def _write_encoded(self, allowed_unwritten: int) -> None:
        """Write the encoded blocks, in order; wait for them while more than allowed are unwritten."""
        try:
            while self._encoding and (len(self._encoding) > allowed_unwritten or self._encoding[0][1].done()):
                n_rows, parts = self._encoding.popleft()
                self._write(self._blocks, n_rows, parts.result())
                self._blocks += 1
        except BaseException:  # a block is missing: nothing that comes after it may be written
            self._encoding.clear()
            self._waiting.clear()
            raise

    def _write(self, block: int, n_rows: int, parts: list[bytes]) -> None:
        with clear_write_errors(self.paths.spool):
            self._file.write(_head(block, n_rows, parts))
            self._file.writelines(parts)

    def _sync(self) -> None:
        with clear_write_errors(self.paths.spool):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._last_sync = time.monotonic()


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
        self.good_bytes = 0
        """Length of the file up to the first damaged record."""
        self._blocks: list[SpoolBlock] = []
        self._file = path.open("rb")
        self._scan()

    def blocks(self) -> Iterator[tuple[SpoolBlock, Facts]]:
        """Each block with the facts about its rows, in order."""
        for block in self._blocks:
            yield block, decode_facts(self._part(block, 0))

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
        expected = _LAYOUT_BLOCK
        while (record := _read_record(self._file, expected)) is not None:
            n_rows, lengths = record
            end = self._file.tell()
            offsets = [end - sum(lengths)]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            block = SpoolBlock(self.rows, n_rows, tuple(offsets))
            if expected == _LAYOUT_BLOCK:
                self.layout = _decode_layout(self._part(block, 0))
                self._file.seek(end)
            else:
                self._blocks.append(block)
                self.rows += n_rows
            self.good_bytes = end
            expected += 1


def _decode_layout(part: bytes) -> BlockLayout:
    fields: dict[str, Any] = json.loads(part)
    return BlockLayout(
        length=fields["length"],
        score_dtype=fields["score_dtype"],
        targets=tuple(fields["targets"]),
        hypothetical=tuple(fields["hypothetical"]),
        extras=tuple(fields["extras"]),
    )


def _head(block: int, n_rows: int, parts: list[bytes]) -> bytes:
    head = _HEAD.pack(_MAGIC, block, n_rows, len(parts))
    head += b"".join(_PART.pack(len(part), zlib.crc32(part)) for part in parts)
    return head + _CRC.pack(zlib.crc32(head))


def _read_record(file: BinaryIO, expected: int) -> tuple[int, list[int]] | None:
    """(rows, part lengths) of the record at the file's position, which moves on; None if it is damaged."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, block, n_rows, n_parts = _HEAD.unpack(head)
    if magic != _MAGIC or block != expected or n_parts > _MAX_PARTS:
        return None
    table = file.read(n_parts * _PART.size)
    crc = file.read(_CRC.size)
    if len(crc) < _CRC.size or _CRC.unpack(crc)[0] != zlib.crc32(head + table):
        return None
    lengths = []
    for length, part_crc in _PART.iter_unpack(table):
        part = file.read(length)
        if len(part) != length or zlib.crc32(part) != part_crc:
            return None
        lengths.append(length)
    return n_rows, lengths
