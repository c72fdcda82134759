"""Softmax, log-softmax and logsumexp through the logarithmic mean.

With L(a, b) = (a - b) / (ln a - ln b), S the sum of exponentials and y the softmax of the logits:

    difference of ln S = sum_j w_j (x_j - r_j),     w_j = L(e^x_j, e^r_j) / L(S_x, S_r)
    difference of y_i  = k_i ((x_i - r_i) - difference of ln S),     k_i = L(y_i of x, y_i of r)

so all three are exact in the sum. The logits are centred on their mean first, which leaves the function
unchanged and makes the split independent of a constant added to all logits. Everything is computed in
float64: with logits of 100 and more ``1 - w`` cancels to nothing in float32. A logit of -inf (a mask) must be
-inf in the sequence and in the reference; it carries nothing. Where all are, attention makes zeros, which
carry nothing either.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, aten, same_axis
from dlgenome.attribution.softmax_kernels import softmax_multiplier
from dlgenome.errors import UnsupportedModelError


class Softmax(Rule):
    """One of the three functions along one axis; subclasses combine the parts."""

    title = "rescale (softmax)"
    keeps = "inputs"
    fresh = True
    logarithm: ClassVar[bool | None] = False
    """Whether the logarithm is meant; None for what is neither softmax nor its logarithm."""

    def refusal(self, call: Call) -> str | None:
        """Refused where it normalises across the batch."""
        axes = _axes(call)
        dims = len(call.input_infos[0].dims)
        if len(axes) != 1:
            return "it runs over several axes at once; flatten them first"
        if same_axis(axes[0], call.input_batch(0).axis, dims):
            return "it normalises across the batch"
        return None

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Multiplier through the centred function, in float64 where the device has it."""
        batch = call.input_batch(0)
        axis = _axes(call)[0] % len(call.input_infos[0].dims) - len(call.input_infos[0].dims)
        if self.logarithm is not None and axis == -1:
            kept = saved.sequences[0], saved.references[0]
            fused = softmax_multiplier(*kept, multiplier, saved.step, batch, logarithm=self.logarithm)
            if fused is not None:
                return [fused]
        x, r = saved.sequence(0, batch), saved.reference(0, batch)
        wide = x.dtype if x.device.type == "mps" else torch.float64
        # The batch axis was unfolded to four, so axes behind it are counted from the end.
        axis = axis if batch.axis < len(call.input_infos[0].dims) + axis else axis - 3
        x, r = _centred(x.to(wide), axis), _centred(r.to(wide), axis)
        if bool((torch.isneginf(x) != torch.isneginf(r)).any()):
            raise UnsupportedModelError(
                f"{call.op} in module {call.source.module} ({call.source.line}): a logit is -inf in the "
                "sequence only or in the reference only; masks must not depend on the sequence."
            )
        m = self._output_multiplier(call, multiplier, saved, axis).to(wide)
        result = self.through(x, r, m, axis)
        masked = torch.isneginf(r)
        count = (~masked).sum(axis, keepdim=True).clamp_min(1)
        centred = result - result.sum(axis, keepdim=True) / count
        return [saved.step.flat_pairs(centred.masked_fill(masked, 0).to(multiplier.dtype), batch)]

    def _output_multiplier(self, call: Call, multiplier: Tensor, saved: Backward, axis: int) -> Tensor:
        return saved.step.pair_part(multiplier, call.batch)

    def through(self, x: Tensor, r: Tensor, multiplier: Tensor, axis: int) -> Tensor:
        """Multiplier of the centred logits; x broadcasts over the references of r."""
        log_x, log_r = x.logsumexp(axis, keepdim=True), r.logsumexp(axis, keepdim=True)
        k = log_mean(x - log_x, r - log_r).exp()
        weighted = multiplier * k
        return weighted - _weights(x, r, log_x, log_r) * weighted.sum(axis, keepdim=True)


class LogSoftmax(Softmax):
    """``x_i - ln S``."""

    logarithm = True

    def through(self, x: Tensor, r: Tensor, multiplier: Tensor, axis: int) -> Tensor:
        """Multiplier less w times its sum."""
        log_x, log_r = x.logsumexp(axis, keepdim=True), r.logsumexp(axis, keepdim=True)
        return multiplier - _weights(x, r, log_x, log_r) * multiplier.sum(axis, keepdim=True)


class LogSumExp(Softmax):
    """``ln S``: the mean of the logits plus logsumexp of the centred ones."""

    logarithm = None

    def _output_multiplier(self, call: Call, multiplier: Tensor, saved: Backward, axis: int) -> Tensor:
        batch = call.batch
        if not call.argument(2, "keepdim", False):
            dims = len(call.input_infos[0].dims)
            multiplier = multiplier.unsqueeze(_axes(call)[0] % dims)
            batch = call.input_batch(0)
        return saved.step.pair_part(multiplier, batch)

    def through(self, x: Tensor, r: Tensor, multiplier: Tensor, axis: int) -> Tensor:
        """w times the multiplier, plus what the mean carries; the caller subtracts the mean of the result."""
        log_x, log_r = x.logsumexp(axis, keepdim=True), r.logsumexp(axis, keepdim=True)
        return _weights(x, r, log_x, log_r) * multiplier

    def backward(self, call: Call, multiplier: Tensor, saved: Backward) -> Multipliers:
        """Through the centred logits, and evenly through their mean."""
        (centred,) = super().backward(call, multiplier, saved)
        assert centred is not None
        batch = call.input_batch(0)
        axis = _axes(call)[0] % len(call.input_infos[0].dims)
        through_mean = self._output_multiplier(call, multiplier, saved, axis)
        known = ~torch.isneginf(saved.step.flat_pairs(saved.reference(0, batch), batch))
        share = known.to(multiplier.dtype) / known.sum(axis, keepdim=True)
        return [centred + saved.step.flat_pairs(through_mean, batch) * share]


def log_mean(log_a: Tensor, log_b: Tensor) -> Tensor:
    """ln L(a, b) from the logarithms of a and b; -inf where both are."""
    high, gap = torch.maximum(log_a, log_b), (log_a - log_b).abs()
    gap = torch.where(torch.isnan(gap), 0, gap)
    return high + log_ratio(gap)


def log_ratio(gap: Tensor) -> Tensor:
    """ln((1 - e^-d) / d) for d >= 0."""
    equal = gap == 0
    return torch.where(equal, 0, (torch.expm1(-gap).neg() / gap.masked_fill(equal, 1)).log())


def _weights(x: Tensor, r: Tensor, log_x: Tensor, log_r: Tensor) -> Tensor:
    return (log_mean(x, r) - log_mean(log_x, log_r)).exp()


def _centred(logits: Tensor, axis: int) -> Tensor:
    masked = torch.isneginf(logits)
    count = (~masked).sum(axis, keepdim=True).clamp_min(1)
    return logits - logits.masked_fill(masked, 0).sum(axis, keepdim=True) / count


def _axes(call: Call) -> list[int]:
    axes = call.argument(1, "dim")
    return list(axes) if isinstance(axes, (list, tuple)) else [axes]


RULES: dict[Any, Rule] = {
    aten.softmax.int: Softmax(),
    aten._softmax.default: Softmax(),
    aten._safe_softmax.default: Softmax(),
    aten.log_softmax.int: LogSoftmax(),
    aten._log_softmax.default: LogSoftmax(),
    aten.logsumexp.default: LogSumExp(),
}
