"""Small Keras files with Keras's own predictions, and a writer of Keras 2 files for odd cases."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "files"


def full_size_weights(name: str) -> NDArray[np.float32]:
    """Weights of a layer of ChromBPNet as it is published, such as ``bpnet_1conv/kernel:0``.

    They follow from the name alone. They come from raw bits, which numpy promises to be the same for ever,
    as it does not of the numbers of its distributions.
    """
    layer, part = name.split("/")
    filters = 512 if layer.startswith("wo_bias_") else 128
    shape: tuple[int, ...] = (3, filters, filters)
    gain = 0.5
    if layer.endswith("1st_conv"):
        gain, shape = 2.0, (21, 4, filters)
    elif layer.endswith("prof_out_precrop"):
        gain, shape = 1.0, (75, filters, 1)
    elif layer.endswith("logcount_predictions"):
        gain, shape = 1.0, (filters, 1)
    size = 0.1 if part == "bias:0" else gain * np.sqrt(3 / np.prod(shape[:-1]))
    shape = shape[-1:] if part == "bias:0" else shape
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    values = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    return (values * np.float32(size)).reshape(shape)


def enlarge(small: Path, path: Path) -> Path:
    """A small file of ChromBPNet as Keras wrote it, with the number of filters and weights of full size."""
    with h5py.File(small) as source, h5py.File(path, "w") as target:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                target[name] = full_size_weights("/".join(name.split("/")[-2:]))
            else:
                target.create_group(name)
            target[name].attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
        target.attrs["model_config"] = json.dumps(_with_filters(json.loads(source.attrs["model_config"])))
    return path


def _with_filters(config: Any) -> Any:
    if isinstance(config, list):
        return [_with_filters(part) for part in config]
    if not isinstance(config, dict):
        return config
    changed = {name: _with_filters(part) for name, part in config.items()}
    if changed.get("filters", 1) > 1:
        changed["filters"] = 512 if changed["name"].startswith("wo_bias_") else 128
    return changed


@pytest.fixture
def full_size(keras_file: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A ChromBPNet file of full size, the same as Keras writes; see make_full_size.py."""
    return lambda name: enlarge(keras_file(f"{name}.keras2.h5"), tmp_path / f"{name}.h5")


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
