"""What kind of file a checkpoint is, told from its bytes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dlgenome.errors import InputError
from dlgenome.guards.archives import open_archive

FileKind = Literal["zip", "legacy", "safetensors", "pt2", "torchscript", "keras"]

READABLE = (
    "dlgenome reads PyTorch state_dict, safetensors, Lightning .ckpt, torch.export .pt2, bpnet-lite .torch"
    " and Keras .h5 and .keras files"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST_HEADER = 100_000_000  # the limit of the safetensors format


def identify(path: Path) -> FileKind:
    """Kind of the file: safetensors, of torch.save (zip, or before PyTorch 1.6), pt2, TorchScript, Keras.

    Raises InputError that says what the file is where it is something else.
    """
    head = _head(path)
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if _looks_like_safetensors(head):  # before pickles: the size of its header may begin as these do
        return "safetensors"
    if head.startswith(b"\x80"):
        return "legacy"
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"{path} is a Git LFS pointer, not the model itself; fetch the model with `git lfs pull`."
        )
    if _is_text(head):
        raise InputError(f"{path} is a text file, not a model; {READABLE}.")
    raise InputError(f"{path} is not a model file that dlgenome knows; {READABLE}.")


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a model file; {READABLE}.")
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except FileNotFoundError:
        raise InputError(f"There is no model file {path}.") from None
    except OSError as error:
        raise InputError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if not head:
        raise InputError(f"The model file {path} is empty.")
    return head


def _kind_of_zip(path: Path) -> FileKind:
    with open_archive(path) as archive:
        names = archive.namelist()
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in leaves:
        return "torchscript"
    if any(name.endswith("models/model.json") for name in names):
        return "pt2"
    if "serialized_exported_program.json" in leaves:
        raise InputError(
            f"{path} was exported by torch before 2.8, in a form that dlgenome does not read;"
            " export it again with torch 2.8 or later."
        )
    if "model.weights.h5" in leaves:
        return "keras"
    if "data.pkl" not in leaves:
        raise InputError(f"{path} is a zip file that torch.save did not write; {READABLE}.")
    return "zip"


def _looks_like_safetensors(head: bytes) -> bool:
    size = int.from_bytes(head[:8], "little")
    return len(head) > 8 and 2 <= size <= _LARGEST_HEADER and head[8:9] == b"{"


def _is_text(head: bytes) -> bool:
    try:
        # the cut at 4096 bytes may fall inside a character
        text = head[:-3].decode("utf-8") if len(head) == 4096 else head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\f\ufeff" for character in text)
