r"""Reading BED3 to BED12 and narrowPeak, plain or gzip, from a file or standard input.

Works as it stands: comments, ``track`` and ``browser`` lines, blank lines, a byte order mark, CRLF line ends,
duplicate and overlapping rows, scores such as ``1000.0`` or ``.`` (rounded, kept within 0 to 1000).
Refused with ``path:line``: anything that would put a window in another place than the user meant.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dlgenome.errors import InputError
from dlgenome.regions.files import GZIP_MAGIC, refuse_binary, refuse_foreign, refuse_unreadable
from dlgenome.regions.rows import LONGEST_LINE, RowReader
from dlgenome.regions.table import RegionTable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["RegionTable", "read_regions"]

_ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any gzip file may unpack to."""
_LARGEST_RATIO = 200
"""And beyond that, how many times its own size; regions are packed into a fifth or a tenth."""


def read_regions(
    path: Path | str,
    *,
    stdin: BinaryIO | None = None,
    kept: Path | None = None,
    source: str | None = None,
    allow_empty: bool = False,
) -> RegionTable:
    """Every data row of a BED or narrowPeak file, in file order.

    ``"-"`` reads ``stdin``, which is first copied to ``kept`` (or to a temporary file that goes when reading
    ends). ``source`` is what messages call the file. Raises InputError with ``path:line`` for the first row
    that cannot be trusted.
    """
    if str(path) != "-":
        return _read_file(Path(path), source or str(path), allow_empty)
    if stdin is None:
        raise ValueError("read_regions('-') needs the stdin argument")
    with tempfile.TemporaryDirectory(prefix="dlgenome-") as temporary:
        copy = kept or Path(temporary) / "stdin.bed"
        copy.touch(mode=0o600)
        with copy.open("wb") as target:
            shutil.copyfileobj(stdin, target)
        return _read_file(copy, source or "stdin", allow_empty)


def _read_file(path: Path, source: str, allow_empty: bool) -> RegionTable:
    refuse_unreadable(path)
    reader = RowReader(source)
    with path.open("rb", buffering=0) as raw, _Hashing(raw) as hashing, io.BufferedReader(hashing) as packed:
        head = packed.peek(len(GZIP_MAGIC))
        refuse_foreign(head, source)
        if head.startswith(GZIP_MAGIC):
            with closing(gzip.GzipFile(fileobj=packed, mode="rb")) as unpacked:
                _read_gzip_lines(unpacked, reader, hashing)
        else:
            refuse_binary(head, source, "a BED file")
            reader.read_lines(_lines(packed))
        while packed.read(1 << 16):
            pass
        sha256 = hashing.digest.hexdigest()
    if not reader.rows.count and not allow_empty:
        raise InputError(f"{source}: there are no regions in this file; it is empty or holds only comments.")
    reader.report_scores()
    return reader.table(sha256)


def _lines(stream: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """The lines of a stream; what is longer than a line may be comes in pieces that are too long as well."""
    return iter(lambda: stream.readline(LONGEST_LINE + 1), b"")


def _read_gzip_lines(unpacked: gzip.GzipFile, reader: RowReader, packed: _Hashing) -> None:
    try:
        refuse_binary(unpacked.peek(1 << 13), reader.source, "a BED file")
        reader.read_lines(_believable(_lines(unpacked), reader, packed))
    except EOFError:
        raise InputError(
            f"{reader.source}:{reader.line}: the gzip file is cut short after this line; copy it again."
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        where = f"{reader.source}:{reader.line}"
        raise InputError(
            f"{where}: the gzip file is damaged after this line ({error}); copy it again."
        ) from error


def _believable(lines: Iterator[bytes], reader: RowReader, packed: _Hashing) -> Iterator[bytes]:
    """The lines, as long as they are not beyond what regions can be packed into."""
    unpacked = 0
    for line in lines:
        unpacked += len(line)
        if unpacked > _ALWAYS_ALLOWED + _LARGEST_RATIO * packed.size:
            raise InputError(
                f"{reader.source}:{reader.line}: the gzip file unpacks to more than {_LARGEST_RATIO} times"
                " its size, so it is damaged, or made to fill the memory."
            )
        yield line


class _Hashing(io.RawIOBase):
    """A raw file that takes the SHA-256 of every byte on the way, so that pipes are read only once."""

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.digest = hashlib.sha256()
        self.size = 0
        """Bytes read so far."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self.raw.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        self.size += count
        return count
