"""The records of a spool: blocks of bytes with checksums, so that a file cut anywhere shows where it ends.

A record is a head (magic, block number, number of rows, number of parts, a length and a CRC32 for each
part, and a CRC32 of the head itself) followed by the parts. The record with block number -1 comes first and
holds the layout.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict
from typing import Any, BinaryIO

from dlgenome.writers.blocks import BlockLayout

LAYOUT_BLOCK = -1

_MAGIC = b"dlgspool"
_HEAD = struct.Struct("<8siII")
_PART = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MAX_PARTS = 2**20


def encode_layout(layout: BlockLayout) -> bytes:
    """The part of the record with block number -1."""
    return json.dumps(asdict(layout)).encode()


def decode_layout(part: bytes) -> BlockLayout:
    """What ``encode_layout`` put into the part."""
    fields: dict[str, Any] = json.loads(part)
    return BlockLayout(
        length=fields["length"],
        score_dtype=fields["score_dtype"],
        targets=tuple(fields["targets"]),
        hypothetical=tuple(fields["hypothetical"]),
        extras=tuple(fields["extras"]),
    )


def record_head(block: int, n_rows: int, parts: list[bytes]) -> bytes:
    """What comes before the parts of a block."""
    head = _HEAD.pack(_MAGIC, block, n_rows, len(parts))
    head += b"".join(_PART.pack(len(part), zlib.crc32(part)) for part in parts)
    return head + _CRC.pack(zlib.crc32(head))


def read_record(file: BinaryIO, expected: int) -> tuple[int, list[int]] | None:
    """(rows, part lengths) of the record at the file's position, which moves on; None if it is damaged."""
    head = read_head(file, expected)
    if head is None:
        return None
    n_rows, lengths, crcs = head
    for length, part_crc in zip(lengths, crcs, strict=True):
        part = file.read(length)
        if len(part) != length or zlib.crc32(part) != part_crc:
            return None
    return n_rows, lengths


def read_head(file: BinaryIO, expected: int) -> tuple[int, list[int], list[int]] | None:
    """(rows, part lengths, part checksums); the file's position moves to the parts. None if it is damaged."""
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
    parts = list(_PART.iter_unpack(table))
    return n_rows, [length for length, _ in parts], [part_crc for _, part_crc in parts]
