"""Makes the small Keras files of this folder, and what Keras itself predicts with them.

Run it once with TensorFlow 2.15 (Keras 2) and once with TensorFlow 2.18 (Keras 3); which programs wrote the
files stands in ``versions`` of ``predictions.keras2.npz`` and ``predictions.keras3.npz``. Weights and
inputs are random. Layer names, layer order and layer settings of the ChromBPNet, chrombpnet-lite and BPNet
models are those of the published files; only the number of filters is smaller.
"""

from __future__ import annotations

import gzip
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

keras = tf.keras
layers = keras.layers
FOLDER = Path(__file__).parent / "files"
MAJOR = int(version("keras").split(".")[0])


def log_sum_exp() -> Any:
    """The Lambda of ChromBPNet and BPNet; Keras stores its code, here without the path of this file."""
    function = lambda x: tf.math.reduce_logsumexp(x, axis=-1, keepdims=True)  # noqa: E731
    function.__code__ = function.__code__.replace(co_filename="models.py", co_qualname="<lambda>")
    function.__module__ = "__main__"
    return function


def trunk(inputs: Any, prefix: str, filters: int, depth: int) -> Any:
    """Unpadded dilated convolutions with cropped residuals."""
    value = layers.Conv1D(filters, 21, activation="relu", name=f"{prefix}bpnet_1st_conv")(inputs)
    for layer in range(1, depth + 1):
        name = f"{prefix}bpnet_{layer}conv"
        branch = layers.Conv1D(filters, 3, activation="relu", dilation_rate=2**layer, name=name)(value)
        value = layers.Cropping1D(2**layer, name=f"{prefix}bpnet_{layer}crop")(value)
        value = layers.add([branch, value])
    return value


def bias_model(filters: int = 3, depth: int = 4) -> Any:
    """The model of the enzyme's bias."""
    inputs = keras.Input((2114, 4), name="sequence")
    value = trunk(inputs, "", filters, depth)
    profile = layers.Conv1D(1, 75, name="prof_out_precrop")(value)
    crop = (profile.shape[1] - 1000) // 2
    profile = layers.Cropping1D(crop, name="logits_profile_predictions_preflatten")(profile)
    profile = layers.Flatten(name="logits_profile_predictions")(profile)
    pooled = layers.GlobalAveragePooling1D(name="gap")(value)
    counts = layers.Dense(1, name="logcount_predictions")(pooled)
    return keras.Model(inputs=[inputs], outputs=[profile, counts])


def nobias_model(filters: int = 4, depth: int = 8) -> Any:
    """The accessibility model."""
    prefix = "wo_bias_"
    inputs = keras.Input((2114, 4), name="sequence")
    value = trunk(inputs, prefix, filters, depth)
    profile = layers.Conv1D(1, 75, name=f"{prefix}bpnet_prof_out_precrop")(value)
    crop = (profile.shape[1] - 1000) // 2
    profile = layers.Cropping1D(crop, name=f"{prefix}bpnet_logitt_before_flatten")(profile)
    profile = layers.Flatten(name=f"{prefix}bpnet_logits_profile_predictions")(profile)
    pooled = layers.GlobalAveragePooling1D(name="gap")(value)
    counts = layers.Dense(1, name=f"{prefix}bpnet_logcount_predictions")(pooled)
    return keras.Model(inputs=[inputs], outputs=[profile, counts], name="model_wo_bias")


def combined_model(bias_filters: int = 2, filters: int = 2) -> Any:
    """Both, the bias frozen: profiles added, counts added in count space by a Lambda."""
    bias, accessibility = bias_model(bias_filters, 4), nobias_model(filters, 8)
    randomise(bias, 1)
    for layer in bias.layers:
        layer.trainable = False
    inputs = keras.Input((2114, 4), name="sequence")
    of_bias, of_accessibility = bias(inputs), accessibility(inputs)
    profile = layers.Add(name="logits_profile_predictions")([of_accessibility[0], of_bias[0]])
    both = layers.Concatenate(axis=-1)([of_accessibility[1], of_bias[1]])
    counts = layers.Lambda(log_sum_exp(), name="logcount_predictions")(both)
    return keras.Model(inputs=[inputs], outputs=[profile, counts])


def lite_model(filters: int = 3, depth: int = 6) -> Any:
    """chrombpnet-lite: padded convolutions, automatic names, a profile as long as the sequence."""
    inputs = keras.Input((600, 4))
    value = layers.Conv1D(filters, 25, padding="same", activation="relu")(inputs)
    for layer in range(1, depth + 1):
        branch = layers.Conv1D(filters, 3, padding="same", activation="relu", dilation_rate=2**layer)(value)
        value = layers.add([branch, value])
    profile = layers.Flatten(name="logits")(layers.Conv1D(1, 25, padding="same")(value))
    counts = layers.Dense(1, name="logcounts")(layers.GlobalAveragePooling1D()(value))
    return keras.Model(inputs=inputs, outputs=[profile, counts])


