"""ChromBPNet: an accessibility BPNet beside a frozen BPNet of the enzyme's own sequence bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.model.architectures import bpnet
from dlgenome.model.architectures.definition import Architecture, Arguments, Tensors

PARTS = ("bias", "accessibility")


class ChromBPNet(nn.Module):
    """Profile logits and log counts of both parts together; arguments are those of each BPNet."""

    def __init__(
        self,
        bias: Mapping[str, Any] | None = None,
        accessibility: Mapping[str, Any] | None = None,
        input_length: int = 2114,
    ) -> None:
        super().__init__()
        self.bias = bpnet.BPNet(**{"n_outputs": 1, "n_layers": 4} | dict(bias or {}))
        self.accessibility = bpnet.BPNet(**{"n_outputs": 1} | dict(accessibility or {}))
        self.input_length = input_length

    def forward(self, sequences: Tensor, controls: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Summed profile logits (batch, outputs, length) and log of the summed counts (batch, 1).

        The bias profile is cropped to the length of the other. ``controls`` is ignored.
        """
        profile, log_counts = self.accessibility(sequences)
        bias_profile, bias_log_counts = self.bias(sequences)
        length = bias_profile.shape[2]
        margin = (length - profile.shape[2]) // 2
        # exp, sum and log one by one: DeepLIFT's Rescale rule of each differs from that of a fused logsumexp
        together = torch.log(torch.exp(log_counts) + torch.exp(bias_log_counts))
        return profile + bias_profile[:, :, margin : length - margin], together


def infer(tensors: Tensors) -> Arguments:
    """Arguments of both parts that the shapes settle."""
    return {part: bpnet.infer(tensors, f"{part}.") for part in PARTS}


def recognises(tensors: Tensors) -> bool:
    """True when the tensors are those of two BPNets called bias and accessibility."""
    if not all(key.startswith(("bias.", "accessibility.")) for key in tensors):
        return False
    return all(bpnet.recognises(tensors, f"{part}.") for part in PARTS)


CHROMBPNET = Architecture(
    "chrombpnet",
    ("profile", "counts"),
    ChromBPNet,
    infer,
    recognises,
    title="ChromBPNet with its bias model, the accessibility profile at base resolution and its total count",
)
