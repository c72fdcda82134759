"""The machine that follows pickles makes what PyTorch makes of honest ones, and ends on all others."""

from __future__ import annotations

import io
import pickle
import re
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlgenome.errors import DlgenomeError
from dlgenome.model.checkpoint import load_model
from dlgenome.model.pickle_machine import Global, PickleMachine, Recorded
from dlgenome.model.pickled_tensors import read_legacy, read_zip

READERS: dict[str, Callable[[Path], Any]] = {"zip": read_zip, "legacy": read_legacy}

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from(range(6)))
def test_plain_values_come_out_as_python_reads_them(value: Any, protocol: int) -> None:
    shared = [value, value, {"again": value}]
    machine = PickleMachine()
    assert machine.run(io.BytesIO(pickle.dumps(shared, protocol))) == shared
    assert not machine.names


def test_objects_keep_their_name_and_state_and_are_not_made() -> None:
    for protocol in range(2, 6):
        machine = PickleMachine()
        found = machine.run(io.BytesIO(pickle.dumps([nn.ReLU(inplace=True), nn.ReLU, {1, 2}], protocol)))
        layer, kind, numbers = found
        assert isinstance(layer, Recorded)
        assert (layer.class_name, layer.attributes["inplace"]) == ("ReLU", True)
        assert kind == Global("torch.nn.modules.activation.ReLU")
        assert isinstance(numbers, Recorded)
        assert "torch.nn.modules.activation.ReLU" in machine.names


def save(value: Any, path: Path, kind: str) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tensors_are_those_of_torch_load(tmp_path: Path, kind: str) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    value = {
        "plain": base,
        "transposed": base.transpose(0, 2),
        "part": base[1, 1:, ::2],
        "repeated": torch.ones(1).expand(5, 3),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.randn(3)),
        "nested": {"list": [torch.tensor([True, False]), (1, "two", None, 2.5)]},
        "size": base.shape,
        **{
            str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)
        },
        **{str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.int8, torch.uint8, torch.int16)},
        **{str(dtype): torch.ones(2, dtype=dtype) for dtype in (torch.int32, torch.int64, torch.complex64)},
    }
    if kind == "zip":  # kept as bytes with the type beside them
        value["uint16"] = torch.ones(2, dtype=torch.uint16)
        value["float8"] = torch.ones(2).to(torch.float8_e4m3fn)
    path = save(value, tmp_path / "model.pt", kind)
    found, expected = READERS[kind](path), torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        if isinstance(tensor, torch.Tensor):
            assert found[name].dtype == tensor.dtype
            exact = tensor.float() if name == "float8" else tensor  # there is no comparison of its own
            assert torch.equal(found[name].to(exact.dtype), exact), name
    assert found["size"] == (2, 3, 4)
    assert found["nested"]["list"][1] == (1, "two", None, 2.5)
    assert torch.equal(found["nested"]["list"][0], torch.tensor([True, False]))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_tied_weights_are_read_once(tmp_path: Path, kind: str) -> None:
    weight = torch.randn(4, 4)
    found = READERS[kind](save({"a": weight, "b": weight, "c": weight[1]}, tmp_path / "model.pt", kind))
    assert found["a"].data_ptr() == found["b"].data_ptr()
    assert torch.equal(found["c"], weight[1])


