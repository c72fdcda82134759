from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dlgenome.errors import InputError, UsageError
from dlgenome.references import file
from dlgenome.references.file import FileReferences, open_references
from dlgenome.types import Codes

N_ROWS, N_REFERENCES, WINDOW = 5, 2, 6
CODES: Codes = np.array([0, 1, 4, 3, 2, 4], dtype=np.uint8)


def frequencies(*shape: int) -> NDArray[np.float64]:
    """Random frequency columns of this shape; the axis before the last is the bases."""
    values: NDArray[np.float64] = np.random.default_rng(0).random(shape)
    values /= values.sum(axis=-2, keepdims=True)
    return values


def save(path: Path, values: Any, key: str = "references") -> Path:
    """The path, after the values were written there in the format that its name says."""
    if path.suffix == ".npz":
        np.savez(path, **{key: values})
    else:
        with h5py.File(path, "w") as hdf5_file:
            hdf5_file[key] = values
    return path


def open_file(path: Path, n_references: int | None = None) -> FileReferences:
    return open_references(path, n_references=n_references, window=WINDOW, n_input_rows=N_ROWS)


@pytest.fixture(params=["h5", "npz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"references.{request.param}"


def test_references_for_all_are_given_to_every_sequence(path: Path) -> None:
    values = frequencies(N_REFERENCES, 4, WINDOW)
    source = open_file(save(path, values))
    assert (source.n_references, source.is_coded) == (N_REFERENCES, False)
    batch = source.draw_batch(np.stack([CODES, CODES[::-1]]), np.array([4, 0]))
    source.close()
    assert batch.dtype == np.float32
    for drawn, codes in zip(batch, (CODES, CODES[::-1]), strict=True):
        assert drawn == pytest.approx(np.where(codes == 4, 0, values), rel=1e-6)


def test_each_input_row_gets_its_own_references(path: Path) -> None:
    values = frequencies(N_ROWS, N_REFERENCES, 4, WINDOW)
    source = open_file(save(path, values))
    batch = source.draw_batch(np.stack([CODES] * 3), np.array([3, 0, 4]))
    assert batch == pytest.approx(np.where(CODES == 4, 0, values[[3, 0, 4]]), rel=1e-6)
    assert np.array_equal(source.draw(CODES, 3), batch[0])
    source.close()


@pytest.mark.parametrize("kind", ["float16", "float64", "uint8", "int64", "bool"])
def test_every_kind_of_number_is_read(path: Path, kind: str) -> None:
    one_hot = np.eye(4)[[0, 1, 2, 3, 2, 1]].T[np.newaxis].astype(kind)
    source = open_file(save(path, one_hot))
    drawn = source.draw(np.zeros(WINDOW, dtype=np.uint8), 0)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn, one_hot.astype(np.float32))
    source.close()


def test_hdf5_is_read_row_by_row(tmp_path: Path) -> None:
    values = frequencies(N_ROWS, N_REFERENCES, 4, WINDOW)
    values[2, 1, 3, 4] = np.nan
    source = open_file(save(tmp_path / "references.h5", values))
    assert source.draw(CODES, 1).any()
    with pytest.raises(
        InputError, match=r"references\.h5: input row 2, reference 1, position 4 .* nan is not a finite"
    ):
        source.draw(CODES, 2)
    source.close()


@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.inf, "inf is not a finite number"), (-0.25, "-0.25 is negative"), (0.5, "sums to neither 1 nor 0")],
)
def test_impossible_values_for_all_are_refused_at_once(path: Path, value: float, problem: str) -> None:
    values = np.full((N_REFERENCES, 4, WINDOW), 0.25)
    values[1, 0, 5] = value
    with pytest.raises(InputError, match=f"reference 1, position 5 .*{problem}"):
        open_file(save(path, values))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((N_REFERENCES, WINDOW, 4), r"must be 4 bases and 6 positions; swap the last two$"),
        ((N_ROWS, N_REFERENCES, WINDOW, 4), r"swap the last two$"),
        ((N_REFERENCES, 5, WINDOW), r"must be 4 bases and 6 positions$"),
        ((N_REFERENCES, 4, 9), r"9 positions, but the window of the model is 6"),
        ((7, N_REFERENCES, 4, WINDOW), r"7 input rows, but the input has 5"),
        ((0, 4, WINDOW), r"no reference in it"),
        ((4, WINDOW), r"expected \(references, 4, 6\) .* or \(5, references, 4, 6\)"),
        ((), r"the shape \(\); expected"),
    ],
)
def test_wrong_shape_is_refused(path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_file(save(path, np.zeros(shape)))


def test_number_of_references_must_be_that_of_the_file(path: Path) -> None:
    save(path, frequencies(N_REFERENCES, 4, WINDOW))
    open_file(path, n_references=N_REFERENCES).close()
    with pytest.raises(UsageError, match=r"--n-references 20 was given, but .* holds 2 references"):
        open_file(path, n_references=20)


def test_missing_key_is_refused_with_the_keys_there_are(path: Path) -> None:
    with pytest.raises(InputError, match="stored under 'references'; the file holds 'background'"):
        open_file(save(path, np.zeros((1, 4, WINDOW)), key="background"))


def test_values_that_are_not_numbers_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"of numbers|instead of numbers"):
        open_file(save(path, np.array([b"ACGTAC"])))


