"""Zip archives, whose claims about themselves are checked before any of them is believed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlgenome.errors import InputError, first_line

ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, NotImplementedError, OSError,
    OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What Python's zip reader raises on archives that are damaged, encrypted or of an odd kind."""

ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that an archive may claim to hold however small it is."""
LARGEST_RATIO = 20
"""How many times its own size an archive may claim beyond that; weights and programs barely shrink."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def open_archive(path: Path, *, may_shrink: bool = False) -> Iterator[zipfile.ZipFile]:
    """The archive, open for reading, in which every name stands once and no size is beyond belief.

    With ``may_shrink`` members may be as large as they like; the caller looks at their sizes. Raises
    InputError for an archive that is damaged or that claims too much.
    """
    try:
        archive = zipfile.ZipFile(path)
    except ARCHIVE_ERRORS as error:
        raise _damaged(path, error) from error
    with archive:
        _check_members(path, archive.infolist(), may_shrink)
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; never more than it claims, whatever its compressed stream would give.

    Raises InputError where it is damaged, and KeyError where there is none of the name.
    """
    member = archive.getinfo(name)
    try:
        with archive.open(member) as stream:
            content = stream.read(member.file_size)
            if len(content) != member.file_size or stream.read(1):
                raise zipfile.BadZipFile(f"{name} is not of the size that it claims")
    except ARCHIVE_ERRORS as error:
        raise _damaged(archive.filename, error) from error
    return content


def _damaged(path: Path | str | None, error: Exception) -> InputError:
    return InputError(f"{path} is cut short or damaged ({first_line(error)}); copy or download it again.")


def _check_members(path: Path, members: list[zipfile.ZipInfo], may_shrink: bool) -> None:
    size = path.stat().st_size
    seen: set[str] = set()
    for member in members:
        name = repr(member.filename)
        if member.filename in seen:
            raise InputError(f"{path} holds {name} twice, so what it means is not certain; make it again.")
        seen.add(member.filename)
        if member.flag_bits & 1:
            raise InputError(f"{path}: {name} is encrypted; make the file without a password.")
        if member.compress_type not in _METHODS:
            raise InputError(
                f"{path}: {name} is packed by a method that dlgenome does not take; repack it with deflate."
            )
    if members and all(member.header_offset for member in members):
        raise InputError(
            f"{path} is cut short or damaged: another zip archive ends it than begins it; copy it again."
        )
    claimed = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    too_much = not may_shrink and claimed > ALWAYS_ALLOWED + LARGEST_RATIO * size
    if packed > size or too_much:
        raise InputError(
            f"{path} claims to hold {claimed:,} bytes in {size:,}; it is damaged, or made to fill the memory."
        )
