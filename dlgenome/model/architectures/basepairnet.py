"""BasePairNet: the BPNet of basepairmodels, which made the ENCODE atlas, as bpnet-lite 1.1.0 holds it.

It differs from `bpnet.BPNet` in three places: residuals are added before the activation, control counts are
summed over the profile's own positions, and their logarithm is taken of the sum plus two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlgenome.model.architectures import bpnet
from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors

CONTROL_PSEUDOCOUNT = 2.0


class BasePairNet(bpnet.BPNet):
    """Profile logits and log counts of one-hot sequences; ``trimming`` is 2 ** n_layers by default."""

    linear: nn.Linear

    def __init__(
        self,
        n_filters: int = 64,
        n_layers: int = 8,
        n_outputs: int = 2,
        n_control_tracks: int = 2,
        trimming: int | None = None,
        first_kernel_size: int = 21,
        residual_kernel_size: int = 3,
        profile_kernel_size: int = 75,
        profile_bias: bool = True,
        counts_bias: bool = True,
        input_length: int = 2114,
    ) -> None:
        bpnet.check_layers(n_layers)
        super().__init__(
            n_filters=n_filters,
            n_layers=n_layers,
            n_outputs=n_outputs,
            n_control_tracks=n_control_tracks,
            trimming=2**n_layers if trimming is None else trimming,
            first_kernel_size=first_kernel_size,
            residual_kernel_size=residual_kernel_size,
            profile_kernel_size=profile_kernel_size,
            profile_bias=profile_bias,
            counts_bias=counts_bias,
            input_length=input_length,
        )

    def _features(self, sequences: Tensor) -> Tensor:
        features = self.iconv(sequences)
        for convolution, activation in zip(self.rconvs, self.rrelus, strict=True):
            features = features + convolution(activation(features))
        activated: Tensor = self.irelu(features)
        return activated

    def _log_counts(self, features: Tensor, controls: Tensor | None) -> Tensor:
        end = features.shape[2] - self.trimming
        start = max(self.trimming - bpnet.COUNT_MARGIN, 0)
        pooled = features[:, :, start : end + bpnet.COUNT_MARGIN].mean(dim=2)
        log_counts = F.linear(pooled, self.linear.weight[:, : self.n_filters], self.linear.bias)
        if not self.n_control_tracks:
            return log_counts
        if controls is None:
            return log_counts + math.log(CONTROL_PSEUDOCOUNT) * self.linear.weight[:, -1]
        total = controls[:, :, self.trimming : end].sum(dim=(1, 2)).unsqueeze(1)
        return log_counts + torch.log(total + CONTROL_PSEUDOCOUNT) * self.linear.weight[:, -1]


def infer(tensors: Tensors) -> Arguments:
    """Arguments that the shapes settle; they are BPNet's."""
    return bpnet.infer(tensors)


def recognises(tensors: Tensors) -> bool:
    """Never: its weights have the names and shapes of BPNet's, so it always needs its name."""
    del tensors
    return False


BASEPAIRNET = Architecture(
    "basepairnet",
    ("profile", "counts"),
    BasePairNet,
    infer,
    recognises,
    title="BPNet of the ENCODE atlas, the profile of reads at base resolution and their total count",
)
