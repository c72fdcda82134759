"""Small Keras files with Keras's own predictions, and a writer of Keras 2 files for odd cases."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

FOLDER = Path(__file__).parent / "files"


@pytest.fixture
def keras_file(tmp_path: Path) -> Callable[[str], Path]:
    """A file of this folder, unpacked; see make_files.py for how Keras wrote it."""

    def unpack(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.decompress((FOLDER / f"{name}.gz").read_bytes()))
        return path

    return unpack


@pytest.fixture(scope="session")
def by_keras() -> Callable[[str], tuple[list[Any], list[Any]]]:
    """Inputs and outputs of a file, computed by Keras; sigmoid and softmax at the end left out."""

    def find(file_name: str) -> tuple[list[Any], list[Any]]:
        name, keras = file_name.split(".")[:2]
        with np.load(FOLDER / f"predictions.{keras}.npz") as stored:
            keys = [key for key in stored.files if key.startswith(f"{name}/")]
            inputs = [stored[key] for key in keys if "/input" in key]
            return inputs, [stored[key] for key in keys if "/output" in key]

    return find


Entry = tuple[str, str, Sequence[str], Mapping[str, Any]]
"""Class, name, names of the layers before, settings."""


@pytest.fixture
def write_keras(tmp_path: Path) -> Callable[..., Path]:
    """A functional Keras 2 file of these layers; weights by layer, random ones of shapes."""

    def write(
        layers: Sequence[Entry],
        weights: Mapping[str, Mapping[str, Any]],
        *,
        outputs: Sequence[str] | None = None,
        version: str = "2.8.0",
        description: bool = True,
    ) -> Path:
        entries: list[dict[str, Any]] = [
            {
                "class_name": class_name,
                "name": name,
                "config": dict(settings) | {"name": name},
                "inbound_nodes": [[[source, 0, 0, {}] for source in before]] if before else [],
            }
            for class_name, name, before, settings in layers
        ]
        inputs = [[name, 0, 0] for class_name, name, _, _ in layers if class_name == "InputLayer"]
        ends = [[name, 0, 0] for name in outputs or [layers[-1][1]]]
        config = {"name": "model", "layers": entries, "input_layers": inputs, "output_layers": ends}
        path, rng = tmp_path / "written.h5", np.random.default_rng(5)
        with h5py.File(path, "w") as stream:
            if description:
                stream.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
            stream.attrs["keras_version"] = version
            root = stream.create_group("model_weights")
            root.attrs["layer_names"] = [name.encode() for _, name, _, _ in layers]
            for _, name, _, _ in layers:
                group = root.create_group(name)
                own = weights.get(name, {})
                group.attrs["weight_names"] = [f"{name}/{part}:0".encode() for part in own]
                for part, value in own.items():
                    array = rng.normal(size=value) if isinstance(value, tuple) else value
                    group[f"{name}/{part}:0"] = np.asarray(array, dtype=np.float32)
        return path

    return write
