"""PyTorch's pickled files, read without running anything that they contain.

A pickle is a program: loading it normally imports whatever it names and calls it. Here a machine that imports
nothing first lists the names, and a file with an unexpected one goes no further. The same machine then makes
the tensors; objects of bpnet-lite and of torch.nn become `Recorded`, which only remember the state that the
pickle gives them.
"""

from __future__ import annotations

import io
import mmap
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dlgenome.errors import InputError, first_line
from dlgenome.guards.archives import open_archive, read_member
from dlgenome.model.files import FileKind
from dlgenome.model.pickle_machine import PickleMachine, Recorded
from dlgenome.model.pickled_tensors import LEGACY_MAGIC, pickle_of, read_legacy, read_zip

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
_LONGEST_SHOWN = 100
_LIGHTNING_MARK = b"pytorch-lightning_version"


def imported_globals(path: Path, kind: FileKind) -> tuple[str, ...]:
    """Names, in order of appearance, of everything that loading the file would import; nothing is."""
    machine = PickleMachine(persistent=_class_of_legacy)
    try:
        if kind == "zip":
            with open_archive(path) as archive:
                machine.run(io.BytesIO(read_member(archive, pickle_of(archive.namelist()))))
        else:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
                if machine.run(stream) == LEGACY_MAGIC:
                    for _part in ("protocol", "system", "contents"):
                        machine.run(stream)
    except Exception as error:
        if not machine.names:  # otherwise the names tell more than the damage does
            raise _damaged(path, error) from error
    return tuple(machine.names)


def _class_of_legacy(identifier: Any) -> Any:
    """Before PyTorch 1.6 classes of modules were stored as ("module", class, file, source)."""
    is_class = isinstance(identifier, tuple) and len(identifier) > 1 and identifier[0] == "module"
    return identifier[1] if is_class else Recorded()


def refuse_code(path: Path, kind: FileKind, names: Iterable[str]) -> None:
    """Raise InputError if loading a file with these globals could run code.

    In files from before PyTorch 1.6 only tensors are read: they keep classes in a way that is not
    followed here. The settings that Lightning keeps beside the weights may be objects of any
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
    listed = ", ".join(name[:_LONGEST_SHOWN] for name in foreign[:5]) + (
        f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
    )
    raise InputError(
        f"{path} is a Python pickle that would import {listed} and can run any code when it is loaded,"
        " so it was not loaded; save its state_dict instead,"
        " or use --trust-pickle only if you trust where the file comes from."
    )


def read_without_code(path: Path, kind: FileKind) -> Any:
    """What the file holds, with `Recorded` in place of every object that is no tensor or plain value.

    Its globals have passed `refuse_code`.
    """
    try:
        return read_zip(path) if kind == "zip" else read_legacy(path)
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
    with open_archive(path) as archive:
        return _LIGHTNING_MARK in read_member(archive, pickle_of(archive.namelist()))


def _damaged(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(
        f"The model file {path} is damaged, cut short or not written by torch.save ({first_line(error)});"
        " copy or save it again."
    )
