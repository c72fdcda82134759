"""Zip archives and .npy headers are measured against what they really hold before any of it is taken."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlgenome.errors import InputError
from dlgenome.guards.archives import open_archive, read_member
from dlgenome.guards.arrays import check_npy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "file.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"some words")
        archive.writestr("b", bytes(10**6))
    return tmp_path / "file.zip"


def test_whole_archives_are_read(path: Path) -> None:
    with open_archive(path) as archive:
        assert read_member(archive, "a") == b"some words"
        assert read_member(archive, "b") == bytes(10**6)


def test_archives_that_claim_too_much_are_refused_unless_they_may(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c", bytes(80 * 2**20))
    with pytest.raises(InputError, match=r"claims to hold 84,886,090 bytes in \d+,\d+; it is damaged"):
        open_archive(path).__enter__()
    with open_archive(path, may_shrink=True) as archive:
        assert archive.getinfo("c").file_size == 80 * 2**20


def test_no_more_is_unpacked_than_a_member_claims(path: Path) -> None:
    """A stream of a megabyte under a claim of ten bytes, in both directories of the archive."""
    content = path.read_bytes().replace(struct.pack("<L", 10**6), struct.pack("<L", 10))
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut short or damaged"), open_archive(path) as archive:
        read_member(archive, "b")


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"other words")


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def by_lzma(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("c", b"words")


def overlapping(path: Path) -> None:
    """Every entry of the directory stands for the same packed bytes, which are larger than the file."""
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02")
    bigger = bytearray(content)
    bigger[place + 20 : place + 24] = struct.pack("<L", 10**6)
    path.write_bytes(bigger)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, "holds 'a' twice"),
        (encrypted, "'a' is encrypted"),
        (by_lzma, "'c' is packed by a method that dlgenome does not take"),
        (overlapping, "claims to hold"),
        (cut, "is cut short or damaged"),
    ],
)
def test_odd_archives_are_refused_by_name(path: Path, change: Callable[[Path], None], message: str) -> None:
    change(path)
    with pytest.raises(InputError, match=message):
        open_archive(path).__enter__()


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array))
    return stream.getvalue()


def test_shapes_of_arrays_are_told_without_reading_them() -> None:
    for array in (np.zeros((3, 4)), np.zeros((), np.int8), np.zeros((0, 7), np.float16), np.ones(5, bool)):
        content = npy(array)
        assert check_npy(io.BytesIO(content), len(content)) == array.shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros(3)).replace(b"(3,), ", b"(9**9),"), "malformed"),
        (npy(np.zeros(300)).replace(b"(300,)", b"(900,)"), r"claims the shape \(900,\) of 7,200 bytes"),
        (npy(np.zeros(10)).replace(b"(10,)", b"(-1,)"), r"claims the shape \(-1,\)"),
        (npy(np.zeros(3))[:-1], "claims the shape"),
        (npy(np.array(["a"])), "instead of numbers"),
        (npy(np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])), "instead of numbers"),
        (npy(np.zeros(2, complex)), "instead of numbers"),
        (npy(np.zeros(1, "f8")).replace(b"<f8", b"|O\x20"), "instead of numbers|not a valid"),
        (b"\x93NUMPY\x01\x00", "."),
        (b"something else", "magic"),
    ],
)
def test_arrays_that_are_not_what_they_claim_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_npy(io.BytesIO(content), len(content))
