"""What kind of file this is, told from its first bytes and never from its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dlgenome.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
UTF8_MARK = b"\xef\xbb\xbf"
_UNSUPPORTED = {
    b"PK\x03\x04": (
        "a zip archive, as PyTorch files are, too",
        "check that it is the right file, or unzip it",
    ),
    b"BZh": ("compressed with bzip2", "unpack it with bunzip2"),
    b"\xfd7zXZ\x00": ("compressed with xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it with unzstd"),
    b"\xff\xfe": ("UTF-16 text", "save it as plain text (UTF-8)"),
    b"\xfe\xff": ("UTF-16 text", "save it as plain text (UTF-8)"),
}


def refuse_unreadable(path: Path) -> os.stat_result:
    """The status of a file that exists and may be read; InputError says what is in the way otherwise."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder; give the file itself.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: you may not read this file; ask its owner for read permission.")
    return status


def refuse_foreign(head: bytes, source: str) -> None:
    """Raise InputError when the first bytes belong to a format that nothing here reads."""
    for magic, (what, remedy) in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise InputError(f"{source}: is {what}; {remedy} first.")


def refuse_binary(head: bytes, source: str, wanted: str) -> None:
    """Raise InputError when what should be text is not, or ends its lines as no program here expects."""
    if b"\0" in head:
        raise InputError(f"{source}: is a binary file, not {wanted}; check that it is the right file.")
    if b"\r" in head and b"\n" not in head:
        raise InputError(
            f"{source}: lines end in a lone carriage return; convert the file with tr '\\r' '\\n'."
        )