def test_group_of_hdf5_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a dataset of numbers"):
        open_file(save(tmp_path / "references.h5", np.zeros(3), key="references/inner"))


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the references cannot be read"):
        open_file(save(tmp_path / "references.npz", np.array([{"a": 1}], dtype=object)))


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_file(tmp_path / "absent.h5")
    with pytest.raises(InputError, match="no such file"):
        open_file(tmp_path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "references.npy"
    np.save(other, np.zeros((1, 4, WINDOW)))
    with pytest.raises(InputError, match="neither an HDF5 nor an npz file"):
        open_file(other)


def test_truncated_file_is_refused(path: Path) -> None:
    save(path, frequencies(N_ROWS, N_REFERENCES, 4, WINDOW))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"is the file whole|cut short"):
        open_file(path)


def test_damaged_chunk_is_refused_when_its_row_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "references.h5"
    values = frequencies(N_ROWS, N_REFERENCES, 4, WINDOW)
    with h5py.File(path, "w") as hdf5_file:
        table = hdf5_file.create_dataset(
            "references", data=values, chunks=(1, *values.shape[1:]), compression="gzip"
        )
        chunk = table.id.get_chunk_info(3)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    source = open_file(path)
    assert source.draw(CODES, 2).any()
    with pytest.raises(InputError, match=r"references\.h5: the references cannot be read"):
        source.draw(CODES, 3)
    source.close()


def test_large_npz_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LARGEST_NPZ", 100)
    with pytest.raises(InputError, match=r"too many for an npz file, .* write them as HDF5"):
        open_file(save(tmp_path / "references.npz", np.zeros((1, 4, WINDOW))))


def test_compression_that_is_not_installed_is_named(tmp_path: Path) -> None:
    pytest.importorskip("hdf5plugin", reason="needs hdf5plugin to write a file that h5py alone cannot read")
    path = tmp_path / "references.h5"
    write = (
        "import h5py, hdf5plugin, numpy, sys\n"
        "with h5py.File(sys.argv[1], 'w') as f:\n"
        f"    f.create_dataset('references', data=numpy.zeros((2, 4, {WINDOW})), **hdf5plugin.Blosc())"
    )
    read = (
        "import pathlib, sys\n"
        "from dlgenome.references.file import open_references\n"
        f"open_references(pathlib.Path(sys.argv[1]), n_references=None, window={WINDOW}, n_input_rows=1)"
    )
    subprocess.run([sys.executable, "-c", write, str(path)], check=True)
    reading = subprocess.run(
        [sys.executable, "-c", read, str(path)], check=False, capture_output=True, text=True
    )
    assert "InputError" in reading.stderr
    assert "is compressed with blosc" in reading.stderr
    assert "write it with gzip" in reading.stderr


def test_sets_that_claim_the_memory_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, settings = tmp_path / "references.h5", {"chunks": (1000, 4, WINDOW), "compression": "gzip"}
    with h5py.File(path, "w") as hdf5_file:
        hdf5_file.create_dataset("references", shape=(10**9, 4, WINDOW), dtype="f4", **settings)
    with pytest.raises(InputError, match=r"claims 96,000,000,000 bytes for /references and holds 0 of them"):
        open_file(path)
    with h5py.File(path, "w") as hdf5_file:
        hdf5_file.create_dataset("references", data=np.zeros((1000, 4, WINDOW)), **settings)
    open_file(path).close()
    monkeypatch.setattr(file, "_ALWAYS_ALLOWED", 1000)
    with pytest.raises(InputError, match=r"claim the shape \(1000, 4, 6\), 192,000 bytes for a sequence"):
        open_file(path)


def test_many_rows_of_one_value_are_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_ALWAYS_ALLOWED", 1000)
    values = np.full((2000, 1, 4, WINDOW), 0.25)
    with h5py.File(tmp_path / "references.h5", "w") as hdf5_file:
        table = hdf5_file.create_dataset("references", data=values, chunks=values.shape, compression="gzip")
        assert table.nbytes > 200 * table.id.get_storage_size() + 1000
    source = open_references(tmp_path / "references.h5", n_references=None, window=WINDOW, n_input_rows=2000)
    assert source.draw(CODES, 1999).max() == 0.25
    source.close()


def test_npz_that_claims_the_memory_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "references.npz", frequencies(N_REFERENCES, 4, WINDOW))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("references.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("references.npy", content.replace(b"(2, 4, 6), ", b"(9**9,4,6),"))
    with pytest.raises(InputError, match="its header is damaged"):
        open_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("references.npy", content.replace(b"(2, 4, 6), ", b"(99,4,6),  "))
    with pytest.raises(InputError, match=r"claims the shape \(99, 4, 6\) of 19,008 bytes and holds 384"):
        open_file(path)
