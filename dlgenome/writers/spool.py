"""The spool: finished rows, safe on disk within seconds, from which the final files are made once at the end.

Its records (``records.py``) are read back up to the first that is not whole, so a spool that was cut anywhere
loses at most its last blocks, and a run goes on from there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Self

from dlgenome.errors import InputError, Interrupted, UsageError
from dlgenome.types import FailedWindow, ScoredWindow
from dlgenome.writers.blocks import BlockLayout, encode_block
from dlgenome.writers.disk import clear_write_errors
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.records import LAYOUT_BLOCK, encode_layout, record_head
from dlgenome.writers.spool_reader import SpoolReader

logger = logging.getLogger(__name__)

SYNC_SECONDS = 5.0


class Spool:
    """Takes finished rows in order; compresses them in worker threads and keeps them in ``PREFIX.partial``.

    Rows reach the disk in blocks of a fixed number of rows, synced at least every five seconds while rows
    arrive.
    """

    def __init__(
        self, paths: OutputPaths, layout: BlockLayout, *, threads: int = 2, resume_blocks: int | None = None
    ) -> None:
        """Begin a spool, or go on behind the first ``resume_blocks`` blocks of the one that is there.

        Raises UsageError for npz files of a method that has no hypothetical contributions.
        """
        _check_layout(paths, layout)
        self.paths = paths
        self.layout = layout
        self.rows = 0
        """Rows taken over; windows that failed are not among them."""
        self.next_row = 0
        """Place, among the windows of the run, of the one that is due."""
        self.resumed_rows = 0
        """Rows that were there when it was opened."""
        self._threads = max(1, threads)
        self._waiting: list[ScoredWindow] = []
        self._failed: list[FailedWindow] = []
        self._encoding: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._blocks = 0
        self._last_sync = time.monotonic()
        self._open(resume_blocks)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="dlgenome-spool")

    def append(self, rows: Sequence[ScoredWindow | FailedWindow]) -> None:
        """Add the next windows; returns when they are taken over, and waits while too much is unwritten.

        An empty list is welcome: it gives the spool a chance to sync what it has.
        Raises Interrupted when the disk is full and InputError for scores that cannot be stored.
        """
        for row in rows:
            self._take(row)
            if len(self._waiting) == self.layout.block_rows:
                self._encode_waiting()
        overdue = time.monotonic() - self._last_sync > SYNC_SECONDS
        self._write_encoded(0 if overdue else 2 * self._threads)
        if overdue:
            self._sync()

    def close(self) -> None:
        """Write what is left, the last block perhaps a short one, and sync; may be called twice."""
        if self._file.closed:
            return
        try:
            if self._waiting or self._failed:
                self._encode_waiting()
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
        """Close; what ended the run is not hidden behind the same disk's refusal of the last rows."""
        try:
            self.close()
        except Interrupted as problem:
            if not isinstance(error, Interrupted):
                raise
            if str(problem).rstrip(".") not in str(error):
                logger.warning("%s", problem)

    def _open(self, resume_blocks: int | None) -> None:
        with clear_write_errors(self.paths.spool):
            if resume_blocks is None:
                self._file: BinaryIO = self.paths.spool.open("wb")
                self._write(LAYOUT_BLOCK, 0, [encode_layout(self.layout)])
                return
            with SpoolReader(self.paths.spool) as reader:
                self._blocks, self.rows, end = reader.blocks_end(resume_blocks)
                self.next_row, self.resumed_rows = reader.next_row(resume_blocks), self.rows
            self._file = self.paths.spool.open("r+b")
            self._file.truncate(end)
            self._file.seek(end)

    def _take(self, row: ScoredWindow | FailedWindow) -> None:
        if row.row != self.next_row:
            raise ValueError(f"row {row.row} came where row {self.next_row} was due")
        if isinstance(row, FailedWindow):
            self._failed.append(row)
        elif self.layout.fits(row):
            self._waiting.append(row)
            self.rows += 1
        else:
            raise ValueError(f"row {row.row} has another length or other scores than the rows before it")
        self.next_row += 1

    def _encode_waiting(self) -> None:
        rows, failed = self._waiting, self._failed
        self._waiting, self._failed = [], []
        self._encoding.append((len(rows), self._pool.submit(encode_block, self.layout, rows, failed)))
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
            self._failed.clear()
            raise

    def _write(self, block: int, n_rows: int, parts: list[bytes]) -> None:
        """One record, handed to the system at once: a killed process loses nothing that was written."""
        with clear_write_errors(self.paths.spool):
            self._file.write(record_head(block, n_rows, parts))
            self._file.writelines(parts)
            self._file.flush()

    def _sync(self) -> None:
        with clear_write_errors(self.paths.spool):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._last_sync = time.monotonic()


def resumable_blocks(paths: OutputPaths, layout: BlockLayout) -> int:
    """Full blocks in the spool of an unfinished run; raises InputError for a spool of another layout."""
    with SpoolReader(paths.spool) as reader:
        if reader.layout is None:
            return 0
        if reader.layout != layout:
            raise InputError(
                f"{paths.spool} holds other scores than this run makes; start anew with --overwrite."
            )
        return reader.full_blocks()


def _check_layout(paths: OutputPaths, layout: BlockLayout) -> None:
    if "npz" in paths.formats and not all(layout.hypothetical):
        raise UsageError(
            "npz files hold hypothetical contributions and this method has none; drop npz from --formats."
        )
    if layout.extras != tuple(sorted(paths.extras)):
        raise ValueError(f"the scores hold {layout.extras} and the output paths name {paths.extras}")
