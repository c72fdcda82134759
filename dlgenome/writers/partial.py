"""The folder ``PREFIX.partial``: what is found there, making it, keeping it for later, removing it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from dlgenome.errors import UsageError
from dlgenome.writers.lock import Lock
from dlgenome.writers.paths import KEPT_REGIONS, SCRATCH, SPOOL, STATE, TRACK_EXTRAS, OutputPaths

logger = logging.getLogger(__name__)

MARKER = "dlgenome-unfinished-run.txt"

_MARKER_TEXT = "An unfinished dlgenome run keeps its work here. Deleting this folder discards that work.\n"
_OURS = frozenset({MARKER, SPOOL, STATE, KEPT_REGIONS})
_ENDINGS = (
    *("_scores.h5", "_scores.bw", "_ohe.npz", "_attr.npz", ".bed", ".tsv", ".json"),
    *(f"_{extra}.bw" for extra in TRACK_EXTRAS),
)


class Existing(Enum):
    """What earlier runs left under a prefix."""

    NOTHING = "nothing"
    UNFINISHED = "unfinished"
    """A run that can go on where it was stopped."""
    FINISHED = "finished"
    INCOMPLETE = "incomplete"
    """Some of the final files, and nothing to go on from."""


@contextmanager
def claimed(
    paths: OutputPaths, *, overwrite: bool = False, resume: bool = False, force_unlock: bool = False
) -> Iterator[Lock]:
    """Hold the prefix, alone, with every output path tried; in the end nothing stays that cannot be resumed.

    Raises Interrupted while another process holds it, and what `prepare_outputs` raises.
    """
    _check_folder(paths)
    lock = Lock(paths.lock, force=force_unlock)
    prepared = False
    try:
        prepare_outputs(paths, overwrite=overwrite, resume=resume)
        prepared = True
        yield lock
    finally:
        if prepared and lock.still_held() and not paths.state.exists():
            abandon(paths)
        lock.release()


def find_existing(paths: OutputPaths) -> Existing:
    """What lies under the prefix."""
    there = [_exists(path) for path in paths.all()]
    if all(there):
        return Existing.FINISHED
    if paths.state.is_file():
        return Existing.UNFINISHED
    return Existing.INCOMPLETE if any(there) else Existing.NOTHING


def prepare_outputs(paths: OutputPaths, *, overwrite: bool, resume: bool = False) -> None:
    """Try every output path and create ``PREFIX.partial``; what is there stays until it is replaced.

    Raises UsageError when the prefix cannot be written to, when output exists and neither ``overwrite`` nor
    ``resume`` is set, and for a ``PREFIX.partial`` that is not ours, whatever is set.
    """
    _check_folder(paths)
    existing = [path for path in paths.all() if _exists(path)]
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise UsageError(f"{folders[0]} is a folder, and this run would write a file of that name.")
    if _exists(paths.partial):
        _check_partial(paths)
    if not overwrite and not resume:
        _refuse_existing(paths, existing)
    _create_partial(paths)


def clear_partial(paths: OutputPaths) -> None:
    """Begin anew: nothing of an earlier run stays in ``PREFIX.partial``."""
    _check_partial(paths)
    _remove(path for path in paths.partial.iterdir() if path.name not in (MARKER, KEPT_REGIONS))


def discard_partial(paths: OutputPaths) -> None:
    """Remove ``PREFIX.partial`` and our files in it; raises UsageError when it holds anything else."""
    _check_partial(paths)
    _remove(iter(sorted(paths.partial.iterdir(), key=lambda path: path.name == MARKER)))
    try:
        paths.partial.rmdir()
    except OSError as error:
        raise UsageError(f"Cannot remove {paths.partial}: {error.strerror}. Remove it by hand.") from error


def abandon(paths: OutputPaths) -> None:
    """Leave no ``PREFIX.partial`` of work that is over; where it must stay, a warning says why."""
    try:
        if paths.partial.exists():
            discard_partial(paths)
    except UsageError as problem:  # must hide neither what went wrong before nor that all went well
        logger.warning("%s", problem)


def _refuse_existing(paths: OutputPaths, existing: list[Path]) -> None:
    if existing:
        names = ", ".join(str(path) for path in existing)
        raise UsageError(f"This output exists: {names}. Choose another -o, or replace it with --overwrite.")
    if paths.state.exists():
        raise UsageError(
            f"{paths.partial} holds an unfinished run: continue it with --resume, discard it with "
            "--overwrite, or choose another -o."
        )


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror}. Choose another -o.") from error
    return True


def _check_folder(paths: OutputPaths) -> None:
    folder = paths.prefix.parent
    if paths.prefix.is_dir() or paths.prefix.name in ("", ".."):
        raise UsageError(f"-o {paths.prefix} is a folder; add how file names begin, as in -o DIR/run1.")
    if not folder.is_dir():
        if _exists(folder):
            raise UsageError(f"-o {paths.prefix}: {folder} is a file, not a folder; choose another -o.")
        raise UsageError(f"-o {paths.prefix}: the folder {folder} does not exist; create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"-o {paths.prefix}: the folder {folder} may not be written to.")


def _create_partial(paths: OutputPaths) -> None:
    made = not paths.partial.is_dir()
    try:
        paths.partial.mkdir(mode=0o700, exist_ok=True)
        (paths.partial / MARKER).write_text(_MARKER_TEXT)
        for trial in map(paths.inside_partial, paths.all()):
            if not trial.exists():
                trial.touch()
                trial.unlink()
    except OSError as error:
        if made and paths.partial.is_dir():
            discard_partial(paths)
        raise UsageError(f"Cannot write to {paths.partial}: {error.strerror}. Choose another -o.") from error


def _check_partial(paths: OutputPaths) -> None:
    """Raise UsageError unless the folder is ours and everything in it is, too.

    An empty one is what a run leaves that was killed before it marked the folder, or before it removed it.
    """
    partial = paths.partial
    is_folder = partial.is_dir() and not partial.is_symlink()
    if is_folder and not any(partial.iterdir()):
        return
    if not is_folder or not (partial / MARKER).is_file():
        raise UsageError(
            f"{partial} is in the way and was not made by dlgenome; move it, or choose another -o "
            "(--overwrite does not delete it)."
        )
    foreign = sorted(path for path in partial.iterdir() if not _is_ours(path, paths.prefix.name))
    if foreign:
        raise UsageError(
            f"{foreign[0]} is not a file of dlgenome, so {partial} is not deleted; move that file away first."
        )


def _is_ours(path: Path, prefix_name: str) -> bool:
    if path.is_dir() and not path.is_symlink():
        return False
    if path.name in _OURS or path.name.startswith(SCRATCH):
        return True
    return path.name.startswith(f"{prefix_name}.") and path.name.endswith(_ENDINGS)


def _remove(files: Iterator[Path]) -> None:
    for path in files:
        try:
            path.unlink()
        except OSError as error:
            raise UsageError(f"Cannot remove {path}: {error.strerror}. Remove it by hand.") from error
