"""Descriptions that ask for more than any network has are refused before anything is built of them."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dlgenome.errors import DlgenomeError, InputError, UsageError
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.checkpoint import load_model
from dlgenome.provenance import peak_memory_bytes


def described(path: Path, architecture: str, arguments: Any, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path, {"architecture": architecture, "arguments": json.dumps(arguments)})
    return path


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return dict(BPNet(n_filters=4, n_layers=2).state_dict())


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("bpnet", {"n_filters": 10**9}, r"do not fit the architecture bpnet: .*wrong shape|cannot be built"),
        ("bpnet", {"n_filters": 10**6}, "do not fit the architecture bpnet: wrong shape"),
        ("bpnet", {"n_layers": 10**9}, r"n_layers is 1000000000, and dilations .* 40 at most"),
        ("basepairnet", {"n_layers": 10**12}, r"n_layers is 1000000000000, and dilations"),
        ("bpnet", {"n_filters": 10**30}, "cannot be built"),
        ("bpnet", {"n_filters": -1}, "cannot be built"),
        ("bpnet", {"n_filters": "four"}, "cannot be built"),
        ("bpnet", {"input_length": 10**12}, "says that its input has 1,000,000,000,000 bases"),
        ("bpnet", {"input_length": 10**5000}, "is not JSON|bases"),
        ("basset", {"n_filters": [4] * 10**5}, "takes no lists as long as in"),
        ("chrombpnet", {"bias": {"n_filters": 10**9}}, "do not fit the architecture|cannot be built"),
        ("danq", {"n_recurrent": 10**9}, "do not fit the architecture danq|cannot be built"),
    ],
)
def test_absurd_arguments_of_a_file_are_refused_at_once(
    tmp_path: Path, tensors: dict[str, torch.Tensor], architecture: str, arguments: Any, message: str
) -> None:
    text = json.dumps(arguments) if arguments.get("input_length", 0) < 10**4000 else '{"a": 1' + "0" * 5000
    save_file(tensors, tmp_path / "m.safetensors", {"architecture": architecture, "arguments": text})
    before, started = peak_memory_bytes(), time.monotonic()
    with pytest.raises(DlgenomeError, match=message) as caught:
        load_model(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5
    assert peak_memory_bytes() - before < 200 * 2**20


def test_absurd_arguments_of_the_user_are_refused_too(tmp_path: Path, tensors: Any) -> None:
    torch.save(tensors, tmp_path / "m.pt")
    with pytest.raises(InputError, match="wrong shape"):
        load_model(tmp_path / "m.pt", architecture="bpnet", architecture_args={"n_filters": 10**8})


def test_numbers_of_layers_come_from_layers_and_not_from_their_names(tmp_path: Path, tensors: Any) -> None:
    last = {key.replace("rconvs.1", "rconvs.999999999"): value for key, value in tensors.items()}
    torch.save(last, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"missing rconvs\.1\.weight"):
        load_model(tmp_path / "m.pt", architecture="bpnet")


def test_nested_metadata_is_no_json(tmp_path: Path, tensors: Any) -> None:
    for entry in ("arguments", "targets"):
        metadata = {"architecture": "bpnet", entry: "[" * 10**5}
        save_file(tensors, tmp_path / "m.safetensors", metadata)
        with pytest.raises(InputError, match=f"the entry `{entry}` of the file's metadata is not JSON"):
            load_model(tmp_path / "m.safetensors")


def safetensors(header: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b'{"a": 1}', 2**60),
        safetensors(b'{"a": 1}', 90_000_000),
        safetensors(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
        safetensors(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
        safetensors(b"{" + b'"a":{' * 10_000),
        safetensors(b"{}"),
    ],
)
def test_safetensors_with_wrong_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(DlgenomeError) as caught:
        load_model(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_weights_of_complex_numbers_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="tensor weight holds complex numbers"):
        load_model(tmp_path / "m.pt")


def test_a_factory_of_the_user_gets_settings_of_the_file_and_nothing_else_is_built(tmp_path: Path) -> None:
    torch.save(nn.Conv1d(4, 2, 3).state_dict(), tmp_path / "m.pt")
    with pytest.raises(UsageError, match="--architecture"):
        load_model(tmp_path / "m.pt")
