"""Damaged, hostile and foreign Keras files: one sentence each, and nothing run or allocated."""

from __future__ import annotations

import base64
import contextlib
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.errors import DlgenomeError, InputError, UnsupportedModelError, UsageError
from dlgenome.model.checkpoint import load_model
from dlgenome.model.keras import kinds

WriteKeras = Callable[..., Path]
KerasFile = Callable[[str], Path]
INPUT: Any = ("InputLayer", "in", [], {"batch_input_shape": [None, 30, 4]})
KERNEL = {"kernel": (5, 4, 3), "bias": (3,)}
PLAIN: list[Any] = [
    INPUT,
    ("Conv1D", "c", ["in"], {"activation": "relu"}),
    ("GlobalMaxPooling1D", "top", ["c"], {}),
]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with another description."""
    with h5py.File(path, "r+") as stream:
        model = json.loads(stream.attrs["model_config"])
        change(model["config"])
        stream.attrs["model_config"] = json.dumps(model)
    return path


@pytest.mark.parametrize("name", ["chrombpnet.keras2.h5", "images.keras3.keras", "layers.keras3.weights.h5"])
@pytest.mark.parametrize("share", [0.002, 0.05, 0.5, 0.9])
def test_files_that_are_cut_short_get_one_sentence(keras_file: KerasFile, name: str, share: float) -> None:
    path = keras_file(name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"(cut short|damaged|not made by Keras)") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_end_in_a_traceback(keras_file: KerasFile) -> None:
    """Any byte may be wrong: the file loads, or there is a sentence."""
    path = keras_file("twice.keras3.keras")
    data, rng = path.read_bytes(), np.random.default_rng(2)
    for _ in range(40):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        with contextlib.suppress(DlgenomeError):
            load_model(path)


def test_text_and_nothing_at_all_are_named(tmp_path: Path) -> None:
    for content, message in ((b"", "is empty"), (b'{"class_name": "Sequential"}', "is a text file")):
        (tmp_path / "model.h5").write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("chunks", [None, (1000,)])
def test_claimed_terabytes_are_refused_before_memory_is_taken(
    write_keras: WriteKeras, chunks: tuple[int, ...] | None
) -> None:
    path = write_keras(PLAIN, {"c": KERNEL})
    with h5py.File(path, "r+") as stream:
        group = stream["model_weights/c"]
        del group["c/kernel:0"]
        group.create_dataset("c/kernel:0", shape=(10**12,), dtype="f4", chunks=chunks)
    with pytest.raises(InputError, match=r"claims 4,000,000,000,000 bytes for .*kernel:0 and holds 0"):
        load_model(path)


def test_weights_that_shrink_too_well_are_refused(write_keras: WriteKeras) -> None:
    path = write_keras(PLAIN, {"c": KERNEL})
    with h5py.File(path, "r+") as stream:
        group = stream["model_weights/c"]
        del group["c/kernel:0"]
        group.create_dataset("c/kernel:0", data=np.zeros((500, 4, 500), np.float32), compression="gzip")
    with pytest.raises(InputError, match="claims 4,000,000 bytes but the file holds"):
        load_model(path)


def test_weights_do_not_come_from_other_files(write_keras: WriteKeras, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as stream:
        stream["kernel"] = np.zeros((5, 4, 3), np.float32)
    outside = [(str(tmp_path / "raw.bin"), 0, 240)]
    (tmp_path / "raw.bin").write_bytes(bytes(240))
    for kind in ("link", "external", "virtual"):
        path = write_keras(PLAIN, {"c": KERNEL})
        with h5py.File(path, "r+") as stream:
            group = stream["model_weights/c/c"]
            del group["kernel:0"]
            if kind == "link":
                group["kernel:0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "kernel")
            elif kind == "external":
                group.create_dataset("kernel:0", shape=(5, 4, 3), dtype="f4", external=outside)
            else:
                layout = h5py.VirtualLayout(shape=(5, 4, 3), dtype="f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", shape=(5, 4, 3))
                group.create_virtual_dataset("kernel:0", layout)
        with pytest.raises(InputError, match=r"(another|other) files?"):
            load_model(path)


def test_words_instead_of_weights_are_refused(write_keras: WriteKeras) -> None:
    path = write_keras(PLAIN, {"c": KERNEL})
    with h5py.File(path, "r+") as stream:
        del stream["model_weights/c/c/kernel:0"]
        stream["model_weights/c/c/kernel:0"] = "a kernel"
    with pytest.raises(InputError, match="kernel:0 holds no array of numbers"):
        load_model(path)


def test_weights_that_are_not_numbers_are_named(write_keras: WriteKeras) -> None:
    path = write_keras(PLAIN, {"c": {"kernel": np.full((5, 4, 3), np.nan), "bias": (3,)}})
    with pytest.raises(InputError, match=r"tensor c/kernel has 60 NaN or infinite values out of 60"):
        load_model(path)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"c": {"kernel": (5, 4, 3)}}, "layer c needs kernel and bias but has kernel"),
        ({}, "layer c needs kernel and bias but has no weights"),
        ({"c": {"kernel": (5, 7, 3), "bias": (3,)}}, "layer c does not fit what it is given"),
        ({"c": {"kernel": (4, 3), "bias": (3,)}}, r"layer c \(Conv1D\) is described in a way"),
    ],
)  # fmt: skip
def test_weights_of_another_model_are_named(
    write_keras: WriteKeras, weights: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(write_keras(PLAIN, weights))


@pytest.mark.parametrize(
    "settings",
    [{"padding": "around"}, {"strides": [0]}, {"strides": [1, 1]}, {"dilation_rate": "x"}, {"groups": 2},
     {"strides": None}],
)  # fmt: skip
def test_settings_without_sense_are_refused(write_keras: WriteKeras, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"layer c "):
        load_model(write_keras([INPUT, ("Conv1D", "c", ["in"], settings)], {"c": KERNEL}))


def test_gigantic_layers_are_refused_without_being_made(write_keras: WriteKeras) -> None:
    layers = [*PLAIN[:2], ("ZeroPadding1D", "pad", ["c"], {"padding": 10**12})]
    with pytest.raises(InputError, match=r"layer pad makes .* numbers of one sequence"):
        load_model(write_keras(layers, {"c": KERNEL}))


def test_descriptions_without_sense_are_refused(write_keras: WriteKeras) -> None:
    def going_round(config: dict[str, Any]) -> None:
        config["layers"][1]["inbound_nodes"] = [[["top", 0, 0, {}]]]

    def without_layers(config: dict[str, Any]) -> None:
        config["layers"] = []

    def without_shape(config: dict[str, Any]) -> None:
        config["layers"][0]["config"] = {"name": "in"}

    def wrong_type(config: dict[str, Any]) -> None:
        config["layers"] = "none"

    for change in (going_round, without_layers, without_shape, wrong_type):
        with pytest.raises(InputError, match=r"description of the Keras model in .* makes no sense"):
            load_model(edit(write_keras(PLAIN, {"c": KERNEL}), change))
    path = write_keras(PLAIN, {"c": KERNEL})
    for text in ("[" * 100_000, "no JSON", "3"):
        (path.parent / "model.json").write_text(text)
        with pytest.raises(InputError, match="description of the Keras model is not"):
            load_model(path, architecture=str(path.parent / "model.json"))


def test_flags_that_do_not_suit_a_keras_file(write_keras: WriteKeras) -> None:
    path = write_keras(PLAIN, {"c": KERNEL})
    with pytest.raises(
        UsageError, match=r"--architecture bpnet: .* is a Keras file, which takes a model's JSON"
    ):
        load_model(path, architecture="bpnet")
    with pytest.raises(UsageError, match=r"none\.json: there is no such file"):
        load_model(path, architecture=str(path.parent / "none.json"))
    with pytest.raises(UsageError, match="describes its layers itself; leave the arguments out"):
        load_model(path, architecture_args={"input_length": 30})
    with pytest.raises(InputError, match=r"written by Keras 1\.2\.2; load and save it again"):
        load_model(write_keras(PLAIN, {"c": KERNEL}, version="1.2.2"))


def code_of(text: str) -> str:
    return base64.b64encode(marshal.dumps(compile(text, "models.py", "eval"))).decode()


def test_only_the_known_lambda_is_read_and_its_code_is_never_touched(
    write_keras: WriteKeras, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = code_of("lambda x: tf.math.reduce_logsumexp(x, axis=-1, keepdims=True)")
    other = code_of("lambda x: tf.math.reduce_sum(x, axis=-1, keepdims=True)")

    def never(*_arguments: Any) -> None:
        raise AssertionError("code was unmarshalled")

    monkeypatch.setattr(marshal, "loads", never)
    for name, code, read in (
        ("logcount_predictions", known, True),
        ("logcount_predictions", other, False),
        ("lambda_1", known, False),
        ("logcount_predictions", "not base64 !", False),
    ):
        path = write_keras(
            [*PLAIN, ("Lambda", name, ["top"], {"function": [code, None, None]})], {"c": KERNEL}
        )
        if read:
            assert load_model(path).notes[0].startswith("Lambda layer logcount_predictions: taken as the log")
            continue
        with pytest.raises(UnsupportedModelError, match=f"Lambda, stored code that is never run: {name}"):
            load_model(path)


def test_every_layer_that_cannot_be_read_is_named(write_keras: WriteKeras) -> None:
    layers = [
        *PLAIN[:2],
        ("LSTM", "memory", ["c"], {"units": 3}),
        ("Mine>Attention", "look", ["memory"], {}),
        ("Activation", "odd", ["look"], {"activation": "my_own"}),
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(write_keras(layers, {"c": KERNEL}))
    assert "LSTM: memory; Mine>Attention: look; Activation with activation my_own: odd" in str(caught.value)


def test_archives_are_checked_before_they_are_unpacked(keras_file: KerasFile, tmp_path: Path) -> None:
    whole, path = keras_file("images.keras3.keras"), tmp_path / "model.keras"
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", parts["model.weights.h5"])
    with pytest.raises(InputError, match=r"not a whole Keras file: it holds no config\.json"):
        load_model(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", parts["config.json"])
        archive.writestr("model.weights.h5", bytes(10**7))
    with pytest.raises(InputError, match=r"model\.weights\.h5 claims 10,000,000 bytes out of"):
        load_model(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", parts["config.json"])
        archive.writestr("model.weights.h5", b"not HDF5")
    with pytest.raises(InputError, match="damaged or cut short"):
        load_model(path)


def test_the_table_of_layers_names_what_the_documentation_promises() -> None:
    promised = (
        "Conv1D Conv2D Dense BatchNormalization Activation PReLU LeakyReLU ELU ReLU Softmax MaxPooling1D"
        " MaxPooling2D AveragePooling1D AveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D"
        " GlobalAveragePooling1D GlobalAveragePooling2D Flatten Dropout Add Subtract Average Multiply Maximum"
        " Minimum Concatenate Reshape Permute Cropping1D Cropping2D ZeroPadding1D ZeroPadding2D"
    )
    assert set(promised.split()) <= set(kinds.KINDS)
