"""Keras models that are known by their layers' names, and can be rebuilt from weights alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlgenome.errors import UsageError
from dlgenome.model.keras.weights import Weights

_FAMILIES = (
    (2, r"wo_bias_bpnet_1st_conv", "ChromBPNet with its bias model"),
    (1, r"wo_bias_bpnet_1st_conv", "ChromBPNet without its bias model"),
    (1, r"bpnet_1st_conv", "bias model of ChromBPNet"),
    (1, r"main_conv_0", "BPNet as in the ENCODE atlas"),
    (2, r"logcounts", "chrombpnet-lite with the bias as a further input"),
    (1, r"logcounts", "chrombpnet-lite"),
)
"""How deep the telling layer stands, its name, and what the model is called."""

_BPNET_HEADS = (
    "main_conv_0", "main_profile_head", "profile_predictions", "main_counts_head", "logcounts_predictions",
)  # fmt: skip

Layers = list[dict[str, Any]]


def name_family(layers: Sequence[tuple[str, ...]]) -> str:
    """What to call a model with layers of these names."""
    for depth, name, title in _FAMILIES:
        if any(len(names) == depth and re.fullmatch(rf"{name}(_\d+)?", names[-1]) for names in layers):
            return f"{title}, from a Keras file"
    return "a Keras model"


def rebuild_description(path: Path, weights: Weights, arguments: Mapping[str, object]) -> dict[str, Any]:
    """A description for weights alone; UsageError where the layers' names say too little."""
    shapes = {} if weights.numbered else weights.shapes()
    kernels = {
        _layer(name): shape for name, shape in shapes.items() if name.split(":")[0].endswith("/kernel")
    }
    sizes = _sizes(arguments)
    for prefix, head in (("wo_bias_", "wo_bias_bpnet_"), ("", "")):
        needed = {f"{prefix}bpnet_1st_conv", f"{head}prof_out_precrop", f"{head}logcount_predictions"}
        if needed <= set(kernels):
            return _chrombpnet(kernels, prefix, head, *sizes)
    if set(_BPNET_HEADS) <= set(kernels):
        return _bpnet(kernels, *sizes)
    if "logcounts" in kernels and all(re.fullmatch(r"conv1d(_\d+)?|logcounts", name) for name in kernels):
        return _lite(kernels, sizes[0])
    held = ", ".join(list(kernels)[:5] or weights.layer_names()[:5]) or "layers by number"
    raise UsageError(
        f"{path} holds Keras weights without a description of the layers ({held});"
        " give the model's JSON (model.to_json() in Keras) with --architecture FILE.json."
    )


def _layer(name: str) -> str:
    return name.split("/")[-2]


def _sizes(arguments: Mapping[str, object]) -> tuple[int, int]:
    unknown = [name for name in arguments if name not in ("input_length", "output_length")]
    if unknown:
        raise UsageError(
            f"--architecture-args: Keras weights take input_length and output_length, not {unknown[0]}."
        )
    sizes = [arguments.get("input_length", 2114), arguments.get("output_length", 1000)]
    if not all(isinstance(size, int) and 0 < size < 10**8 for size in sizes):
        raise UsageError("--architecture-args: input_length and output_length are whole numbers of bases.")
    return int(str(sizes[0])), int(str(sizes[1]))


def _entry(class_name: str, name: str, inputs: list[str], **config: Any) -> dict[str, Any]:
    nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": nodes,
    }