class CustomModel(keras.Model):  # type: ignore[misc, name-defined, unused-ignore]
    """A model with a training step of its own, as the BPNet of the ENCODE atlas is."""


def atlas_model(filters: int = 3, depth: int = 8) -> Any:
    """BPNet with pre-activation residuals and a control's profile and log counts as further inputs."""
    inputs = keras.Input((2114, 4), name="sequence")
    value = layers.Conv1D(filters, 21, name="main_conv_0")(inputs)
    name = "main_conv_0"
    for layer in range(1, depth + 1):
        active = layers.ReLU(name=f"{name}_relu")(value)
        branch = layers.Conv1D(filters, 3, dilation_rate=2**layer, name=f"main_dil_conv_{layer}")(active)
        value = layers.Cropping1D(2**layer, name=f"{name}_cr")(value)
        name = f"main_add_{layer}"
        value = layers.add([branch, value], name=name)
    value = layers.ReLU(name=f"{name}_relu")(value)
    head = layers.Conv1D(2, 75, name="main_profile_head")(value)
    crop = head.shape[1] // 2 - 500
    head = layers.Cropping1D(crop, name="main_profile_head_cropped")(head)
    pooled = layers.GlobalAveragePooling1D(name="main_global_avg_pooling")(value)
    counts = layers.Dense(1, name="main_counts_head")(pooled)
    profile_bias = keras.Input((1000, 2), name="profile_bias_input_0")
    counts_bias = keras.Input((2,), name="counts_bias_input_0")
    both = layers.concatenate([head, profile_bias], name="main_concat_with_prof_bias_0", axis=-1)
    profile = layers.Conv1D(2, 1, name="profile_predictions")(both)
    total = layers.Lambda(log_sum_exp(), name="main_logsumexp_counts_bias_0")(counts_bias)
    both = layers.concatenate([counts, total], name="main_concat_with_counts_bias_0", axis=-1)
    log_counts = layers.Dense(1, name="logcounts_predictions")(both)
    return CustomModel(inputs=[inputs, profile_bias, counts_bias], outputs=[profile, log_counts])


def many_layers() -> Any:
    """One of each layer for sequences, with the settings that are easy to get wrong."""
    inputs = keras.Input((61, 4), name="bases")
    value = layers.Conv1D(6, 4, strides=2, padding="same")(inputs)
    value = layers.PReLU()(layers.BatchNormalization()(value))
    left = layers.MaxPooling1D(4, strides=3, padding="same")(value)
    left = layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="elu")(left)
    right = layers.AveragePooling1D(5, strides=3, padding="same")(value)
    right = layers.LeakyReLU()(layers.Conv1D(6, 2, padding="same", groups=3)(right))
    value = layers.Average()([left, right])
    gate = layers.Dense(6, activation="sigmoid")(value)
    value = layers.Multiply()([value, gate])
    value = layers.Concatenate(axis=1)(
        [value, layers.ZeroPadding1D((1, 2))(layers.Cropping1D((2, 3))(value))]
    )
    value = layers.PReLU(shared_axes=[1])(layers.SpatialDropout1D(0.2)(value))
    value = layers.MaxPooling1D(2, strides=1, padding="same")(value)
    value = layers.Reshape((-1, 3))(layers.Permute((2, 1))(value))
    value = layers.Activation("softplus")(layers.BatchNormalization(scale=False, axis=1)(value))
    value = layers.Subtract()([value, layers.Softmax(axis=1)(value)])
    value = layers.Maximum()([value, layers.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2)(value)])
    flat = layers.Flatten()(value)
    highest, mean = layers.GlobalMaxPooling1D()(value), layers.GlobalAveragePooling1D()(value)
    flat = layers.Dropout(0.5)(layers.Concatenate()([flat, highest, mean]))
    flat = layers.Dense(7, activation="hard_sigmoid")(layers.GaussianNoise(0.1)(flat))
    flat = layers.Dense(7, activation="gelu")(layers.Activation("tanh")(flat))
    flat = layers.Add()([flat, layers.Activation("swish")(flat), layers.ELU(0.7)(flat)])
    return keras.Model(inputs, layers.Dense(3, activation="sigmoid", use_bias=False)(flat))


