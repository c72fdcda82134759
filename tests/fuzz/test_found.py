"""Files like those that the damage found something with, by name."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KERAS_FILES = Path(__file__).parents[1] / "model" / "keras" / "files"


def npy_header(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def keras_zip(config: bytes) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(
            io.BytesIO(gzip.decompress((KERAS_FILES / "twice.keras3.keras.gz").read_bytes()))
        ) as source,
        zipfile.ZipFile(stream, "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, config if name == "config.json" else source.read(name))
    return stream.getvalue()


def keras_json(change: Callable[[list[Any]], None]) -> bytes:
    model = json.loads(gzip.decompress((KERAS_FILES / "twice.keras3.json.gz").read_bytes()))
    change(model["config"]["layers"])
    return json.dumps(model).encode()


def works_on_nothing(layers: list[Any]) -> None:
    layers[-1]["inbound_nodes"] = [{"args": [], "kwargs": {}}]


def of_a_long_class(layers: list[Any]) -> None:
    layers[-1]["class_name"] = "a" * 5000


def torch_zip(program: bytes) -> bytes:
    """An archive as torch.save writes it, with this pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("model/data.pkl", b"\x80\x02" + program + b".")
        target.writestr("model/byteorder", "little")
    return stream.getvalue()


def safetensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def references(shape: str) -> bytes:
    stream, npy = io.BytesIO(), io.BytesIO()
    np.save(npy, np.zeros((3, 4, 12)))
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("references.npy", npy.getvalue().replace(b"(3, 4, 12)", shape.encode().ljust(10)))
    return stream.getvalue()


FOUND: dict[str, tuple[str, bytes, str]] = {
    "an array's header that ends in the tokenizer": (
        "npy", npy_header(b"{'descr': '<f4', 'shape': (3,\n"), "its header is damaged"
    ),
    "an array's header with brackets without end": ("npy", npy_header(b"(" * 9000), "its header is damaged"),
    "an array that claims the memory": (
        "references.npz", references("(10**9,4)"), "header is damaged|claims the shape"
    ),
    "a Keras model that is no text": ("keras zip", keras_zip(b"\xfe\xff{}"), "is no text"),
    "a Keras layer that works on nothing": (
        "keras json", keras_json(works_on_nothing), "without anything to work on"
    ),
    "a Keras layer of a long class": ("keras json", keras_json(of_a_long_class), "cannot rebuild"),
    "an import with a long name": (
        "torch zip", torch_zip(b"ctorch\n" + b"F" * 5000 + b"\n"), "would import torch.FFF"
    ),
    "a name that begins and is not there": ("torch zip", torch_zip(b"ctorch\nFloat"), "damaged|would import"),
    "a type of numbers with a long name": (
        "safetensors",
        safetensors({"a": {"dtype": "F" * 5000, "shape": [1], "data_offsets": [0, 4]}}),
        "damaged",
    ),
    "weights of three hundred axes": (
        "safetensors",
        safetensors(
            {
                "__metadata__": {"architecture": "bpnet"},
                "linear.bias": {"dtype": "F32", "shape": [1] * 300, "data_offsets": [0, 4]},
            }
        ),
        "do not fit the architecture bpnet",
    ),
    "a start of three thousand brackets": ("bed", b"chr1\t" + b"[" * 3000 + b"\t9\n", "and so on"),
    "a strand of five thousand digits": (
        "bed", b"chr1\t1\t9\ta\t5\t" + b"1" * 5000 + b"\n", "and so on"
    ),
    "a setting of five thousand digits": ("yaml", b"seed: " + b"1" * 5000, "a value in it is not YAML"),
    "a zero byte among settings": ("yaml", b"seed: \x00", "not YAML"),
    "a genome with a name that no file can have": (
        "run.json",
        json.dumps(
            {
                "settings": {"model": "m.pt", "output": "o", "genome": "g" * 5000, "regions": "-"},
                "request": {"device": "cpu"},
            }
        ).encode(),
        "No file can have a name as long as ggg",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "content", "message"), list(FOUND.values()), ids=list(FOUND))
def test_what_was_found_is_refused_in_a_sentence(
    worker: Any, tmp_path: Path, kind: str, content: bytes, message: str
) -> None:
    path = tmp_path / f"found.{kind.replace(' ', '.')}"
    path.write_bytes(content)
    answer = worker.ask(kind, path)
    assert answer.outcome == "refused", answer.error
    assert re.search(message, answer.error), answer.error
    assert answer.is_fine
