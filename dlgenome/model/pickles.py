"""PyTorch's pickled files, read without running anything that they contain.

A pickle is a program: loading it normally imports whatever it names and calls it. Here the names are first
listed with an unpickler that imports nothing, and a file with an unexpected one goes no further. The
rest is read by ``torch.load(weights_only=True)``; classes of bpnet-lite and of torch.nn become `Recorded`
objects, which only remember the state that the pickle gives them.
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch

from dlgenome.errors import InputError
from dlgenome.model.files import FileKind

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_BPNETLITE = re.compile(
    r"bpnetlite\.\w+\."
    r"(BPNet|BasePairNet|ChromBPNet|ControlWrapper|CountWrapper|ProfileWrapper|_ProfileLogitScaling|_Exp|_Log|Logger)"
)
_TORCH_LAYER = re.compile(r"torch\.nn\.modules\.\w+\.\w+")
_NUMPY_VALUES = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"}
_TENSORS = re.compile(
    r"collections\.OrderedDict|_codecs\.encode|(__builtin__|builtins)\.(set|bytearray|complex)"
    r"|torch\._utils\._rebuild_\w+|torch\.\w*Storage|torch(\.storage)?\.UntypedStorage"
    r"|torch\.storage\.TypedStorage|torch\.(Size|device|Tensor)|torch\.nn\.parameter\.Parameter"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.serialization\._get_layout"
    r"|torch\.(b?float|u?int|complex|half|double|long|bool)\w*|numpy\.dtypes\.\w+DType"
)
_SETTINGS = re.compile(
    r"pathlib\.(Posix|Windows|Pure\w+)?Path|argparse\.Namespace|typing\.Any|collections\.(defaultdict|Counter)"
    r"|functools\.partial|(__builtin__|builtins)\.(dict|list|tuple|int|float|str|bool)"
)
_CLASS = re.compile(r"(?P<package>\w+)(\.\w+)*\.[A-Z]\w*")
_LIGHTNING_MARK = b"pytorch-lightning_version"


class Recorded:
    """Stands for an object of the pickle; ``origin`` is the class it would have been."""

    origin = ""

    def __new__(cls, *_args: Any, **_keywords: Any) -> Recorded:
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __init__(self, *_args: Any, **_keywords: Any) -> None:
        self.attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes |= dict(state) if isinstance(state, dict) else {}

    @property
    def class_name(self) -> str:
        """Last part of ``origin``."""
        return self.origin.rpartition(".")[2]


def imported_globals(path: Path, kind: FileKind) -> tuple[str, ...]:
    """Names, in order of appearance, of everything that loading the file would import; nothing is."""
    found: dict[str, None] = {}
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
                with archive.open(name) as stream:
                    _GlobalLister(stream, found).load()
        else:
            with path.open("rb") as stream:
                if _GlobalLister(stream, found).load() == _LEGACY_MAGIC:
                    for _part in ("protocol", "system", "contents"):
                        _GlobalLister(stream, found).load()
    except InputError:
        raise
    except Exception as error:
        if not found:  # otherwise the names tell more than the damage does
            raise _damaged(path, error) from error
    return tuple(found)


def refuse_code(path: Path, kind: FileKind, names: Iterable[str]) -> None:
    """Raise InputError if loading a file with these globals could run code.

    In files from before PyTorch 1.6 only tensors are read: they keep classes in a way that torch's safe
    reader does not follow. The settings that Lightning keeps beside the weights may be objects of any
    package: they are recorded, not made.
    """
    names = list(names)
    with_bpnetlite = kind == "zip" and any(_BPNETLITE.fullmatch(name) for name in names)
    foreign = [name for name in names if not _is_harmless(name, with_bpnetlite)]
    if kind == "zip" and all(map(_is_setting, foreign)) and _is_lightning(path):
        return
    if not foreign:
        return
    foreign.sort(key=lambda name: name.startswith(("torch.", "bpnetlite.")))  # strangers first
    listed = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
    raise InputError(
        f"{path} is a Python pickle that would import {listed} and can run any code when it is loaded,"
        " so it was not loaded; save its state_dict instead,"
        " or use --trust-pickle only if you trust where the file comes from."
    )


def read_without_code(path: Path, names: Iterable[str]) -> Any:
    """What the file holds, with `Recorded` in place of every object that is no tensor or plain value.

    ``names`` are the file's globals, already passed by `refuse_code`.
    """
    recorded = [name for name in names if name in _NUMPY_VALUES or not _TENSORS.fullmatch(name)]
    stand_ins = [
        (type(name.rpartition(".")[2], (Recorded,), {"origin": name}), spelling)
        for name in recorded
        for spelling in {name, name.replace("__builtin__.", "builtins.")}  # Python 2 named it so
    ]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _damaged(path, error) from error


def read_with_code(path: Path) -> Any:
    """What the file holds, unpickled by running it: only for files that the user vouches for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise InputError(
            f"{path} needs {error.name or 'a package'}, which cannot be imported here ({error});"
            " install the package that the model was saved with."
        ) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _is_harmless(name: str, with_bpnetlite: bool) -> bool:
    if _TENSORS.fullmatch(name) or name in _NUMPY_VALUES:
        return True
    return with_bpnetlite and bool(_BPNETLITE.fullmatch(name) or _TORCH_LAYER.fullmatch(name))


def _is_setting(name: str) -> bool:
    """Whether this is a class, such as settings are made of, and none of Python's own that can do harm."""
    match = _CLASS.fullmatch(name)
    return bool(_SETTINGS.fullmatch(name)) or (
        match is not None and match["package"] not in sys.stdlib_module_names
    )


def _is_lightning(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
        return _LIGHTNING_MARK in archive.read(name)


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, pickle.UnpicklingError):  # torch's text advises to load it unsafely
        reason = "PyTorch's safe reader refuses it"
    return InputError(
        f"The model file {path} is damaged, cut short or not written by torch.save ({reason});"
        " copy or save it again."
    )


class _GlobalLister(pickle.Unpickler):
    """Walks a pickle and notes the globals it asks for; every one of them is an inert object."""

    def __init__(self, stream: IO[bytes], found: dict[str, None]) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._found = found

    def find_class(self, module_name: str, global_name: str) -> Any:
        self._found[f"{module_name}.{global_name}"] = None
        return _Inert

    def persistent_load(self, identifier: Any) -> Any:
        # before PyTorch 1.6 classes of modules were stored as ("module", class, file, source)
        is_class = isinstance(identifier, tuple) and len(identifier) > 1 and identifier[0] == "module"
        return identifier[1] if is_class else _Inert()


class _Inert:
    """Takes whatever a pickle does to an object, and does nothing."""

    def __new__(cls, *_args: Any, **_keywords: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_keywords: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_keywords: Any) -> _Inert:
        return self

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _value: Any) -> None:
        """Forget the value."""

    def extend(self, _values: Any) -> None:
        """Forget the values."""
