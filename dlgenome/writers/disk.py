"""Writing that either lasts or says in one sentence why it does not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlgenome.errors import Interrupted


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turn the OSErrors of the block into Interrupted; a full disk is named as one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Interrupted(
                f"The disk that holds {path.parent} is full, so {path.name} could not be written; "
                "free some space."
            ) from error
        raise Interrupted(f"Cannot write {path}: {error.strerror or error}.") from error


def sync(path: Path) -> None:
    """Return once the file, or the entries of the folder, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
