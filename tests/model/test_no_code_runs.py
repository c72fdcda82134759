"""No file that can be given to a run is unpickled, evaluated or imported without --trust-pickle."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dlgenome.errors import DlgenomeError
from dlgenome.model.checkpoint import load_model
from dlgenome.model.inputs import InputForm, adapt
from dlgenome.references.file import open_references


class _Hostile:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.victim,))


Write = Callable[[Path, Path], None]
"""Writes the file at the first path, with code in it that would make the second."""


def torch_zip(path: Path, victim: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "x": _Hostile(victim)}, path)


def torch_legacy(path: Path, victim: Path) -> None:
    torch.save({"weight": _Hostile(victim)}, path, _use_new_zipfile_serialization=False)


def lightning(path: Path, victim: Path) -> None:
    torch.save(
        {
            "pytorch-lightning_version": "2",
            "state_dict": {"a": torch.zeros(1)},
            "callbacks": _Hostile(victim),
        },
        path,
    )


def plain(protocol: int) -> Write:
    def write(path: Path, victim: Path) -> None:
        path.write_bytes(pickle.dumps(_Hostile(victim), protocol))

    return write


def after_a_state_dict(path: Path, victim: Path) -> None:
    """A second pickle, where a file of before PyTorch 1.6 has the names of its storages."""
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    storages = pickle.dumps(["0"], 2)[:3]
    place = content.rindex(storages)
    path.write_bytes(content[:place] + pickle.dumps([_Hostile(victim)], 2) + content[place:])


def in_a_second_archive(path: Path, victim: Path) -> None:
    inner = io.BytesIO()
    torch.save(_Hostile(victim), inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"a": 1}, 2))
        archive.writestr("model/inner.pt", inner.getvalue())
        archive.writestr("model/data/0", pickle.dumps(_Hostile(victim)))


def tar_of_old(path: Path, victim: Path) -> None:
    """The form of the first PyTorch: a tar file of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(_Hostile(victim), 2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def called_safetensors(path: Path, victim: Path) -> None:
    path.write_bytes(pickle.dumps(_Hostile(victim), 2))


def in_metadata(path: Path, victim: Path) -> None:
    code = pickle.dumps(_Hostile(victim), 0).decode()
    metadata = {"architecture": "os:system", "arguments": code, "targets": '["x.py:run"]', "alphabet": "ACGT"}
    save_file({"iconv.weight": torch.zeros(1)}, path, metadata)


def in_attributes(path: Path, victim: Path) -> None:
    """Where Keras has its description: a pickle as bytes, and the name of a Python module."""
    with h5py.File(path, "w") as file:
        file.create_group("model_weights").attrs["layer_names"] = [b"a"]
        file.attrs["model_config"] = np.void(pickle.dumps(_Hostile(victim)))
        file.attrs["training_config"] = np.void(pickle.dumps(_Hostile(victim)))
        file["object"] = np.void(pickle.dumps(_Hostile(victim)))


def _keras(path: Path, layer: dict[str, Any]) -> None:
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
    entry = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 30, 4]}}
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry, layer]}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("model.weights.h5", weights.getvalue())


def keras_lambda(path: Path, victim: Path) -> None:
    import base64
    import marshal

    code = compile(f"open({str(victim)!r}, 'w')", "x", "eval")
    text = base64.b64encode(marshal.dumps(code) + b"logsumexp").decode()
    stored = {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}
    layer = {"class_name": "Lambda", "config": {"name": "logcount_predictions", "function": stored}}
    _keras(path, {**layer, "module": "keras.layers"})


def keras_module(path: Path, victim: Path) -> None:
    config = {"name": "x", "args": [f"touch {victim}"]}
    _keras(path, {"module": "os", "class_name": "system", "registered_name": "os>system", "config": config})


def keras_activation(path: Path, victim: Path) -> None:
    function = {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"}
    config = {"name": "x", "units": 1, "activation": function, "kernel": f"open({str(victim)!r}, 'w')"}
    _keras(path, {"module": "keras.layers", "class_name": "Dense", "config": config})


MODELS: dict[str, Write] = {
    "torch zip": torch_zip,
    "torch legacy": torch_legacy,
    "lightning": lightning,
    **{f"plain pickle {protocol}": plain(protocol) for protocol in range(6)},
    "after a state_dict": after_a_state_dict,
    "archive in an archive": in_a_second_archive,
    "tar": tar_of_old,
    "called safetensors": called_safetensors,
    "metadata of safetensors": in_metadata,
    "attributes of HDF5": in_attributes,
    "Keras Lambda": keras_lambda,
    "Keras module": keras_module,
    "Keras activation": keras_activation,
}


@pytest.mark.parametrize("write", list(MODELS.values()), ids=list(MODELS))
@pytest.mark.parametrize("ending", [".pt", ".ckpt", ".safetensors", ".h5", ".keras", ".pt2"])
def test_no_checkpoint_runs_whatever_it_is_called(tmp_path: Path, write: Write, ending: str) -> None:
    victim, path = tmp_path / "written", tmp_path / f"model{ending}"
    write(path, victim)
    assert not victim.exists()
    try:
        loaded = load_model(path)
        adapt(loaded, InputForm(), loaded.input_length or 30)
    except DlgenomeError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a Lambda that is known by its name is read, not run
    assert not victim.exists()


@pytest.mark.parametrize("write", [torch_zip, torch_legacy, lightning, plain(2), tar_of_old])
def test_the_files_would_run_if_they_were_trusted(tmp_path: Path, write: Write) -> None:
    """So that the test above shows something."""
    victim, path = tmp_path / "written", tmp_path / "model.pt"
    write(path, victim)
    try:
        torch.load(path, weights_only=False)
    except Exception:
        assert write is not torch_zip
    assert victim.exists()


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    victim = tmp_path / "written"
    objects = np.array([_Hostile(victim)], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", references=objects)
    with pytest.raises(DlgenomeError, match="instead of numbers"):
        adapt(load_small(tmp_path), InputForm(extra=(str(tmp_path / "x.npy"),)), 4)
    with pytest.raises(DlgenomeError, match="instead of numbers"):
        open_references(tmp_path / "x.npz", n_references=None, window=4, n_input_rows=1)
    assert not victim.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert victim.exists()


def load_small(folder: Path) -> Any:
    torch.save(nn.Linear(4, 1).state_dict(), folder / "m.pt")
    (folder / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(4, 1)\n")
    return load_model(folder / "m.pt", architecture=f"{folder}/net.py:make")
