"""Opening a FASTA file through its index, which is checked, and built without disturbing parallel jobs."""

from __future__ import annotations

import bisect
import logging
import os
import struct
import tempfile
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyfaidx
from Bio import bgzf

from dlgenome.errors import InputError, first_line
from dlgenome.regions.files import (
    GZIP_MAGIC,
    UTF8_MARK,
    refuse_binary,
    refuse_foreign,
    refuse_unreadable,
)

logger = logging.getLogger(__name__)

READ_ERRORS = (
    OSError, ValueError, EOFError, RuntimeError, IndexError, KeyError, ArithmeticError, zlib.error,
    struct.error,
)  # fmt: skip
"""What pyfaidx and Biopython raise on files that are damaged, cut or gone."""

_HEAD = 1 << 13
_BGZF_START = bytes.fromhex("1f8b0804")
_BLOCK_HEAD = 18
_SMALLEST_BLOCK = 28
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_TAIL = 1 << 12
_LONGEST_HEADER = 1 << 20
_ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that any bgzip file may unpack to."""
_LARGEST_RATIO = 200
"""And beyond that, how many times its own size; genomes are packed into a quarter."""


def open_indexed(path: Path) -> pyfaidx.Faidx:
    """An open FASTA file whose index is in memory; InputError says what is wrong with the file.

    A current index beside the file is used. A missing, older or contradicting one is built in a temporary
    folder beside the file and renamed into place; where the folder may not be written it is built elsewhere
    and forgotten.
    """
    is_bgzf = _check_container(path)
    with tempfile.TemporaryDirectory(prefix="dlgenome-") as private:
        readable = _with_expected_suffix(path, is_bgzf, Path(private))
        ready = _open_existing(path, readable, is_bgzf)
        if ready is not None:
            return ready
        beside = _folder_beside(path)
        if beside is None:
            logger.info(
                "%s: building the index, which cannot be kept because its folder may not be written; "
                "a copy or a link of the file in a folder of yours keeps it.",
                path,
            )
            return _build(path, readable, Path(private))
        logger.info("%s: building the index.", path)
        with beside as folder:
            built = _build(path, readable, Path(folder))
            _publish(path, Path(folder))
            return built


def _check_container(path: Path) -> bool:
    """Whether the file is BGZF; InputError for everything that is neither that nor plain FASTA."""
    size = refuse_unreadable(path).st_size
    if not path.is_file():
        raise InputError(
            f"{path}: is a pipe or device; FASTA is read out of order, so save it to a file first."
        )
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        stream.seek(max(size - len(_BGZF_END), 0))
        tail = stream.read()
    if not head.strip():
        raise InputError(f"{path}: there are no sequences in this file; it is empty.")
    refuse_foreign(head, str(path))
    if head.startswith(GZIP_MAGIC):
        return _check_bgzf(path, head, tail)
    if head.startswith(UTF8_MARK):
        raise InputError(
            f"{path}: begins with a byte order mark that no FASTA index allows; remove it with "
            "sed -i '1s/^\\xEF\\xBB\\xBF//'."
        )
    refuse_binary(head, str(path), "FASTA")
    if not head.lstrip().startswith((b">", b";")):
        raise InputError(
            f"{path}:1: FASTA begins with a line like '>chr1', this file does not; check the file."
        )
    return False


def _check_bgzf(path: Path, head: bytes, tail: bytes) -> bool:
    has_extra_field = len(head) > 14 and bool(head[3] & 4)
    if not has_extra_field or head[12:14] != b"BC":
        raise InputError(
            f"{path}: is compressed with gzip, which cannot be read out of order; "
            f"use gunzip, or recompress it with bgzip (gunzip -c FILE.gz | bgzip > FILE.bgz)."
        )
    if tail != _BGZF_END:
        raise InputError(f"{path}: the bgzip file is cut short (its end mark is missing); copy it again.")
    return True


def _with_expected_suffix(path: Path, is_bgzf: bool, folder: Path) -> Path:
    """The path, or a link to it: pyfaidx tells compression from the name, we tell it from the content."""
    if is_bgzf == path.name.lower().endswith((".gz", ".bgz")):
        return path
    link = folder / ("linked.fa.gz" if is_bgzf else "linked.fa")
    link.symlink_to(path.absolute())
    return link


def _index_paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".fai"), path.with_name(path.name + ".gzi")


def _open_existing(path: Path, readable: Path, is_bgzf: bool) -> pyfaidx.Faidx | None:
    """The file opened with the index beside it, or None where that is missing, older or contradicts it."""
    fai, gzi = _index_paths(path)
    needed = (fai, gzi) if is_bgzf else (fai,)
    try:
        modified = path.stat().st_mtime_ns
        if any(index.stat().st_mtime_ns < modified for index in needed):
            logger.info("%s: the index is older than the file.", path)
            return None
        opened = pyfaidx.Faidx(
            readable, indexname=fai, gzi_indexname=gzi, as_raw=True, build_index=False, rebuild=False
        )
    except READ_ERRORS:
        return None
    if _index_matches(opened):
        return opened
    opened.close()
    logger.info("%s: the index does not belong to the file.", path)
    return None


def _index_matches(opened: pyfaidx.Faidx) -> bool:
    """Whether every header ends where its bases begin, and the file ends with the last record."""
    try:
        for name, record in opened.index.items():
            if not 0 < record.offset - record.prev_bend <= _LONGEST_HEADER:
                return False
            if record.rlen < 0 or not 0 <= record.lenb - record.lenc <= len(b"\r\n"):
                return False
            header = _bytes_at(opened, record.prev_bend, record.offset - record.prev_bend)
            words = header.split()
            one_line = header.endswith(b"\n") and b"\n" not in header.strip()
            if not one_line or words[0] != b">" + name.encode() or (record.rlen and not record.lenc):
                return False
        if not opened.index:
            return False
        last = next(reversed(opened.index.values()))
        # The last line may lack its line end; after it only blank lines may follow.
        tail = _bytes_at(opened, last.bend - (last.lenb - last.lenc) - 1, _TAIL)
        return bool(tail[:1].strip()) and not tail[1:].strip()
    except READ_ERRORS:
        return False


def read_bases(opened: pyfaidx.Faidx, name: str, start: int, end: int) -> bytes:
    """The letters of a stretch that lies inside the record, without line ends; short when the file is cut.

    The index gives the place, and the bytes are read here: pyfaidx 0.9.2 cannot fetch a stretch that begins
    with a 64 KiB block of a bgzip file.
    """
    record = opened.index[name]
    first, last = (
        record.offset + at // record.lenc * record.lenb + at % record.lenc for at in (start, end - 1)
    )
    return _bytes_at(opened, first, last + 1 - first).translate(None, b"\r\n")


def _bytes_at(opened: pyfaidx.Faidx, start: int, size: int) -> bytes:
    """Up to ``size`` bytes of the uncompressed file from ``start``."""
    blocks = getattr(opened, "gzi_index", None)
    if blocks is None:
        opened.file.seek(start)
    else:
        block = blocks[bisect.bisect_right(blocks, start, key=lambda block: int(block.ustart)) - 1]
        opened.file.seek(bgzf.make_virtual_offset(block.cstart, start - block.ustart))  # type: ignore[no-untyped-call]
    return bytes(opened.file.read(size))


def _folder_beside(path: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A new temporary folder in the folder of the FASTA file, or None where that must not be written.

    A folder without any write bit is left alone even by root, who could write there.
    """
    parent = path.absolute().parent
    try:
        if not parent.stat().st_mode & 0o222 or not os.access(parent, os.W_OK):
            return None
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=parent)
    except OSError:
        return None


