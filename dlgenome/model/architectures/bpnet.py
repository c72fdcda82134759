"""BPNet: dilated residual convolutions with a profile head and a counts head (Avsec et al. 2021).

Parameter names, padding and cropping are those of bpnet-lite 1.1.0, so its weights fit unchanged and its
predictions are reproduced.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors, shape_of

COUNT_MARGIN = 37
"""Bases beyond each end of the profile that the counts head also averages over."""


MOST_LAYERS = 40


def check_layers(n_layers: int) -> None:
    """Raise ValueError for more layers than dilations that double can have."""
    if not 0 <= n_layers <= MOST_LAYERS:
        raise ValueError(f"n_layers is {n_layers}, and dilations that double allow {MOST_LAYERS} at most")


class BPNet(nn.Module):
    """Profile logits and log counts of one-hot sequences.

    ``trimming`` positions are cut from either end of the profile; by default as many as the
    convolutions see beyond the sequence. Control tracks that are not given count as zero everywhere.
    """

    def __init__(
        self,
        n_filters: int = 64,
        n_layers: int = 8,
        n_outputs: int = 2,
        n_control_tracks: int = 0,
        trimming: int | None = None,
        first_kernel_size: int = 21,
        residual_kernel_size: int = 3,
        profile_kernel_size: int = 75,
        profile_bias: bool = True,
        counts_bias: bool = True,
        input_length: int = 2114,
    ) -> None:
        super().__init__()
        check_layers(n_layers)
        dilations = [2**layer for layer in range(1, n_layers + 1)]
        reach = residual_kernel_size // 2
        if trimming is None:
            trimming = first_kernel_size // 2 + profile_kernel_size // 2 + reach * sum(dilations)
        self.n_filters = n_filters
        self.n_control_tracks = n_control_tracks
        self.trimming = trimming
        self.input_length = input_length
        self.iconv = nn.Conv1d(4, n_filters, first_kernel_size, padding=first_kernel_size // 2)
        self.irelu = nn.ReLU()
        self.rconvs = nn.ModuleList(
            nn.Conv1d(n_filters, n_filters, residual_kernel_size, padding=reach * dilation, dilation=dilation)
            for dilation in dilations
        )
        self.rrelus = nn.ModuleList(nn.ReLU() for _ in dilations)
        self.fconv = nn.Conv1d(
            n_filters + n_control_tracks,
            n_outputs,
            profile_kernel_size,
            padding=profile_kernel_size // 2,
            bias=profile_bias,
        )
        self.linear = nn.Linear(n_filters + int(n_control_tracks > 0), 1, bias=counts_bias)

    def forward(self, sequences: Tensor, controls: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Profile logits (batch, outputs, length - 2 trimming) and log counts (batch, 1).

        ``sequences`` is (batch, 4, length); ``controls`` is (batch, control tracks, length) or None.
        """
        features = self._features(sequences)
        return self._profile(features, controls), self._log_counts(features, controls)

    def _features(self, sequences: Tensor) -> Tensor:
        features: Tensor = self.irelu(self.iconv(sequences))
        for convolution, activation in zip(self.rconvs, self.rrelus, strict=True):
            features = features + activation(convolution(features))
        return features

    def _profile(self, features: Tensor, controls: Tensor | None) -> Tensor:
        # Positions that the trimmed profile does not see would be convolved for nothing.
        margin = max(self.trimming - self.fconv.kernel_size[0] // 2, 0)
        seen = slice(margin, features.shape[2] - margin)
        features, controls = features[:, :, seen], None if controls is None else controls[:, :, seen]
        if controls is not None:
            profile: Tensor = self.fconv(torch.cat([features, controls], dim=1))
        elif self.n_control_tracks:
            profile = F.conv1d(
                features,
                self.fconv.weight[:, : self.n_filters],
                self.fconv.bias,
                padding=self.fconv.kernel_size[0] // 2,
            )
        else:
            profile = self.fconv(features)
        trimmed = self.trimming - margin
        return profile[:, :, trimmed : features.shape[2] - trimmed]

    def _log_counts(self, features: Tensor, controls: Tensor | None) -> Tensor:
        start = max(self.trimming - COUNT_MARGIN, 0)
        end = features.shape[2] - self.trimming + COUNT_MARGIN
        pooled = features[:, :, start:end].mean(dim=2)
        if controls is not None:
            total = controls[:, :, start:end].sum(dim=(1, 2)).unsqueeze(1)
            log_counts: Tensor = self.linear(torch.cat([pooled, torch.log(total + 1)], dim=1))
        elif self.n_control_tracks:  # log(0 + 1) = 0, so the weight of the controls never matters
            log_counts = F.linear(pooled, self.linear.weight[:, : self.n_filters], self.linear.bias)
        else:
            log_counts = self.linear(pooled)
        return log_counts


def infer(tensors: Tensors, prefix: str = "") -> Arguments:
    """Arguments of ``BPNet`` that the shapes under ``prefix`` settle."""
    arguments: Arguments = {}
    if first := shape_of(tensors, f"{prefix}iconv.weight", 3):
        arguments |= {"n_filters": first[0], "first_kernel_size": first[2]}
    pattern = re.compile(rf"{re.escape(prefix)}rconvs\.(\d+)\.weight")
    layers = [int(match[1]) for key in tensors if (match := pattern.fullmatch(key))]
    if layers:
        arguments["n_layers"] = len(set(layers))
    if residual := shape_of(tensors, f"{prefix}rconvs.0.weight", 3):
        arguments["residual_kernel_size"] = residual[2]
    profile = shape_of(tensors, f"{prefix}fconv.weight", 3)
    if profile and first:
        arguments |= {
            "n_outputs": profile[0],
            "n_control_tracks": max(profile[1] - first[0], 0),
            "profile_kernel_size": profile[2],
        }
    for argument, layer in (("profile_bias", "fconv"), ("counts_bias", "linear")):
        if f"{prefix}{layer}.weight" in tensors:
            arguments[argument] = f"{prefix}{layer}.bias" in tensors
    return arguments


def recognises(tensors: Tensors, prefix: str = "") -> bool:
    """True when the keys under ``prefix`` are BPNet's and the shapes fit together."""
    keys = {key.removeprefix(prefix) for key in tensors if key.startswith(prefix)}
    if not all(re.fullmatch(r"(iconv|rconvs\.\d+|fconv|linear)\.(weight|bias)", key) for key in keys):
        return False
    first = shape_of(tensors, f"{prefix}iconv.weight", 3)
    profile = shape_of(tensors, f"{prefix}fconv.weight", 3)
    counts = shape_of(tensors, f"{prefix}linear.weight", 2)
    if first is None or profile is None or counts is None:
        return False
    return first[1] == 4 and profile[1] >= first[0] and counts[0] == 1


BPNET = Architecture(
    "bpnet",
    ("profile", "counts"),
    BPNet,
    infer,
    recognises,
    title="BPNet, the profile of reads at base resolution and their total count",
    notes=(
        "taken for a bpnet; bpnet-lite's BasePairNet has weights of the same names: if it is one, say"
        " --architecture basepairnet",
    ),
)