def images() -> Any:
    """Two-dimensional layers, ending in a softmax layer."""
    return keras.Sequential(
        [
            keras.Input((13, 12, 2)),
            layers.ZeroPadding2D(((1, 0), (2, 3))),
            layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", activation="selu"),
            layers.BatchNormalization(center=False),
            layers.MaxPooling2D((2, 3), padding="same"),
            layers.Conv2D(6, (2, 3), dilation_rate=(1, 2), padding="same", activation="relu"),
            layers.Cropping2D(((0, 1), (1, 0))),
            layers.AveragePooling2D(2, strides=1, padding="same"),
            layers.PReLU(shared_axes=[1, 2]),
            layers.GlobalAveragePooling2D() if MAJOR == 2 else layers.Flatten(),
            layers.Dense(4, name="scores"),
            layers.Softmax(),
        ]
    )


def twice() -> Any:
    """A nested Sequential called on the sequence and on its reverse complement, as siamese models do."""
    part = keras.Sequential(
        [
            keras.Input((30, 4)),
            layers.Conv1D(5, 6, activation="tanh"),
            layers.BatchNormalization(),
            layers.GlobalMaxPooling1D(),
            layers.Dense(3, activation="tanh"),
        ],
        name="encoder",
    )
    inputs = keras.Input((60, 4))
    first, second = layers.Cropping1D((0, 30))(inputs), layers.Cropping1D((30, 0))(inputs)
    value = layers.Concatenate()([part(first), part(second)])
    return keras.Model(inputs, layers.Activation("sigmoid")(layers.Dense(2)(value)))


def randomise(model: Any, seed: int) -> None:
    """Weights of a seed; variances positive, some scales negative."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 2 or "kernel" in variable.name else 0.3
        values = rng.normal(0, scale, shape)
        name = getattr(variable, "path", variable.name)
        variable.assign(np.abs(values) + 0.3 if "variance" in name else values)


def example(shape: tuple[int, ...], seed: int, count: int = 2) -> Any:
    """One-hot where the last axis has four entries, normal numbers elsewhere."""
    rng = np.random.default_rng(seed)
    if shape[-1] == 4 and len(shape) == 2:
        return np.eye(4, dtype=np.float32)[rng.integers(0, 4, (count, shape[0]))]
    return rng.normal(size=(count, *shape)).astype(np.float32)


def logits(model: Any) -> Any:
    """The model without a sigmoid or softmax at its end."""
    last = model.layers[-1]
    if type(last).__name__ in ("Activation", "Softmax"):
        return keras.Model(model.inputs, last.input)
    if getattr(getattr(last, "activation", None), "__name__", "") == "sigmoid":
        last.activation = keras.activations.linear
    return model


MODELS: dict[str, Any] = {
    "chrombpnet_bias": bias_model,
    "chrombpnet_nobias": nobias_model,
    "chrombpnet": combined_model,
    "chrombpnet_lite": lite_model,
    "atlas": atlas_model,
    "layers": many_layers,
    "images": images,
    "twice": twice,
}
SAVED: dict[int, dict[str, tuple[str, ...]]] = {
    2: dict.fromkeys(MODELS, (".h5",)) | {"layers": (".h5", ".keras", ".weights.h5")},
    3: {
        "chrombpnet": (".h5", ".keras"),
        "layers": (".h5", ".keras", ".weights.h5"),
        "images": (".keras",),
        "twice": (".keras", ".weights.h5", ".h5"),
    },
}


def save(model: Any, name: str, ending: str) -> None:
    """One file, compressed; weights alone get the model's JSON beside them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{ending}"
        if ending == ".weights.h5":
            model.save_weights(path)
            path.with_name(f"{name}.json").write_text(json.dumps(json.loads(model.to_json())))
        else:
            model.save(path)
        for written in Path(folder).iterdir():
            data = gzip.compress(written.read_bytes(), mtime=0)
            (FOLDER / f"{written.name}.gz").write_bytes(data)


def main() -> None:
    """Write every file and the predictions."""
    stored: dict[str, Any] = {"versions": f"TensorFlow {tf.__version__}, Keras {version('keras')}"}
    for seed, (name, formats) in enumerate(SAVED[MAJOR].items()):
        keras.backend.clear_session()
        model = MODELS[name]()
        randomise(model, 100 + seed)
        shapes = [tuple(tensor.shape)[1:] for tensor in model.inputs]
        inputs = [example(shape, seed + 10 * index) for index, shape in enumerate(shapes)]
        for ending in formats:
            save(model, f"{name}.keras{MAJOR}", ending)
        outputs = logits(model)(inputs if len(inputs) > 1 else inputs[0], training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        stored |= {f"{name}/input{index}": value for index, value in enumerate(inputs)}
        stored |= {f"{name}/output{index}": np.asarray(value) for index, value in enumerate(outputs)}
    np.savez_compressed(FOLDER / f"predictions.keras{MAJOR}.npz", **stored)
    sys.stdout.write(f"{stored['versions']}\n")


if __name__ == "__main__":
    main()
