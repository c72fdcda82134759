"""From what a Keras file says about a layer to the torch module that does the same."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dlgenome.model.keras import activations, shapes, windows
from dlgenome.model.keras.axes import ChannelsFirst
from dlgenome.model.keras.topology import Config, Layer

Parts = Mapping[str, Tensor]

_KNOWN_LAMBDA = re.compile(r"(logcount_predictions|logcounts_w_bias|\w+_logsumexp_counts_bias_\d+)(_\d+)?")
"""Lambda layers of the ChromBPNet, chrombpnet-lite and BPNet programs; all are the same logsumexp."""


@dataclass(frozen=True)
class Kind:
    """How to build a layer, and the tensors that it has in the file."""

    build: Callable[[Config, Parts], nn.Module]
    tensors: Callable[[Config], tuple[str, ...]] = lambda _config: ()


def find_kind(layer: Layer) -> Kind | None:
    """The kind of a layer; None where it cannot be read."""
    if layer.class_name == "Lambda":
        return _LOG_SUM_EXP if is_log_sum_exp(layer) else None
    return KINDS.get(layer.class_name.rpartition(">")[2])


def is_log_sum_exp(layer: Layer) -> bool:
    """Whether a Lambda is the one that ChromBPNet and BPNet add counts with.

    Told from its name and from the names that stand in its stored code, which is never run or unmarshalled.
    """
    if not _KNOWN_LAMBDA.fullmatch(layer.place.names[-1]):
        return False
    function = layer.config.get("function")
    if isinstance(function, Mapping):
        inner = function.get("config")
        function = inner.get("code") if isinstance(inner, Mapping) else None
    code = function[0] if isinstance(function, list) and function else function
    try:
        return isinstance(code, str) and b"logsumexp" in base64.b64decode(code)
    except (binascii.Error, ValueError):
        return False


def activation_name(config: Config) -> str:
    """Name of the activation that a layer ends with, ``linear`` where it has none."""
    value = config.get("activation") or "linear"
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner if isinstance(inner, str) else value.get("class_name")
    return str(value)


def build_activation(config: Config, keras_major: int) -> nn.Module | None:
    """The activation at the end of a layer; None for none. KeyError where it is not known."""
    value = config.get("activation")
    if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping):
        return KINDS[str(value["class_name"])].build(value["config"], {})
    name = activation_name(config)
    return None if name == "linear" else activations.Activation(name, keras_major)


def has_known_activation(config: Config) -> bool:
    """Whether :func:`build_activation` knows what to do."""
    value = config.get("activation")
    if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping):
        return value.get("class_name") in ("ReLU", "LeakyReLU", "ELU", "Softmax")
    return activation_name(config) in activations.FUNCTIONS


def _pair(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),) * axes
    if len(values) != axes or any(part < 1 for part in values):
        raise ValueError(f"{value} is not {axes} positive numbers")
    return values


def _margins(value: Any, axes: int) -> list[tuple[int, int]]:
    """Cropping or padding: a number, two numbers, or two pairs."""
    if isinstance(value, int):
        pairs: list[Any] = [(value, value)] * axes
    elif axes == 1:
        pairs = [value]
    else:
        pairs = [part if isinstance(part, (list, tuple)) else (part, part) for part in value]
    found = [(int(front), int(back)) for front, back in pairs]
    if len(found) != axes or any(size < 0 for pair in found for size in pair):
        raise ValueError(f"margins {value}")
    return found


def _formatted(config: Config, layer: nn.Module) -> nn.Module:
    return ChannelsFirst(layer) if config.get("data_format") == "channels_first" else layer


def _with_bias(config: Config) -> tuple[str, ...]:
    return ("kernel", "bias") if config.get("use_bias", True) else ("kernel",)


def _convolution(axes: int) -> Kind:
    def build(config: Config, parts: Parts) -> nn.Module:
        padding = config.get("padding", "valid")
        if padding not in ("valid", "same", "causal") or parts["kernel"].dim() != axes + 2:
            raise ValueError(f"padding {padding} and a kernel with {parts['kernel'].dim()} axes")
        layer = windows.Convolution(
            parts["kernel"],
            parts.get("bias"),
            _pair(config.get("strides", 1), axes),
            _pair(config.get("dilation_rate", 1), axes),
            padding,
            int(config.get("groups", 1)),
        )
        return _formatted(config, layer)

    return Kind(build, _with_bias)


def _pool(axes: int, kind: Callable[..., nn.Module]) -> Kind:
    def build(config: Config, parts: Parts) -> nn.Module:
        del parts
        window = config.get("pool_size") or config.get("pool_length", 2)
        strides = config.get("strides") or window
        padding = config.get("padding", "valid")
        return _formatted(config, kind(_pair(window, axes), _pair(strides, axes), padding))

    return Kind(build)


def _global_pool(largest: bool) -> Kind:
    return Kind(
        lambda config, _: _formatted(
            config, windows.GlobalPooling(largest, bool(config.get("keepdims", False)))
        )
    )


def _batch_normalization() -> Kind:
    def tensors(config: Config) -> tuple[str, ...]:
        own = [name for name, flag in (("gamma", "scale"), ("beta", "center")) if config.get(flag, True)]
        return (*own, "moving_mean", "moving_variance")

    def build(config: Config, parts: Parts) -> nn.Module:
        axis = config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        epsilon = float(config.get("epsilon", 1e-3))
        given = parts["moving_mean"], parts["moving_variance"], parts.get("gamma"), parts.get("beta")
        return shapes.BatchNormalization(*given, epsilon, int(axis))

    return Kind(build, tensors)


def _relu(config: Config, _parts: Parts) -> nn.Module:
    ceiling = config.get("max_value")
    slope, threshold = config.get("negative_slope") or 0.0, config.get("threshold") or 0.0
    return activations.ReLU(None if ceiling is None else float(ceiling), float(slope), float(threshold))


def _leaky_relu(config: Config, _parts: Parts) -> nn.Module:
    return activations.LeakyReLU(float(config.get("negative_slope", config.get("alpha", 0.3))))


def _softmax_axis(config: Config) -> int:
    axis = config.get("axis", -1)
    return int(axis[0] if isinstance(axis, list) and len(axis) == 1 else axis)


_LOG_SUM_EXP = Kind(lambda _config, _parts: activations.LogSumExp())
_IDENTITY = Kind(lambda _config, _parts: shapes.Identity())
_NOTHING_AT_PREDICTION = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "InputLayer", "Activation",
)  # fmt: skip

KINDS: dict[str, Kind] = {
    "Conv1D": _convolution(1),
    "Convolution1D": _convolution(1),
    "Conv2D": _convolution(2),
    "Convolution2D": _convolution(2),
    "Dense": Kind(lambda _, parts: shapes.Dense(parts["kernel"], parts.get("bias")), _with_bias),
    "BatchNormalization": _batch_normalization(),
    "PReLU": Kind(lambda _, parts: activations.PReLU(parts["alpha"]), lambda _: ("alpha",)),
    "ReLU": Kind(_relu),
    "LeakyReLU": Kind(_leaky_relu),
    "ELU": Kind(lambda config, _: activations.ELU(float(config.get("alpha", 1.0)))),
    "Softmax": Kind(lambda config, _: activations.Softmax(_softmax_axis(config))),
    "LogSumExp": _LOG_SUM_EXP,
    "MaxPooling1D": _pool(1, windows.MaxPooling),
    "MaxPooling2D": _pool(2, windows.MaxPooling),
    "AveragePooling1D": _pool(1, windows.AveragePooling),
    "AveragePooling2D": _pool(2, windows.AveragePooling),
    "GlobalMaxPooling1D": _global_pool(True),
    "GlobalMaxPooling2D": _global_pool(True),
    "GlobalAveragePooling1D": _global_pool(False),
    "GlobalAveragePooling2D": _global_pool(False),
    "Flatten": Kind(lambda config, _: shapes.Flatten(config.get("data_format") == "channels_first")),
    "Reshape": Kind(lambda config, _: shapes.Reshape([int(size) for size in config["target_shape"]])),
    "Permute": Kind(lambda config, _: shapes.Permute([int(axis) for axis in config["dims"]])),
    "Cropping1D": Kind(lambda config, _: shapes.Cropping(_margins(config["cropping"], 1))),
    "Cropping2D": Kind(
        lambda config, _: _formatted(config, shapes.Cropping(_margins(config["cropping"], 2)))
    ),
    "ZeroPadding1D": Kind(lambda config, _: shapes.ZeroPadding(_margins(config["padding"], 1))),
    "ZeroPadding2D": Kind(
        lambda config, _: _formatted(config, shapes.ZeroPadding(_margins(config["padding"], 2)))
    ),
    "Concatenate": Kind(lambda config, _: shapes.Concatenate(int(config.get("axis", -1)))),
    **{name: Kind(lambda _config, _parts, name=name: shapes.Merge(name)) for name in shapes.MERGES},  # type: ignore[misc]
    **dict.fromkeys(_NOTHING_AT_PREDICTION, _IDENTITY),
}
"""Keras classes by name; ``Activation`` does nothing itself, its function is added as to any layer."""