def _model(layers: Layers, inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    config = {
        "layers": layers,
        "input_layers": [[name, 0, 0] for name in inputs],
        "output_layers": [[name, 0, 0] for name in outputs],
    }
    return {"class_name": "Functional", "config": config, "keras_version": "2"}


def _depth(kernels: Mapping[str, Any], pattern: str) -> int:
    return max((int(match[1]) for name in kernels if (match := re.fullmatch(pattern, name))), default=0)


def _crop(length: int, wanted: int) -> list[int]:
    if length < wanted:
        raise UsageError(
            f"--architecture-args: an output of {wanted} bases is longer than the {length} there are."
        )
    return [(length - wanted) // 2, length - wanted - (length - wanted) // 2]


def _chrombpnet(
    kernels: Mapping[str, tuple[int, ...]], prefix: str, head: str, length: int, wanted: int
) -> dict[str, Any]:
    """Unpadded; activations before the residual."""
    value = f"{prefix}bpnet_1st_conv"
    layers = [_entry("InputLayer", "sequence", [], batch_input_shape=[None, length, 4])]
    layers.append(_entry("Conv1D", value, ["sequence"], activation="relu"))
    length -= kernels[value][0] - 1
    for layer in range(1, _depth(kernels, rf"{prefix}bpnet_(\d+)conv") + 1):
        name, crop, total = f"{prefix}bpnet_{layer}conv", f"{prefix}bpnet_{layer}crop", f"add_{layer}"
        lost = (kernels[name][0] - 1) * 2**layer
        layers.append(_entry("Conv1D", name, [value], activation="relu", dilation_rate=[2**layer]))
        layers.append(_entry("Cropping1D", crop, [value], cropping=[lost // 2, lost - lost // 2]))
        layers.append(_entry("Add", total, [name, crop]))
        value, length = total, length - lost
    profile, counts = f"{head}prof_out_precrop", f"{head}logcount_predictions"
    length -= kernels[profile][0] - 1
    layers += [
        _entry("Conv1D", profile, [value]),
        _entry("Cropping1D", "profile_crop", [profile], cropping=_crop(length, wanted)),
        _entry("Flatten", "logits_profile_predictions", ["profile_crop"]),
        _entry("GlobalAveragePooling1D", "gap", [value]),
        _entry("Dense", counts, ["gap"]),
    ]
    return _model(layers, ["sequence"], ["logits_profile_predictions", counts])


def _bpnet(kernels: Mapping[str, tuple[int, ...]], length: int, wanted: int) -> dict[str, Any]:
    """Unpadded; activations after the residual; a control's profile and log counts beside the sequence."""
    tracks = kernels["profile_predictions"][1] - kernels["main_profile_head"][2]
    layers = [
        _entry("InputLayer", "sequence", [], batch_input_shape=[None, length, 4]),
        _entry("InputLayer", "profile_bias_input_0", [], batch_input_shape=[None, wanted, tracks]),
        _entry("InputLayer", "counts_bias_input_0", [], batch_input_shape=[None, tracks]),
        _entry("Conv1D", "main_conv_0", ["sequence"]),
    ]
    value, length = "main_conv_0", length - kernels["main_conv_0"][0] + 1
    for layer in range(1, _depth(kernels, r"main_dil_conv_(\d+)") + 1):
        name, total = f"main_dil_conv_{layer}", f"main_add_{layer}"
        lost = (kernels[name][0] - 1) * 2**layer
        layers += [
            _entry("ReLU", f"{value}_relu", [value]),
            _entry("Conv1D", name, [f"{value}_relu"], dilation_rate=[2**layer]),
            _entry("Cropping1D", f"{value}_cr", [value], cropping=[lost // 2, lost - lost // 2]),
            _entry("Add", total, [name, f"{value}_cr"]),
        ]
        value, length = total, length - lost
    length -= kernels["main_profile_head"][0] - 1
    layers += [
        _entry("ReLU", "features", [value]),
        _entry("Conv1D", "main_profile_head", ["features"]),
        _entry("Cropping1D", "profile_crop", ["main_profile_head"], cropping=_crop(length, wanted)),
        _entry("Concatenate", "profile_with_control", ["profile_crop", "profile_bias_input_0"]),
        _entry("Conv1D", "profile_predictions", ["profile_with_control"]),
        _entry("GlobalAveragePooling1D", "gap", ["features"]),
        _entry("Dense", "main_counts_head", ["gap"]),
        _entry("LogSumExp", "control_counts", ["counts_bias_input_0"]),
        _entry("Concatenate", "counts_with_control", ["main_counts_head", "control_counts"]),
        _entry("Dense", "logcounts_predictions", ["counts_with_control"]),
    ]
    inputs = ["sequence", "profile_bias_input_0", "counts_bias_input_0"]
    return _model(layers, inputs, ["profile_predictions", "logcounts_predictions"])


def _lite(kernels: Mapping[str, tuple[int, ...]], length: int) -> dict[str, Any]:
    """Padded convolutions of automatic names: the first, the dilated ones, the profile."""
    names = sorted((name for name in kernels if name != "logcounts"), key=_number)
    first, *residual, last = names
    layers = [_entry("InputLayer", "sequence", [], batch_input_shape=[None, length, 4])]
    layers.append(_entry("Conv1D", first, ["sequence"], activation="relu", padding="same"))
    value = first
    for layer, name in enumerate(residual, start=1):
        layers.append(
            _entry("Conv1D", name, [value], activation="relu", padding="same", dilation_rate=[2**layer])
        )
        layers.append(_entry("Add", f"add_{layer}", [name, value]))
        value = f"add_{layer}"
    layers += [
        _entry("Conv1D", last, [value], padding="same"),
        _entry("Flatten", "logits", [last]),
        _entry("GlobalAveragePooling1D", "gap", [value]),
        _entry("Dense", "logcounts", ["gap"]),
    ]
    return _model(layers, ["sequence"], ["logits", "logcounts"])


def _number(name: str) -> int:
    return int(name.rpartition("_")[2]) if "_" in name else 0
