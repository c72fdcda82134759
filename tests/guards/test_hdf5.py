"""HDF5 files that crash, fill or keep the library busy for ever end as one sentence; others pass."""

from __future__ import annotations

import os
import signal
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dlgenome.errors import InputError
from dlgenome.guards import hdf5
from dlgenome.guards.hdf5 import check_hdf5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with chunks, a column, words and numbers among the attributes, and names for one dataset."""
    with h5py.File(tmp_path / "file.h5", "w") as file:
        values = np.random.default_rng(0).integers(0, 2, (50, 4, 60)).astype(np.int8)
        file.create_dataset("raw/seq", data=values, chunks=(4, 4, 60), compression="gzip", shuffle=True)
        file["columns/start"] = np.arange(50)
        file["columns/again"] = file["columns/start"]
        file["columns/itself"] = file["columns"]
        file["columns/soft"] = h5py.SoftLink("/nowhere")
        file.attrs["words"] = ["abc", "b", "a"]
        file.attrs["number"] = 3
    return tmp_path / "file.h5"


def never_ending(path: Path) -> None:
    """Give the second word no size: the library then reads the same place for ever (found by fuzzing)."""
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    size = content.index((2).to_bytes(2, "little"), heap + 16) + 8
    content[size : size + 8] = bytes(8)
    path.write_bytes(content)


def test_whole_files_pass_again_and_again(path: Path) -> None:
    for _ in range(3):
        check_hdf5(path)


def test_a_file_that_would_keep_the_library_busy_for_ever_is_refused_and_the_next_one_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "CPU_SECONDS", 0.5)
    whole = tmp_path / "whole.h5"
    whole.write_bytes(path.read_bytes())
    never_ending(path)
    started = time.monotonic()
    with pytest.raises(InputError, match="is damaged: following its structure has no end; make it again"):
        check_hdf5(path)
    assert time.monotonic() - started < 20
    check_hdf5(whole)


def test_a_crash_of_the_library_is_a_sentence(path: Path) -> None:
    check_hdf5(path)
    process = hdf5._walker._running()
    os.kill(process.pid, signal.SIGSEGV)
    with pytest.raises(InputError, match="is damaged: it crashes the HDF5 library"):
        check_hdf5(path)
    check_hdf5(path)


def test_the_answer_to_a_file_that_was_given_up_is_not_taken_for_that_to_the_next(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check_hdf5(tmp_path / "cut.h5")
    check_hdf5(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_cut_files_are_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="is damaged or cut short"):
        check_hdf5(path)


def claim(file: h5py.File) -> None:
    file.create_dataset("huge", shape=(10**12,), dtype="f4")


def claim_chunks(file: h5py.File) -> None:
    file.create_dataset("huge", shape=(10**12,), dtype="f4", chunks=(1000,))


def link_outside(file: h5py.File) -> None:
    file["other"] = h5py.ExternalLink("/etc/passwd", "/x")


def keep_outside(file: h5py.File) -> None:
    file.create_dataset("other", shape=(9,), dtype="i1", external=[("/etc/passwd", 0, 9)])


def point_outside(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(9,), dtype="i1")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", shape=(9,))
    file.create_virtual_dataset("other", layout)


def unpack_to_much(file: h5py.File) -> None:
    """One chunk of 1 MB whose stream unpacks to 400 MB, which the library would take without a word."""
    made = file.create_dataset("bomb", shape=(10**6,), dtype="i1", chunks=(10**6,), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(10**7)) for _ in range(40)) + packer.flush()
    made.id.write_direct_chunk((0,), packed)


def compress_twice(file: h5py.File) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((10,))
    creation.set_deflate(1)
    creation.set_deflate(1)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT8, h5py.h5s.create_simple((10,)), creation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (claim, r"claims 4,000,000,000,000 bytes for /huge and holds 0 of them"),
        (claim_chunks, r"claims 4,000,000,000,000 bytes for /huge and holds 0 of them"),
        (link_outside, r"has a link to another file at 'other', which is not followed"),
        (keep_outside, r"keeps the numbers of /other in another file, which is not read"),
        (point_outside, r"keeps the numbers of /other in another file, which is not read"),
        (unpack_to_much, r"has a chunk of /bomb that unpacks to more than its 1,000,000 bytes"),
        (compress_twice, r"compresses /x twice"),
    ],
)
def test_what_would_take_memory_or_other_files_is_refused(
    path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=message) as caught:
        check_hdf5(path)
    assert "\n" not in str(caught.value)


def test_attributes_that_are_larger_than_settings_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file.attrs["huge"] = np.zeros(3 * 10**6)
    with pytest.raises(InputError, match="claims 24,000,000 bytes for the attribute 'huge' of /"):
        check_hdf5(tmp_path / "file.h5")


def test_a_file_inside_an_archive_is_walked_too(path: Path, tmp_path: Path) -> None:
    archive, content = tmp_path / "model.keras", path.read_bytes()
    for change, message in ((link_outside, "has a link to another file"), (None, None)):
        path.write_bytes(content)
        if change:
            with h5py.File(path, "r+") as file:
                change(file)
        with zipfile.ZipFile(archive, "w") as target:
            target.write(path, "weights.h5")
        if message is None:
            check_hdf5(archive, member="weights.h5", size=path.stat().st_size)
            continue
        with pytest.raises(InputError, match=message):
            check_hdf5(archive, member="weights.h5", size=path.stat().st_size)


def test_a_python_that_does_not_start_is_told_apart_from_a_bad_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdf5._walker.stop()
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "_PROGRAM", "raise SystemExit('no such module')")
        with pytest.raises(InputError, match=r"cannot be checked, because .* does not start: no such module"):
            check_hdf5(path)
    check_hdf5(path)