def _build(path: Path, readable: Path, folder: Path) -> pyfaidx.Faidx:
    """The file opened with an index newly built in ``folder``."""
    if readable.name.lower().endswith((".gz", ".bgz")):
        _check_blocks(path)
    fai, gzi = folder / "index.fai", folder / "index.gzi"
    try:
        return pyfaidx.Faidx(readable, indexname=fai, gzi_indexname=gzi, as_raw=True)
    except pyfaidx.FastaIndexingError as error:
        raise InputError(f"{path}: {_without_path(str(error), readable)}") from error
    except READ_ERRORS as error:
        repeated = _repeated_name(fai)
        if repeated:
            raise InputError(
                f"{path}: two records are called {repeated!r}; give every sequence a name of its own."
            ) from None
        raise InputError(
            f"{path}: could not be indexed ({first_line(error)}); check or copy the file again."
        ) from error


def _check_blocks(path: Path) -> None:
    """Raise InputError where the blocks of a bgzip file do not follow each other or unpack to too much.

    Biopython, which reads them, takes their sizes as they are.
    """
    size, place, unpacked = path.stat().st_size, 0, 0
    with path.open("rb") as stream:
        while place < size:
            stream.seek(place)
            head = stream.read(_BLOCK_HEAD)
            block = int.from_bytes(head[16:18], "little") + 1
            if not head.startswith(_BGZF_START) or head[10:14] != b"\6\0BC" or block < _SMALLEST_BLOCK:
                raise InputError(f"{path}: the bgzip file is damaged at byte {place}; copy it again.")
            place += block
            stream.seek(place - 4)
            unpacked += int.from_bytes(stream.read(4), "little")
            if place > size or unpacked > _ALWAYS_ALLOWED + _LARGEST_RATIO * size:
                raise InputError(
                    f"{path}: the bgzip file unpacks to more than {_LARGEST_RATIO} times its size or is cut"
                    " short; it is damaged, or made to fill the memory."
                )


def _without_path(message: str, readable: Path) -> str:
    remedy = "wrap every line of a record at one width, for example with seqkit seq -w 60"
    if "Line length" in message:
        where = message.rsplit(">", 1)[-1].rstrip(".")
        return f"lines of different length in record {where}; {remedy}."
    return message.replace(str(readable), "this file")


def _repeated_name(fai: Path) -> str | None:
    with suppress(OSError), fai.open() as lines:
        counts = Counter(line.split("\t", 1)[0] for line in lines)
        return next((name for name, count in counts.items() if count > 1), None)
    return None


def _publish(path: Path, folder: Path) -> None:
    """Rename the new index into place; a job that cannot goes on with the one in memory."""
    fai, gzi = _index_paths(path)
    for made, final in ((folder / "index.gzi", gzi), (folder / "index.fai", fai)):
        if made.exists():
            try:
                made.replace(final)
            except OSError as error:
                logger.warning("%s: the index could not be saved (%s).", final, error.strerror)
