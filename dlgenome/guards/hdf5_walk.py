"""Walks HDF5 files in a process of its own, which a damaged file may crash, fill or keep busy for ever.

The library follows addresses that stand in the file: a damaged one can send it round in circles inside a
single call, or out of its memory. So `dlgenome.guards.hdf5` lets this process, with limits on its processor
time and memory, follow all of them first: every link, attribute and index of chunks. What it survives, the
caller may do as well.
"""

from __future__ import annotations

import io
import json
import math
import resource
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, cast

import h5py

from dlgenome.errors import first_line

MEMORY = 2 * 2**30
"""Bytes of address space beyond what the process has when it starts."""
LARGEST_ATTRIBUTE = 16 * 2**20
LARGEST_CHUNK = 256 * 2**20
ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that a dataset may claim however few it has."""
LARGEST_RATIO = 1100
"""How many times its stored bytes a dataset may claim beyond that; deflate cannot shrink further."""

_DEFLATE = h5py.h5z.FILTER_DEFLATE
_EXPANSION = 1032
"""The most that one byte of a deflate stream can stand for."""


class Refused(Exception):  # noqa: N818 - not an error of the program
    """What is wrong with the file, in words that follow its name."""


def main() -> None:
    """Answer one line of JSON on stdout for each on stdin: what is wrong with the file, or null."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = _address_space()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _limit(resource.RLIMIT_CPU, math.ceil(spent + request["cpu_seconds"]))
        _limit(resource.RLIMIT_AS, before + MEMORY + request["size"])
        print(json.dumps(_answer(request["path"], request["member"])), flush=True)


def _answer(path: str, member: str | None) -> str | None:
    try:
        if member is None:
            walk(h5py.File(path, "r", locking="best-effort"))
        else:
            with zipfile.ZipFile(path) as archive:
                walk(h5py.File(io.BytesIO(archive.read(member)), "r"))
    except Refused as problem:
        return str(problem)
    except Exception as error:
        return f"is damaged or cut short ({first_line(error)})"
    return None


def walk(file: h5py.File) -> None:
    """Visit everything in the file and close it; Refused or an error of h5py where something is wrong."""
    with file:
        _check_attributes(file)
        for item in _objects(file):
            _check_attributes(item)
            if isinstance(item, h5py.Dataset):
                _check_dataset(item)


def _objects(root: h5py.Group) -> Iterator[Any]:
    """Every object but the root, once, however many names it has."""
    seen = {_address(root)}
    waiting = [root]
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refused(f"has a link to another file at {name!r}, which is not followed")
            if isinstance(link, h5py.SoftLink):
                continue
            item = group[name]
            if _address(item) not in seen:
                seen.add(_address(item))
                yield item
                waiting += [item] if isinstance(item, h5py.Group) else []


def _address(item: Any) -> int:
    return cast(int, h5py.h5o.get_info(item.id).addr)


def _check_attributes(item: Any) -> None:
    for name in item.attrs:
        attribute = h5py.h5a.open(item.id, name.encode("utf-8", "surrogateescape"))
        claimed = math.prod(attribute.shape) * attribute.dtype.itemsize
        if claimed > LARGEST_ATTRIBUTE:
            raise Refused(f"claims {claimed:,} bytes for the attribute {name!r} of {item.name}")
        item.attrs[name]


def _check_dataset(dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise Refused(f"keeps the numbers of {dataset.name} in another file, which is not read")
    if dataset.shape is None:
        return
    claimed, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if claimed > ALWAYS_ALLOWED + LARGEST_RATIO * stored:
        raise Refused(f"claims {claimed:,} bytes for {dataset.name} and holds {stored:,} of them")
    if dataset.chunks is not None:
        _check_chunks(dataset)


def _check_chunks(dataset: h5py.Dataset) -> None:
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk > LARGEST_CHUNK:
        raise Refused(f"stores {dataset.name} in chunks of {chunk:,} bytes, more than are taken at once")
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(position)[0] for position in range(creation.get_nfilters())]
    if filters.count(_DEFLATE) > 1:
        raise Refused(f"compresses {dataset.name} twice")
    found = list[tuple[tuple[int, ...], int]]()
    if hasattr(dataset.id, "chunk_iter"):  # HDF5 before 1.12.3 has no such call
        dataset.id.chunk_iter(lambda info: found.append((info.chunk_offset, info.size)))
    else:
        dataset.id.get_num_chunks()
    for offset, size in found:
        if size > chunk + chunk // 8 + 4096:
            raise Refused(f"claims {size:,} bytes for a chunk of {dataset.name}, which has {chunk:,}")
        if filters and size * _EXPANSION > LARGEST_CHUNK:
            _check_expansion(dataset, offset, chunk, filters)


def _check_expansion(dataset: h5py.Dataset, offset: tuple[int, ...], chunk: int, filters: list[int]) -> None:
    """Refuse a chunk that unpacks to more than it should: the library would take whatever comes."""
    mask, packed = dataset.id.read_direct_chunk(offset)
    if _DEFLATE not in filters or mask >> filters.index(_DEFLATE) & 1:
        return
    stream, size = zlib.decompressobj(), 0
    while packed and not stream.eof:
        size += len(stream.decompress(packed, 2**20))
        packed = stream.unconsumed_tail
        if size > chunk + chunk // 8 + 4096:
            raise Refused(f"has a chunk of {dataset.name} that unpacks to more than its {chunk:,} bytes")


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as status:  # noqa: PTH123 - pathlib is not needed here
            return int(status.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit(what: int, value: int) -> None:
    """Lower the soft limit, as far as the hard one allows; systems without it go unlimited."""
    _, hard = resource.getrlimit(what)
    try:
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    except (OSError, ValueError):
        return
