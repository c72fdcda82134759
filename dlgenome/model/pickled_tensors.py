"""Tensors of the files of ``torch.save``, made from the bytes that are stored beside the pickle.

``torch.load`` is not asked: it takes memory for whatever a file claims before it compares the claim with what
is there, and its own unpickler can be kept busy for ever by a few bytes.
"""

from __future__ import annotations

import io
import mmap
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlgenome.guards.archives import open_archive, read_member
from dlgenome.model.pickle_machine import Global, PickleMachine, Readable, Recorded, dictionary, recorded

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""Number that files from before PyTorch 1.6 begin with."""

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class _Claim:
    """What a pickle says about a storage: its name in the file, and how many numbers of which type it has."""

    key: str
    dtype: torch.dtype
    size: int
    view: tuple[int, int] | None = None
    """Where the numbers begin in the storage, and how many there are; old files name parts of storages."""

    @property
    def n_bytes(self) -> int:
        return self.size * self.dtype.itemsize


def read_zip(path: Path) -> Any:
    """What the pickle of a zip file of ``torch.save`` holds."""
    with open_archive(path) as archive:
        name = pickle_of(archive.namelist())
        root = name.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and read_member(archive, f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("its numbers are in the byte order of another kind of processor")
        contents: dict[str, bytearray] = {}

        def storage(identifier: Any) -> Tensor:
            claim = _claim(identifier)
            if claim.key not in contents:
                contents[claim.key] = bytearray(read_member(archive, f"{root}data/{claim.key}"))
            return _numbers(claim, contents[claim.key])

        return PickleMachine(rebuild, storage).run(io.BytesIO(read_member(archive, name)))


def pickle_of(names: list[str]) -> str:
    """The name of the one pickle in an archive of ``torch.save``."""
    found = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1:
        raise pickle.UnpicklingError(f"it holds {len(found)} pickles called data.pkl")
    return found[0]


def read_legacy(path: Path) -> Any:
    """What a file of ``torch.save`` from before PyTorch 1.6 holds: pickles, and then the numbers in a row."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        plain = PickleMachine()
        if plain.run(stream) != LEGACY_MAGIC:
            raise pickle.UnpicklingError("torch.save did not write it")
        _version, system = plain.run(stream), plain.run(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise pickle.UnpicklingError("its numbers are in the byte order of another kind of processor")
        contents = stream.tell()
        claims: dict[str, _Claim] = {}

        def note(identifier: Any) -> Recorded:
            claim = _claim(identifier)
            if claims.setdefault(claim.key, claim).n_bytes != claim.n_bytes:
                raise pickle.UnpicklingError(f"it says two things about the storage {claim.key}")
            return Recorded()

        PickleMachine(persistent=note).run(stream)
        held = _contents_of_legacy(stream, claims)
        stream.seek(contents)
        return PickleMachine(rebuild, lambda identifier: _of_legacy(identifier, held)).run(stream)


def _contents_of_legacy(stream: Readable, claims: dict[str, _Claim]) -> dict[str, bytearray]:
    held = {}
    for key in PickleMachine().run(stream):
        claim = claims[key]
        if int.from_bytes(stream.read(8), "little") != claim.size:
            raise pickle.UnpicklingError(f"the storage {key} is not of the size that it claims")
        held[key] = bytearray(stream.read(claim.n_bytes))
    return held


def _of_legacy(identifier: Any, held: dict[str, bytearray]) -> Tensor:
    claim = _claim(identifier)
    numbers = _numbers(claim, held[claim.key])
    return numbers if claim.view is None else numbers.narrow(0, *claim.view)


def _claim(identifier: Any) -> _Claim:
    """What the identifier of a storage says; any error where it says nothing of the kind."""
    kind, storage, key, _location, size, *rest = identifier
    if kind != "storage" or not isinstance(storage, Global) or storage.name not in _STORAGES:
        raise pickle.UnpicklingError("it names a storage of a kind that holds no plain numbers")
    view = None if not rest or rest[0] is None else (_count(rest[0][1]), _count(rest[0][2]))
    return _Claim(str(key), _STORAGES[storage.name], _count(size), view)


def _numbers(claim: _Claim, content: bytearray) -> Tensor:
    if len(content) != claim.n_bytes:
        raise pickle.UnpicklingError(
            f"the storage {claim.key} claims {claim.n_bytes:,} bytes and has {len(content):,}"
        )
    return torch.frombuffer(content, dtype=claim.dtype) if content else torch.empty(0, dtype=claim.dtype)


def rebuild(name: str, arguments: tuple[Any, ...]) -> Any:
    """What the call of a global stands for: tensors and dictionaries are made, all else is recorded."""
    maker = _MAKERS.get(name)
    return recorded(name, arguments) if maker is None else maker(*arguments)


def _tensor(storage: Tensor, offset: Any, sizes: Any, strides: Any, *_more: Any) -> Tensor:
    """A tensor of a storage, which must hold every number of it."""
    offset, sizes, strides = _count(offset), tuple(map(_count, sizes)), tuple(map(_count, strides))
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if all(sizes) and last >= len(storage):
        raise pickle.UnpicklingError(f"a tensor of the shape {sizes} reaches beyond its storage")
    return storage.as_strided(sizes, strides, offset)


def _tensor_of_bytes(storage: Tensor, *arguments: Any) -> Tensor:
    """A tensor of a storage of bytes: where it lies, whether it has a gradient and hooks, and its type."""
    offset, sizes, strides, _gradient, _hooks, dtype, *_more = arguments
    kind = getattr(torch, dtype.name.removeprefix("torch."), None)
    if not isinstance(kind, torch.dtype):
        raise pickle.UnpicklingError(f"it has tensors of the type {dtype.name}")
    return _tensor(storage.view(kind), offset, sizes, strides)


def _parameter(tensor: Tensor, *_more: Any) -> Tensor:
    return tensor


def _subclass(function: Global, _kind: Any, arguments: tuple[Any, ...], *_more: Any) -> Any:
    return rebuild(function.name, arguments)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return dictionary([part for pair in pairs for part in pair])


def _shape(sizes: Any = ()) -> tuple[int, ...]:
    return tuple(map(_count, sizes))


def _count(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**62:
        raise pickle.UnpicklingError("a size or a place in it is not a whole number")
    return number


_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "collections.OrderedDict": _ordered,
    "torch.Size": _shape,
}