def with_pickle(path: Path, change: Callable[[bytes], bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The file of torch.save with another pickle in it."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in members.items():
            target.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return path


FOUR = b"K\x04t"  # how many numbers the storage has, at the end of its identifier
SIZES = b"K\x00K\x04\x85q\x08K\x01\x85"  # offset 0, sizes (4,), strides (1,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (FOUR, b"J\x00\xe1\xf5\x05t", r"the storage 0 claims 400,000,000 bytes and has 16"),
        (FOUR, b"J\xff\xff\xff\xfft", "not a whole number"),
        (b"K\x04\x85", b"J\x00\xe1\xf5\x05\x85", r"shape \(100000000,\) reaches beyond its storage"),
        (SIZES, SIZES.replace(b"K\x00K\x04", b"K\x02K\x04"), r"shape \(4,\) reaches beyond its storage"),
        (SIZES, SIZES.replace(b"K\x01\x85", b"K\x09\x85"), r"shape \(4,\) reaches beyond its storage"),
        (
            SIZES,
            SIZES.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85").replace(b"K\x01\x85", b"K\x00\x85"),
            r"its tensors claim 8,589,934,588 bytes in",
        ),
        (b"ctorch\nFloatStorage", b"ctorch\nQInt8Storage", "no plain numbers"),
    ],
)
def test_tensors_that_lie_about_their_numbers_are_refused(
    tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    path = save({"weight": torch.arange(4.0)}, tmp_path / "model.pt", "zip")
    assert load_error(path) is None
    with_pickle(path, lambda content: _replaced(content, old, new))
    assert message_matches(load_error(path), message)


def _replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


def load_error(path: Path) -> str | None:
    """What is said about the file; None where it is only unknown whose weights these are."""
    with pytest.raises(DlgenomeError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    return None if "holds bare weights" in message else message


def message_matches(found: str | None, wanted: str) -> bool:
    assert found is not None
    assert re.search(wanted, found), found
    return True


def hashed_for_years() -> bytes:
    """A dictionary with a tuple of tuples of tuples as its key, sixty deep, each of twice the one before."""
    return b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."


def lists_in_lists() -> bytes:
    """Settings of a list that holds the same list twice, forty times over."""
    return b"\x80\x02]" + b"q\x00](h\x00h\x00e" * 40 + b"."


PROGRAMS = {
    "hashed for years": (hashed_for_years(), "keys that are no plain values"),
    "a huge byte array": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".", "bytearray8"),
    "a huge word": (b"\x80\x02T\xff\xff\xff\x7fabc.", "string4"),
    "no end": (b"\x80\x02" + b"N0" * 1000, "exhausted"),
    "an empty stack": (b"\x80\x020.", "pop from|index"),
    "an unknown instruction": (b"\x80\x02\xff.", "opcode"),
    "a registered class": (b"\x80\x02\x82\x05.", "EXT1"),
    "a word that grows": (b"\x80\x02K\x01K\x02K\x03ss.", "something else than a dictionary"),
}


@pytest.mark.parametrize(("program", "message"), PROGRAMS.values(), ids=PROGRAMS)
def test_programs_that_would_take_time_or_memory_end_at_once(
    tmp_path: Path, program: bytes, message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(Exception, match=message):
        PickleMachine().run(io.BytesIO(program))
    path = save({"weight": torch.zeros(2)}, tmp_path / "model.pt", "zip")
    assert "is damaged, cut short or not written by torch.save" in str(
        load_error(with_pickle(path, lambda _: program))
    )
    assert time.monotonic() - started < 5


def test_instructions_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlgenome.model.pickle_machine.MOST_INSTRUCTIONS", 100)
    with pytest.raises(pickle.UnpicklingError, match="more than 100 instructions"):
        PickleMachine().run(io.BytesIO(b"\x80\x02" + b"N0" * 1000 + b"N."))


def test_settings_that_hold_themselves_or_the_same_again_and_again_are_left_out(tmp_path: Path) -> None:
    itself: list[Any] = []
    itself.append(itself)
    again: list[Any] = [1]
    for _ in range(60):
        again = [again, again]
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    settings = {"itself": itself, "again": again, "n_outputs": 1, "input_length": 2114}
    module = nn.Conv1d(4, 2, 3)
    path = tmp_path / "model.pt"
    torch.save({"state_dict": module.state_dict(), "config": settings | {"deep": deep}}, path)
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def make(itself=0, again=0, deep=0, n_outputs=0):\n"
        "    return torch.nn.Conv1d(4, 2, 3)\n"
    )
    loaded = load_model(path, architecture=f"{tmp_path}/net.py:make")
    assert loaded.arguments["n_outputs"] == 1
    assert "itself" not in loaded.arguments
    assert "again" not in loaded.arguments


def test_a_compressed_bomb_and_a_second_pickle_are_refused(tmp_path: Path) -> None:
    path = save({"weight": torch.zeros(30_000_000)}, tmp_path / "model.pt", "zip")
    with_pickle(path, lambda content: content, zipfile.ZIP_DEFLATED)
    assert message_matches(load_error(path), r"claims to hold 120,\d+,\d+ bytes in")
    path = save({"weight": torch.zeros(2)}, tmp_path / "other.pt", "zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("elsewhere/data.pkl", pickle.dumps(print))
    assert message_matches(load_error(path), r"2 pickles called data\.pkl")


def test_an_archive_inside_an_archive_is_not_taken_for_the_outer_one(tmp_path: Path) -> None:
    inner = save({"weight": torch.zeros(2)}, tmp_path / "inner.pt", "zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.pt", "w") as archive:
        archive.writestr("notes.txt", "nothing")
        archive.writestr("inner.pt", inner)
    assert message_matches(load_error(tmp_path / "outer.pt"), "a zip file that torch.save did not write")
    outer = (tmp_path / "outer.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(outer[: outer.index(inner) + len(inner)])
    assert message_matches(load_error(tmp_path / "cut.pt"), "cut short or damaged")


@pytest.mark.parametrize("name", ["a" * 2000, ".".join("a" * 60), "a." * 5000 + "weight"])
def test_names_without_end_are_refused(tmp_path: Path, name: str) -> None:
    path = save({name: torch.zeros(2)}, tmp_path / "model.pt", "zip")
    assert message_matches(load_error(path), "which no network gives")


def test_old_files_that_lie_about_their_numbers_are_refused(tmp_path: Path) -> None:
    path = save({"weight": torch.arange(4.0)}, tmp_path / "model.pt", "legacy")
    content = path.read_bytes()
    size = struct.pack("<q", 4) + torch.arange(4.0).numpy().tobytes()
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, struct.pack("<q", 2**50) + size[8:]))
    assert message_matches(load_error(path), "the storage .* is not of the size that it claims")
    path.write_bytes(content[:-3])
    assert message_matches(load_error(path), "the storage .* claims 16 bytes and has 13")
