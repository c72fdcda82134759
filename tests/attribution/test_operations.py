"""Every operation of sequence models: contributions sum to the output difference, or it is refused by name.

Operations are branches of a few networks with one target each, so that torch.export runs once for a dozen of
them; where a network is not clean each of its branches is tried alone and shows its own fault.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import einsum, pack, rearrange, reduce, repeat
from einops.layers.torch import Rearrange, Reduce
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.lowering import Program, Refusal, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.rulesets import RuleSet
from dlgenome.errors import UnsupportedModelError

CHANNELS, LENGTH = 4, 16
Table = dict[str, Callable[..., Any]]


class Branch(nn.Module):
    """An operation on (batch, channels, length), then fixed weights down to one number."""

    def __init__(self, operation: Callable[..., Any]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Any:
        values = self.operation(x)
        flat = values.reshape(x.shape[0], -1)
        return flat @ torch.cos(torch.arange(flat.shape[1], dtype=flat.dtype))[:, None]


class Branches(nn.Module):
    """One stem, whose outputs have both signs of both parts, and a target for every branch."""

    def __init__(self, operations: Table) -> None:
        super().__init__()
        self.stem = nn.Conv1d(CHANNELS, CHANNELS, 1)
        self.branches = nn.ModuleList([Branch(operation) for operation in operations.values()])
        generator = torch.Generator().manual_seed(7)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=generator)
        for name, buffer in self.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5, generator=generator)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        return torch.cat([branch(stem) for branch in self.branches], 1)


def last(x: Tensor) -> Tensor:
    """Channels last: (batch, length, channels)."""
    return x.transpose(1, 2)


def image(x: Tensor) -> Tensor:
    """(batch, channels, 4, length / 4)."""
    return x.unflatten(2, (4, LENGTH // 4))  # type: ignore[no-untyped-call, no-any-return]


class On(nn.Module):
    """A module on a view of its input."""

    def __init__(self, view: Callable[[Tensor], Tensor], module: nn.Module) -> None:
        super().__init__()
        self.view, self.module = view, module

    def forward(self, x: Tensor) -> Any:
        out = self.module(self.view(x))
        return out[0] if isinstance(out, tuple) else out


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class With(nn.Module):
    """A function of the input and a parameter."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.weight)


def activations() -> Table:
    modules = [
        nn.ReLU(), nn.ReLU6(), nn.RReLU(), nn.ELU(0.7), nn.SELU(), nn.CELU(1.3),
        nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softplus(2, 5),
        nn.Softshrink(0.3), nn.Hardshrink(0.3), nn.Tanhshrink(), nn.Threshold(0.1, 0.2),
        nn.Hardtanh(-0.4, 0.8), nn.Hardsigmoid(),
        nn.Hardswish(), nn.LeakyReLU(0.1), nn.LogSigmoid(), nn.PReLU(), nn.PReLU(CHANNELS), nn.Sigmoid(),
        nn.Tanh(), nn.Softsign(), nn.Softmin(1), nn.Softmax(2), nn.LogSoftmax(1), nn.GLU(1), nn.Dropout(0.5),
        nn.Dropout1d(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5), nn.Identity(),
    ]  # fmt: skip
    table: Table = {f"nn.{module}": module for module in modules}
    table["nn.ReLU(inplace=True)"] = On(lambda x: x + 0, nn.ReLU(inplace=True))
    table["nn.Softmax2d()"] = On(image, nn.Softmax2d())
    table["nn.Dropout2d()"] = On(image, nn.Dropout2d())
    return table


def functional_activations() -> Table:
    named: list[Callable[..., Any]] = [
        F.relu, F.relu6, F.rrelu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softshrink,
        F.hardshrink, F.tanhshrink, F.hardtanh, F.hardsigmoid, F.hardswish, F.leaky_relu, F.logsigmoid,
        F.softsign, F.glu, torch.relu, torch.sigmoid, torch.tanh, torch.selu, torch.celu,
    ]  # fmt: skip
    table: Table = {f"{f.__name__} ({f.__module__})": f for f in named}
    table |= {
        "F.relu(inplace)": lambda x: F.relu(x + 0, inplace=True),
        "x.relu_()": lambda x: (x + 0).relu_(),
        "x.relu() twice": lambda x: (x.relu() - 0.3).relu(),
        "x.clamp_(min=0)": lambda x: (x * 1.5).clamp_(min=0),
        "F.gelu(tanh)": lambda x: F.gelu(x, approximate="tanh"),
        "F.threshold": lambda x: F.threshold(x, 0.2, -0.1),
        "F.prelu": With(F.prelu, CHANNELS),
        "F.softmin": lambda x: F.softmin(x, 1),
        "F.softmax": lambda x: F.softmax(x, -1),
        "F.softmax(dtype)": lambda x: F.softmax(x, -1, dtype=torch.float64),
        "F.log_softmax": lambda x: F.log_softmax(x, 2),
        "F.dropout(training=False)": lambda x: F.dropout(x, 0.5, training=False),
        "F.dropout(training=True) is switched off": Dropping(),
    }
    return table


class Dropping(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return F.dropout(x, 0.0, training=True)


def functions() -> Table:
    names = [
        "exp", "exp2", "expm1", "sin", "cos", "sinh", "cosh", "atan", "asinh", "erf", "erfc", "abs", "square",
        "neg", "sigmoid", "sign", "floor", "ceil", "round", "trunc", "frac", "sgn", "positive", "sinc",
    ]  # fmt: skip
    positive = ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "logit", "lgamma", "tan"]
    table: Table = {f"torch.{name}": getattr(torch, name) for name in names}
    table |= {f"torch.{name}": On(torch.sigmoid, Function(getattr(torch, name))) for name in positive}
    return table


def written_by_hand() -> Table:
    return {
        "GELU by sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
        "GELU by erf": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
        "GELU by tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "swish": lambda x: x * torch.sigmoid(x),
        "softplus by log1p": lambda x: torch.log1p(torch.exp(x)),
        "ELU by where": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
        "leaky ReLU by maximum": lambda x: torch.maximum(x, 0.1 * x),
        "leaky ReLU by comparison": lambda x: x * (x > 0) + 0.1 * x * (x <= 0),
        "ReLU by where and zeros_like": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
        "ReLU by comparison": lambda x: x * (x > 0).float(),
        "ReLU by abs": lambda x: (x + x.abs()) / 2,
        "squared ReLU": lambda x: F.relu(x) ** 2,
        "snake": lambda x: x + torch.sin(3 * x) ** 2 / 3,
        "softmax by exp": lambda x: x.exp() / x.exp().sum(1, keepdim=True),
        "softmax by exp, largest taken off": stable_softmax,
        "hard swish": lambda x: x * F.relu6(x + 3) / 6,
    }


def stable_softmax(x: Tensor) -> Tensor:
    raised = (x - x.amax(1, keepdim=True)).exp()
    return raised / raised.sum(1, keepdim=True)


class Gated(nn.Module):
    """The gated units of transformers: ``V x * f(W x)``."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.up, self.side = gate, nn.Linear(CHANNELS, 6), nn.Linear(CHANNELS, 6, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.side(last(x)) * self.gate(self.up(last(x)))


def gates() -> Table:
    return {
        "GLU": Gated(torch.sigmoid),
        "SwiGLU": Gated(F.silu),
        "GEGLU": Gated(F.gelu),
        "ReGLU": Gated(F.relu),
        "bilinear": Gated(lambda x: x),
        "F.glu": lambda x: F.glu(x, dim=-1),
        "chunk and gate": lambda x: torch.tanh(x.chunk(2, 1)[0]) * torch.sigmoid(x.chunk(2, 1)[1]),
        "squeeze and excite": lambda x: x * torch.sigmoid(x.mean(-1, keepdim=True)),
        "highway": lambda x: torch.sigmoid(x) * torch.tanh(x.flip(1)) + (1 - torch.sigmoid(x)) * x,
        "nn.Bilinear": Bilinear(),
    }


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(CHANNELS, CHANNELS, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(last(x), last(x.flip(1)))


def pools() -> Table:
    modules = [
        nn.MaxPool1d(2), nn.MaxPool1d(3, 2), nn.MaxPool1d(3, 1, 1), nn.MaxPool1d(3, 2, dilation=2),
        nn.MaxPool1d(3, 2, ceil_mode=True), nn.MaxPool1d(5, 3, 2, ceil_mode=True), nn.AvgPool1d(2),
        nn.AvgPool1d(3, 2), nn.AvgPool1d(3, 1, 1), nn.AvgPool1d(3, 2, 1, ceil_mode=True),
        nn.AvgPool1d(3, 2, 1, count_include_pad=False), nn.AdaptiveMaxPool1d(1), nn.AdaptiveMaxPool1d(5),
        nn.AdaptiveAvgPool1d(1), nn.AdaptiveAvgPool1d(5),
    ]  # fmt: skip
    table: Table = {f"nn.{module}": module for module in modules}
    table["nn.LPPool1d"] = On(lambda x: x.exp(), nn.LPPool1d(2, 3))
    table["nn.LPPool1d of order 3"] = On(lambda x: x.exp(), nn.LPPool1d(3, 3, 2))
    table["F.max_pool1d"] = lambda x: F.max_pool1d(x, 4, 2)
    table["F.max_pool1d with indices"] = lambda x: F.max_pool1d(x, 4, return_indices=True)[0]
    table["F.adaptive_avg_pool1d"] = lambda x: F.adaptive_avg_pool1d(x, 3)
    return table


def pools_of_images() -> Table:
    modules = [
        nn.MaxPool2d(2), nn.MaxPool2d((1, 2)), nn.MaxPool2d((1, 3), (1, 1), (0, 1)), nn.MaxPool2d(3, 1, 1, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, 1, dilation=2), nn.AvgPool2d(2),
        nn.AvgPool2d((1, 2)), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, True, False),
        nn.AvgPool2d(2, divisor_override=3), nn.AdaptiveMaxPool2d((2, 3)), nn.AdaptiveMaxPool2d(1),
        nn.AdaptiveAvgPool2d((3, 1)), nn.AdaptiveAvgPool2d((None, 2)),
    ]  # fmt: skip
    table: Table = {f"nn.{module}": On(image, module) for module in modules}
    table["nn.LPPool2d"] = On(lambda x: image(x).exp(), nn.LPPool2d(2, 2))
    table["pool over a folded batch"] = lambda x: F.max_pool1d(last(x).reshape(-1, 1, CHANNELS), 2)
    table["positions by unfold and amax"] = lambda x: x.unfold(-1, 4, 2).amax(-1)
    return table


class SoftmaxPool(nn.Module):
    """Enformer's attention pooling: pairs of positions are weighed by a softmax of their channels."""

    def __init__(self, per_channel: bool = True) -> None:
        super().__init__()
        self.weigh = nn.Linear(CHANNELS, CHANNELS if per_channel else 1, bias=False)

    def forward(self, x: Tensor) -> Any:
        pairs = x.unflatten(2, (LENGTH // 2, 2))  # type: ignore[no-untyped-call]
        weights = self.weigh(pairs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        return (pairs * weights).sum(-1)


class QueryPool(nn.Module):
    """One learnt query attends to every position."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, CHANNELS))

    def forward(self, x: Tensor) -> Any:
        query = self.query.expand(x.shape[0], -1, -1)
        return F.scaled_dot_product_attention(query, last(x), last(x))


def norms() -> Table:
    return {
        "nn.LayerNorm": On(last, nn.LayerNorm(CHANNELS)),
        "nn.LayerNorm over two axes": nn.LayerNorm((CHANNELS, LENGTH)),
        "nn.LayerNorm without weights": nn.LayerNorm(LENGTH, elementwise_affine=False),
        "nn.LayerNorm without bias": nn.LayerNorm(LENGTH, bias=False),
        "nn.GroupNorm": nn.GroupNorm(2, CHANNELS),
        "nn.GroupNorm of images": On(image, nn.GroupNorm(1, CHANNELS, affine=False)),
        "nn.InstanceNorm1d": nn.InstanceNorm1d(CHANNELS),
        "nn.InstanceNorm1d with weights": nn.InstanceNorm1d(CHANNELS, affine=True),
        "nn.InstanceNorm1d with statistics": nn.InstanceNorm1d(
            CHANNELS, affine=True, track_running_stats=True
        ),
        "nn.InstanceNorm2d": On(image, nn.InstanceNorm2d(CHANNELS)),
        "nn.RMSNorm": nn.RMSNorm(LENGTH),
        "nn.RMSNorm over two axes": nn.RMSNorm((CHANNELS, LENGTH)),
        "nn.BatchNorm1d": nn.BatchNorm1d(CHANNELS),
        "nn.BatchNorm1d without weights": nn.BatchNorm1d(CHANNELS, affine=False),
        "nn.BatchNorm1d of vectors": On(lambda x: x.mean(-1), nn.BatchNorm1d(CHANNELS)),
        "nn.BatchNorm2d": On(image, nn.BatchNorm2d(CHANNELS)),
        "nn.LocalResponseNorm": nn.LocalResponseNorm(2),
        "F.layer_norm": lambda x: F.layer_norm(x, (LENGTH,)),
        "F.rms_norm": lambda x: F.rms_norm(x, (LENGTH,)),
        "F.group_norm": lambda x: F.group_norm(x, 4),
        "layer norm by hand": lambda x: (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
        "F.normalize": lambda x: F.normalize(x, dim=1),
        "F.normalize of order 1": lambda x: F.normalize(x, p=1.0, dim=2),
        "F.cosine_similarity": lambda x: F.cosine_similarity(x, x.flip(1), dim=1),
        "F.pairwise_distance": lambda x: F.pairwise_distance(x, x.flip(1) + 1),
        "x.norm()": lambda x: x.norm(dim=1),
        "x.norm(1)": lambda x: x.norm(1, dim=(1, 2)),
        "torch.linalg.norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    }


def reductions() -> Table:
    return {
        "sum": lambda x: x.sum(-1),
        "sum over several": lambda x: x.sum((1, 2)),
        "mean": lambda x: x.mean(1, keepdim=True),
        "amax": lambda x: x.amax(2),
        "amax over two": lambda x: x.amax((1, 2)),
        "amin": lambda x: x.amin(1, keepdim=True),
        "max": lambda x: x.max(2)[0],
        "max(keepdim)": lambda x: x.max(1, keepdim=True).values,
        "min": lambda x: x.min(-1).values,
        "logsumexp": lambda x: x.logsumexp(1),
        "logsumexp(keepdim)": lambda x: x.logsumexp(2, keepdim=True),
        "std": lambda x: x.std(2),
        "std(unbiased=False)": lambda x: x.std(1, unbiased=False),
        "var": lambda x: x.var(2),
        "var_mean": lambda x: torch.cat(torch.var_mean(x, 1), -1),
        "cumsum": lambda x: x.cumsum(2),
        "diff": lambda x: torch.diff(x),
        "trapezoid": lambda x: torch.trapezoid(x, dim=-1),
        "log of a mean of exponentials": lambda x: x.exp().mean(-1).log(),
        "softmax-weighted mean": lambda x: (x * (3 * x).softmax(-1)).sum(-1),
    }


def arithmetic() -> Table:
    return {
        "x y": lambda x: x * x.flip(1),
        "x x": lambda x: x * x,
        "x y z": lambda x: x * x.flip(1) * x.roll(1, 2),
        "x * row": lambda x: x * x.mean(1, keepdim=True),
        "x * constant": With(lambda x, w: x * w, CHANNELS, 1),
        "x / y": lambda x: x / x.flip(1).exp(),
        "x / row": lambda x: x / x.exp().sum(1, keepdim=True),
        "x / constant": With(lambda x, w: x / w, CHANNELS, 1),
        "constant / x": With(lambda x, w: w / x.exp(), LENGTH),
        "2 / x": lambda x: 2 / (x.exp() + 1),
        "1 - x": lambda x: 1 - x,
        "x - alpha y": lambda x: torch.sub(x, x.flip(1), alpha=0.3),
        "x - x": lambda x: (x - x) + x.mul(2),
        "x^2": lambda x: x**2,
        "x^3": lambda x: x**3,
        "x^-1": lambda x: x.exp() ** -1,
        "x^0.3": lambda x: x.exp() ** 0.3,
        "2^x": lambda x: 2**x,
        "x^y": lambda x: (x**2 + 1) ** x.flip(1),
        "x^x": lambda x: (x**2 + 1) ** x,
        "x^constant": With(lambda x, w: x.exp() ** w, LENGTH),
        "addcmul": lambda x: torch.addcmul(x, x.flip(1), x.flip(2), value=0.4),
        "addcdiv": lambda x: torch.addcdiv(x, x.flip(1), x.exp(), value=0.4),
        "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3),
        "lerp by sequence": lambda x: torch.lerp(x, x.flip(1), x.sigmoid()),
        "xlogy": lambda x: torch.xlogy(x.exp(), x.exp()),
        "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
        "logaddexp2": lambda x: torch.logaddexp2(x, x.flip(1)),
        "power of a learned number": With(lambda x, w: (w + 1.7) ** torch.tanh(x)),
        "hypot": lambda x: torch.hypot(x, x * 2 + 1),
        "float and back": lambda x: x.double().mul(2).to(x.dtype),
        "rounded sum": lambda x: torch.add(x, 3),
        "in place": lambda x: (x * 2).add_(1).mul_(x).sub_(x.flip(1)).div_(3),
        "remainder by 3 of one value": lambda x: torch.remainder(x, 3.0),
    }


def matrices() -> Table:
    return {
        "x @ W": With(lambda x, w: x @ w, LENGTH, 5),
        "W @ x": With(lambda x, w: w @ x, 3, CHANNELS),
        "x @ vector": With(lambda x, w: x @ w, LENGTH),
        "x @ y": lambda x: x @ last(x),
        "x x^T": lambda x: last(x) @ x,
        "bmm": lambda x: torch.bmm(x, last(x)),
        "four axes": lambda x: image(x) @ image(x).transpose(-1, -2),
        "broadcast": lambda x: image(x) @ image(x)[:, :1].transpose(-1, -2),
        "F.linear": With(F.linear, 5, LENGTH),
        "nn.Linear on every position": On(last, nn.Linear(CHANNELS, 3)),
        "nn.Linear after flatten": On(lambda x: x.flatten(1), nn.Linear(CHANNELS * LENGTH, 5)),
        "addmm": With(lambda x, w: torch.addmm(w[0], x.flatten(1), w.T, alpha=0.3), 64, 64),
        "baddbmm": lambda x: torch.baddbmm(x @ last(x), x, last(x), beta=0.5, alpha=0.7),
        "einsum bcl,bdl->bcd": lambda x: torch.einsum("bcl,bdl->bcd", x, x),
        "einsum bcl,cd->bdl": With(lambda x, w: torch.einsum("bcl,cd->bdl", x, w), CHANNELS, 3),
        "einsum bcl,bcl->bl": lambda x: torch.einsum("bcl,bcl->bl", x, x.flip(1)),
        "einsum bcl,bdl,cd->bl": With(lambda x, w: torch.einsum("bcl,bdl,cd->bl", x, x, w), 4, 4),
        "einsum outer": lambda x: torch.einsum("bi,bj->bij", x.mean(1), x.amax(1)),
        "tensordot": With(lambda x, w: torch.tensordot(x, w, ([1, 2], [0, 1])), CHANNELS, LENGTH, 3),
        "inner by sum": lambda x: (x * x.flip(1)).sum((1, 2)),
        "kernel of distances": lambda x: (-((last(x)[:, :, None] - last(x)[:, None]) ** 2).sum(-1)).exp(),
    }


def convolutions() -> Table:
    modules = [
        nn.Conv1d(4, 3, 5), nn.Conv1d(4, 3, 5, padding=2), nn.Conv1d(4, 3, 4, padding="same"),
        nn.Conv1d(4, 3, 5, stride=2, padding=1), nn.Conv1d(4, 3, 3, dilation=3, padding="same"),
        nn.Conv1d(4, 6, 3, groups=2), nn.Conv1d(4, 4, 3, groups=4, padding=1), nn.Conv1d(4, 8, 1),
        nn.Conv1d(4, 3, 3, padding=1, padding_mode="circular"),
        nn.Conv1d(4, 3, 3, padding=2, padding_mode="reflect"),
        nn.Conv1d(4, 3, 3, padding=2, padding_mode="replicate"), nn.Conv1d(4, 3, 5, padding=7),
        nn.ConvTranspose1d(4, 3, 4, stride=2), nn.ConvTranspose1d(4, 3, 3, 2, 1, output_padding=1),
        nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2), nn.ConvTranspose1d(4, 4, 2, 2, groups=4),
    ]  # fmt: skip
    images = [
        nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, (1, 3), padding=(0, 1)), nn.Conv2d(4, 3, 3, 2, 1, 1),
        nn.Conv2d(4, 4, 2, groups=4, padding="same"), nn.Conv2d(4, 3, 3, padding=2, dilation=2),
        nn.ConvTranspose2d(4, 3, 2, 2),
    ]  # fmt: skip
    table: Table = {f"nn.{module}": module for module in modules}
    table |= {f"nn.{module}": On(image, module) for module in images}
    table |= {
        "nn.Conv3d": On(lambda x: image(x)[:, None], nn.Conv3d(1, 2, 2)),
        "F.conv1d": With(lambda x, w: F.conv1d(x, w, padding=1), 3, CHANNELS, 3),
        "separable": nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 5, 1)),
        "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 3, 3)),
        "weights standardised": With(lambda x, w: F.conv1d(x, (w - w.mean()) / w.std()), 3, CHANNELS, 3),
    }
    return table


class ReverseComplementConv(nn.Module):
    """RevCompConv1D of Shrikumar et al. 2017: every filter beside its reverse complement."""

    def __init__(self, channels: int, filters: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(filters, channels, width))
        self.bias = nn.Parameter(torch.zeros(filters))

    def forward(self, x: Tensor) -> Any:
        weight = torch.cat([self.weight, self.weight.flip(1, 2)])
        return F.conv1d(x, weight, torch.cat([self.bias, self.bias]))


class BothStrands(nn.Module):
    """One network on the sequence and on its reverse complement, predictions averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 5, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(5, 3, 3))

    def forward(self, x: Tensor) -> Any:
        return (self.body(x) + self.body(x.flip(1, 2)).flip(-1)) / 2


class Siamese(nn.Module):
    """One layer on both halves and once more on its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.act = nn.Conv1d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        first, second = self.act(self.shared(x[..., :8])), self.act(self.shared(x[..., 8:]))
        return self.act(self.shared(first * second + first))


def strands() -> Table:
    equivariant = nn.Sequential(
        ReverseComplementConv(4, 3, 3), nn.BatchNorm1d(6), nn.ReLU(), ReverseComplementConv(6, 2, 3)
    )
    return {
        "RevCompConv1D": equivariant,
        "strand-specific maximum": lambda x: torch.maximum(x, x.flip(1, 2)),
        "both strands": BothStrands(),
        "stacked strands": lambda x: torch.stack([x, x.flip(1, 2)], 1).amax(1),
        "strands folded into the batch": lambda x: (
            F.relu(torch.stack([x, x.flip(1, 2)], 1).flatten(0, 1)).view(-1, 2, *x.shape[1:]).mean(1)
        ),
        "one layer three times": Siamese(),
        "tied transpose": With(lambda x, w: F.relu(last(x) @ w) @ w.T, CHANNELS, 3),
    }


def selections() -> Table:
    keep = torch.tensor([0, 3, 5, 5])
    return {
        "slice": lambda x: x[:, 1:3, 2:-2],
        "slice with steps": lambda x: x[:, ::2, 1::3],
        "select": lambda x: x[:, 1:2] * x[..., -1:] + x[:, :1, 3, None],
        "narrow": lambda x: x.narrow(2, 3, 5),
        "crop": lambda x: F.pad(x, (-3, -2)),
        "index": lambda x: x[:, :, keep],
        "index by list": lambda x: x[:, [0, 2]],
        "index on two axes": lambda x: x[:, torch.tensor([0, 1]), torch.tensor([3, 4])],
        "index_select": lambda x: x.index_select(2, keep),
        "gather": lambda x: torch.gather(x, 2, keep.expand(x.shape[0], CHANNELS, -1)),
        "split": lambda x: x.split(4, 2)[1] * x.split([4, 12], 2)[0],
        "chunk": lambda x: x.chunk(2, 2)[0] - x.chunk(2, 2)[1],
        "unbind": lambda x: x.unbind(1)[0] * x.unbind(1)[3],
        "tensor_split": lambda x: torch.tensor_split(x, 3, 2)[1],
        "flip": lambda x: x.flip(1, 2),
        "roll": lambda x: x.roll((1, 3), (1, 2)),
        "rot90": lambda x: x.rot90(1, (1, 2)),
        "where by constant": lambda x: torch.where(torch.arange(LENGTH) > 3, x, 2 * x.flip(1)),
        "where with a number": lambda x: torch.where(torch.arange(LENGTH) > 3, x, 0.5),
        "masked_fill": lambda x: x.masked_fill(torch.arange(LENGTH) > 3, 0.0),
        "tril": lambda x: x.tril() + x.triu(2),
        "times a mask": lambda x: x * (torch.arange(LENGTH) < 5),
        "diagonal": lambda x: (last(x) @ x).diagonal(dim1=1, dim2=2),
    }


def extremes() -> Table:
    return {
        "clamp": lambda x: x.clamp(-0.3, 0.4),
        "clamp(min)": lambda x: x.clamp(min=0.1),
        "clamp(max)": lambda x: x.clamp(max=0.1),
        "clamp by tensor": With(lambda x, w: x.clamp(min=w), CHANNELS, 1),
        "clamp by sequence": lambda x: torch.clamp(x, max=x.flip(1)),
        "abs": lambda x: x.abs(),
        "maximum": lambda x: torch.maximum(x, x.flip(1)),
        "minimum": lambda x: torch.minimum(x, x.roll(1, 2)),
        "maximum with a constant": With(lambda x, w: torch.maximum(x, w), CHANNELS, 1),
        "minimum with a number": lambda x: torch.minimum(x, torch.tensor(0.3, dtype=x.dtype)),
        "maximum of row": lambda x: torch.maximum(x, x.mean(1, keepdim=True)),
        "maxout": lambda x: x.reshape(-1, 2, 2, LENGTH).amax(2),
        "max of three": lambda x: torch.stack([x, x.flip(1), x.flip(2)]).amax(0),
    }


def shapes() -> Table:
    return {
        "cat": lambda x: torch.cat([x, x.flip(2) * 2, torch.ones_like(x)], 2),
        "cat with constants": With(
            lambda x, w: torch.cat([x, w.expand(x.shape[0], -1, -1)], 1), 1, 2, LENGTH
        ),
        "stack": lambda x: torch.stack([x, x * x], -1),
        "repeat": lambda x: x.repeat(1, 1, 2),
        "tile": lambda x: x.tile((1, 2, 1)),
        "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1),
        "repeat_interleave": lambda x: x.repeat_interleave(2, dim=2),
        "unfold": lambda x: x.unfold(2, 3, 2),
        "F.unfold": lambda x: F.unfold(x[:, :, None], (1, 3)),
        "F.fold": lambda x: F.fold(F.unfold(x[:, :, None], (1, 3)), (1, LENGTH), (1, 3)),
        "permute": lambda x: x.permute(2, 0, 1).permute(1, 2, 0),
        "movedim": lambda x: x.movedim(1, 2).swapaxes(1, 2).mT,
        "flatten and back": lambda x: x.flatten(1).view(-1, LENGTH, CHANNELS),
        "squeeze": lambda x: x.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze(),
        "view_as": lambda x: x.view_as(x.clone()).contiguous(),
        "pixel shuffle": lambda x: F.pixel_shuffle(image(x), 2),
        "channel shuffle": On(image, nn.ChannelShuffle(2)),
        "nn.Unflatten": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 8))),
        "write into a slice": write_into_slice,
        "write into zeros": write_into_zeros,
        "write a number": write_number,
        "index_add": lambda x: x.index_add(2, torch.tensor([1, 2]), x[..., :2]),
        "index_copy": lambda x: x.index_copy(2, torch.tensor([1, 4]), x[..., :2] * 3),
        "write to places": write_to_places,
        "write under a mask": write_under_mask,
        "new_zeros": lambda x: torch.cat([x, x.new_zeros(x.shape[0], 1, LENGTH)], 1),
        "scatter_add by constants": lambda x: torch.zeros_like(x).scatter_add(
            2, (torch.arange(LENGTH) // 3).expand(x.shape[0], CHANNELS, -1), x
        ),
    }


def write_into_slice(x: Tensor) -> Tensor:
    written = x.clone()
    written[:, :, 2:5] = x[:, :, 6:9] * 2
    return written


def write_into_zeros(x: Tensor) -> Tensor:
    wide = torch.zeros(x.shape[0], CHANNELS, 2 * LENGTH, dtype=x.dtype)
    wide[:, :, ::2] = x
    return wide


def write_to_places(x: Tensor) -> Tensor:
    written = x.clone()
    written[:, :, torch.tensor([1, 3])] = x[:, :, 8:10]
    return written


def write_under_mask(x: Tensor) -> Tensor:
    written = x.clone()
    written[:, torch.tensor([True, False, False, True])] = 0.5
    return written


def write_number(x: Tensor) -> Tensor:
    written = x * 1.5
    written[:, 0] = 0
    return written


def pads_and_upsampling() -> Table:
    modules = [
        nn.ConstantPad1d((2, 1), 0.5), nn.ZeroPad1d(2), nn.ReflectionPad1d(2), nn.ReplicationPad1d((1, 3)),
        nn.CircularPad1d(2), nn.Upsample(scale_factor=2), nn.Upsample(size=21),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.Upsample(scale_factor=2, mode="linear", align_corners=True),
    ]  # fmt: skip
    images = [
        nn.ConstantPad2d(1, 0.0), nn.ZeroPad2d((1, 0, 2, 1)), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1),
        nn.CircularPad2d(1), nn.Upsample(scale_factor=2), nn.UpsamplingNearest2d(scale_factor=2),
        nn.UpsamplingBilinear2d(scale_factor=2), nn.Upsample(scale_factor=2, mode="bicubic"),
    ]  # fmt: skip
    table: Table = {f"nn.{module}": module for module in modules}
    table |= {f"nn.{module} of images": On(image, module) for module in images}
    table["F.interpolate(area)"] = lambda x: F.interpolate(x, 8, mode="area")
    table["F.interpolate(nearest-exact)"] = lambda x: F.interpolate(x, 24, mode="nearest-exact")
    table["F.pad"] = lambda x: F.pad(x, (1, 2, 1, 0), value=0.3)
    return table


def with_einops() -> Table:
    return {
        "Rearrange": Rearrange("b c (l two) -> b (c two) l", two=2),
        "Reduce(max)": Reduce("b c (l four) -> b c l", "max", four=4),
        "Reduce(mean)": Reduce("b c (l four) -> b c l", "mean", four=4),
        "rearrange": lambda x: rearrange(x, "b (h d) l -> b h l d", h=2),
        "rearrange with the batch": lambda x: F.relu(rearrange(x, "b (h d) l -> (b h) l d", h=2)),
        "rearrange with the batch inside": lambda x: rearrange(
            F.relu(rearrange(x, "b (h d) l -> (h b) l d", h=2)), "(h b) l d -> b h d l", h=2
        ),
        "reduce": lambda x: reduce(x, "b c l -> b l", "sum"),
        "repeat": lambda x: repeat(x, "b c l -> b c (l two)", two=2),
        "einsum": lambda x: einsum(x, x, "b c l, b d l -> b c d"),
        "pack": lambda x: pack([x, x.mean(-1)], "b c *")[0],
    }


class RelativeAttention(nn.Module):
    """Enformer's and Borzoi's attention: content and relative position, shifted by padding and a view."""

    def __init__(self, heads: int = 2, width: int = 3, features: int = 4) -> None:
        super().__init__()
        self.heads, self.features = heads, features
        self.to_query, self.to_key, self.to_value = (
            nn.Linear(CHANNELS, heads * width, bias=False) for _ in range(3)
        )
        self.to_position = nn.Linear(features, heads * width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(1, heads, 1, width))
        self.position_bias = nn.Parameter(torch.zeros(1, heads, 1, width))
        self.to_out = nn.Linear(heads * width, CHANNELS)

    def forward(self, x: Tensor) -> Any:
        length = x.shape[1]
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_query, self.to_key, self.to_value)
        )
        query = query * query.shape[-1] ** -0.5
        distances = torch.arange(1 - length, length, dtype=x.dtype)
        rates = 0.5 ** torch.arange(1, self.features // 2 + 1, dtype=x.dtype)
        near = torch.exp(-rates * distances.abs()[:, None])
        features = torch.cat([near, near * torch.sign(distances)[:, None]], -1)
        positions = self.to_position(features).unflatten(-1, (self.heads, -1))
        content = torch.einsum("bhid,bhjd->bhij", query + self.content_bias, key)
        relative = torch.einsum("bhid,jhd->bhij", query + self.position_bias, positions)
        logits = content + shifted(relative)
        out = torch.einsum("bhij,bhjd->bhid", logits.softmax(-1), value)
        return self.to_out(out.transpose(1, 2).flatten(2))


def shifted(relative: Tensor) -> Tensor:
    """(batch, heads, i, j - i) to (batch, heads, i, j): one column of zeros, and lines drawn anew."""
    batch, heads, rows, columns = relative.shape
    padded = torch.cat([torch.zeros_like(relative[..., :1]), relative], -1)
    turned = padded.reshape(batch, heads, columns + 1, rows)[:, :, 1:]
    return turned.reshape(batch, heads, rows, columns)[..., : (columns + 1) // 2]


def rotary(x: Tensor) -> Tensor:
    """Rotary position encoding of query and key, then attention."""
    x = last(x)
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * 0.1 ** torch.arange(half, dtype=x.dtype)
    angles = torch.cat([angles, angles], -1)
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    placed = x * angles.cos() + turned * angles.sin()
    return F.scaled_dot_product_attention(placed, placed, x)


def interleaved_rotary(x: Tensor) -> Tensor:
    """Rotary position encoding of neighbouring pairs."""
    pairs = last(x).unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    even, odd = pairs.unbind(-1)
    angles = torch.arange(LENGTH, dtype=x.dtype)[:, None] * 0.3
    return torch.stack(
        [even * angles.cos() - odd * angles.sin(), odd * angles.cos() + even * angles.sin()], -1
    ).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, batch_first: bool, **options: Any) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.layer = nn.MultiheadAttention(CHANNELS, 2, batch_first=batch_first, **options)

    def forward(self, x: Tensor) -> Any:
        x = last(x) if self.batch_first else x.permute(2, 0, 1)
        out = self.layer(x, x, x, need_weights=False)[0]
        return out if self.batch_first else out.transpose(0, 1)


class WithWeights(nn.Module):
    """Attention whose weights are wanted as well, with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        out, weights = self.layer(last(x), last(x), last(x), attn_mask=mask)
        return torch.cat([out, weights], -1)


def attend(x: Tensor, **options: Any) -> Tensor:
    heads = last(x).unflatten(-1, (2, 2)).transpose(1, 2)  # type: ignore[no-untyped-call]
    return F.scaled_dot_product_attention(heads, heads.flip(-1), heads * 2, **options)


def windowed(x: Tensor) -> Tensor:
    """Attention inside windows of four positions."""
    local = last(x).reshape(-1, 4, CHANNELS)
    return F.scaled_dot_product_attention(local, local, local).reshape(x.shape[0], -1)


def linear_attention(x: Tensor) -> Tensor:
    query, key = F.elu(last(x)) + 1, F.elu(last(x).flip(-1)) + 1
    context = key.transpose(1, 2) @ last(x)
    return query @ context / (query @ key.sum(1, keepdim=True).transpose(1, 2))


def attention() -> Table:
    distance = (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)).abs()
    near, ordered = distance < 4, torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    return {
        "SDPA": lambda x: F.scaled_dot_product_attention(last(x), last(x), last(x)),
        "SDPA with heads": attend,
        "SDPA causal": lambda x: attend(x, is_causal=True),
        "SDPA with a mask": lambda x: attend(x, attn_mask=near),
        "SDPA with a bias": lambda x: attend(x, attn_mask=-0.3 * distance.to(x.dtype)),
        "SDPA, the first query sees nothing": lambda x: attend(x, attn_mask=ordered.tril(-1)),
        "SDPA, a bias that hides everything": lambda x: attend(
            x, attn_mask=torch.where(ordered.tril(-1), 0.0, -math.inf).to(x.dtype)
        ),
        "SDPA with a scale": lambda x: attend(x, scale=0.2),
        "nn.MultiheadAttention": SelfAttention(True),
        "nn.MultiheadAttention, positions first": SelfAttention(False),
        "nn.MultiheadAttention with keys of bias": SelfAttention(True, add_bias_kv=True, add_zero_attn=True),
        "nn.MultiheadAttention with weights": WithWeights(),
        "attention pooling": SoftmaxPool(),
        "attention pooling, one weight": SoftmaxPool(per_channel=False),
        "query pooling": QueryPool(),
        "relative attention": On(last, RelativeAttention()),
        "rotary": rotary,
        "rotary, neighbours": interleaved_rotary,
        "windows": windowed,
        "linear attention": linear_attention,
        "attention by hand": lambda x: (last(x) @ x / 2).softmax(-1) @ last(x),
        "axial": lambda x: F.scaled_dot_product_attention(image(x), image(x), image(x)),
    }


def transformers() -> Table:
    def layer(**options: Any) -> nn.Module:
        return On(last, nn.TransformerEncoderLayer(CHANNELS, 2, 8, batch_first=True, **options))

    positions_first = nn.TransformerEncoderLayer(CHANNELS, 2, 8)
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(CHANNELS, 2, 8, batch_first=True), 2, enable_nested_tensor=False
    )
    return {
        "nn.TransformerEncoderLayer": layer(),
        "nn.TransformerEncoderLayer, norm first": layer(norm_first=True),
        "nn.TransformerEncoderLayer, GELU": layer(activation="gelu", norm_first=True),
        "nn.TransformerEncoderLayer, positions first": On(
            lambda x: x.permute(2, 0, 1), Back(positions_first)
        ),
        "nn.TransformerEncoder": On(last, stack),
        "nn.TransformerDecoderLayer": Decoder(),
    }


class Back(nn.Module):
    """A module on (length, batch, channels), its result with the batch first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x).transpose(0, 1)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(CHANNELS, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.layer(last(x), last(x.flip(1)))


STEPS = 3


def early(x: Tensor) -> Tensor:
    """(batch, 3, channels): recurrent layers are unrolled, so sequences stay short."""
    return last(x)[:, :STEPS]


class Recurrent(nn.Module):
    """Outputs of a recurrent layer of either layout, with the batch first."""

    def __init__(self, layer: Any, use_state: bool = False) -> None:
        super().__init__()
        self.layer, self.use_state = layer, use_state

    def forward(self, x: Tensor) -> Any:
        out, state = self.layer(early(x) if self.layer.batch_first else early(x).transpose(0, 1))
        if self.use_state:
            return (state[0] if isinstance(state, tuple) else state).transpose(0, 1)
        return out if self.layer.batch_first else out.transpose(0, 1)


class Cells(nn.Module):
    """A recurrent cell in a loop of the user's own."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Any:
        state: Any = None
        for position in range(STEPS):
            state = self.cell(x[:, :, position], state)
        return state[0] if isinstance(state, tuple) else state


def recurrent() -> Table:
    return {
        "nn.LSTM": Recurrent(nn.LSTM(CHANNELS, 3)),
        "nn.LSTM, batch first": Recurrent(nn.LSTM(CHANNELS, 3, batch_first=True)),
        "nn.LSTM, both directions": Recurrent(nn.LSTM(CHANNELS, 3, batch_first=True, bidirectional=True)),
        "nn.LSTM, two layers": Recurrent(nn.LSTM(CHANNELS, 3, 2, batch_first=True), use_state=True),
        "nn.LSTM, projected": Recurrent(nn.LSTM(CHANNELS, 3, batch_first=True, proj_size=2)),
        "nn.GRU": Recurrent(nn.GRU(CHANNELS, 3)),
        "nn.GRU, both directions": Recurrent(nn.GRU(CHANNELS, 3, batch_first=True, bidirectional=True)),
        "nn.GRU, state": Recurrent(nn.GRU(CHANNELS, 3, batch_first=True), use_state=True),
        "nn.RNN": Recurrent(nn.RNN(CHANNELS, 3, batch_first=True)),
        "nn.RNN with ReLU": Recurrent(nn.RNN(CHANNELS, 3, nonlinearity="relu")),
        "nn.LSTMCell": Cells(nn.LSTMCell(CHANNELS, 3)),
        "nn.GRUCell": Cells(nn.GRUCell(CHANNELS, 3)),
        "nn.RNNCell": Cells(nn.RNNCell(CHANNELS, 3)),
    }


GROUPS: list[Callable[[], Table]] = [
    activations, functional_activations, functions, written_by_hand, gates, pools, pools_of_images, norms,
    reductions, arithmetic, matrices, convolutions, strands, selections, extremes, shapes,
    pads_and_upsampling, with_einops, attention, transformers, recurrent,
]  # fmt: skip
NAMES = [(group.__name__, name) for group in GROUPS for name in group()]
"""Every operation with its group."""
RULES: tuple[RuleSet, ...] = ("rescale", "revealcancel")


def program_of(program: Program, branch: int) -> Program:
    """The part of a program that one branch needs, with that branch as its output."""
    joined = program.steps[-1].call
    assert joined.name == program.output
    name = joined.inputs[branch].name
    needed, steps = {name}, []
    for step in reversed(program.steps):
        if step.call.name in needed:
            needed.update(ref.name for ref in step.call.inputs)
            steps.append(step)
    return replace(program, steps=tuple(reversed(steps)), output=name)


class Network:
    """A network with one branch an operation, captured once."""

    def __init__(self, table: Table) -> None:
        self.module = Branches(table)
        self.program = lower(capture(self.module, (CHANNELS, LENGTH), dtype=torch.float64))
        self.program.require_supported()

    def errors(self, branch: int, rules: RuleSet, explain: Callable[..., Any]) -> tuple[float, float]:
        """Completeness and forward error of a branch."""
        alone = copy.copy(self.module)
        alone._modules = {**self.module._modules, "branches": self.module.branches[branch : branch + 1]}
        part = program_of(self.program, branch)
        found = explain(alone, (CHANNELS, LENGTH), 1, Method(rules=rules), program=part)
        return found.completeness[0], found.forward[0]


@pytest.fixture(scope="module")
def network() -> Callable[[str, str], tuple[Network, int]]:
    """The network that has an operation, and the operation's place in it."""
    tables = {group.__name__: group() for group in GROUPS}
    made: dict[str, Network | None] = {}

    def of(group: str, name: str) -> tuple[Network, int]:
        if group not in made:
            try:
                made[group] = Network(tables[group])
            except UnsupportedModelError:
                made[group] = None
        whole = made[group]
        if whole is None:
            return Network({name: tables[group][name]}), 0
        return whole, list(tables[group]).index(name)

    return of


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(("group", "name"), NAMES, ids=[f"{group}-{name}" for group, name in NAMES])
def test_contributions_of_an_operation_sum_to_the_output_difference(
    group: str,
    name: str,
    rules: RuleSet,
    network: Callable[[str, str], tuple[Network, int]],
    explain: Callable[..., Any],
) -> None:
    whole, branch = network(group, name)
    completeness, forward = whole.errors(branch, rules, explain)
    assert completeness < 1e-9
    assert forward < 1e-12


def refused() -> dict[str, tuple[Callable[[Tensor], Any], str, str]]:
    """What has no exact rule: the operation that is named, and its reason."""
    none = "no exact DeepLIFT rule exists for it in dlgenome"
    return {
        "sort": (lambda x: x.sort(-1).values, "aten.sort", none),
        "topk": (lambda x: x.topk(2, -1).values, "aten.topk", none),
        "median": (lambda x: x.median(-1).values, "aten.median", none),
        "kthvalue": (lambda x: x.kthvalue(2, -1).values, "aten.kthvalue", none),
        "prod": (lambda x: x.prod(1), "aten.prod", none),
        "cumprod": (lambda x: x.cumprod(1), "aten.cumprod", none),
        "cummax": (lambda x: x.cummax(1).values, "aten.cummax", none),
        "logcumsumexp": (lambda x: x.logcumsumexp(1), "aten.logcumsumexp", none),
        "argmax and embedding": (lambda x: F.embedding(x.argmax(1), torch.ones(4, 2)), "aten.argmax", none),
        "fft": (lambda x: torch.fft.rfft(x).abs(), "fft", none),
        "cdist": (lambda x: torch.cdist(x, x), "cdist", none),
        "atan2": (lambda x: torch.atan2(x, x.flip(1)), "aten.atan2", none),
        "max_pool3d": (lambda x: F.max_pool3d(image(x)[:, None], 2), "aten.max_pool3d", none),
        "avg_pool3d": (lambda x: F.avg_pool3d(image(x)[:, None], 2), "aten.avg_pool3d", none),
        "fractional pool": (lambda x: F.fractional_max_pool2d(image(x), 2, 2), "aten.rand", "random"),
        "unpool": (lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, None, 0, 1, False, True), [2]), "", "follow"),
        "mean over the batch": (lambda x: x - x.mean(0), "aten.mean", "mixes the rows of the batch"),
        "sum over everything": (lambda x: x / x.sum(), "aten.sum", "batch"),
        "max over everything": (lambda x: x / x.max(), "aten.max", "mixes the rows of the batch"),
        "cumsum over the batch": (lambda x: x.cumsum(0), "aten.cumsum", "across the batch"),
        "softmax over the batch": (lambda x: x.softmax(0), "softmax", "across the batch"),
        "softmax over everything": (lambda x: x.flatten().softmax(0), "softmax", "across the batch"),
        "logsumexp over the batch": (lambda x: x + x.logsumexp(0), "aten.logsumexp", "batch"),
        "batch statistics": (lambda x: F.batch_norm(x, None, None, training=True), "batch_norm", "rows"),
        "flip of the batch": (lambda x: x.flip(0), "aten.flip", "across the batch"),
        "roll of the batch": (lambda x: x.roll(1, 0), "aten.roll", "rows of the batch"),
        "first rows": (lambda x: x + x[:1], "aten.slice", "batch"),
        "one row": (lambda x: x + x[0], "aten.select", "batch"),
        "rows by number": (lambda x: x + x[torch.zeros(1, dtype=torch.long)], "aten.index", "batch"),
        "triangle of the batch": (lambda x: x.flatten(1).tril(), "aten.tril", "rows of the batch"),
        "products across the batch": (lambda x: x[:, 0] @ x[:, 1].T @ x[:, 2], "aten.matmul", "rows"),
        "wrong reshape": (lambda x: x.reshape(4, x.shape[0], -1).sum(0), "aten.view", "reshapes across"),
        "places that depend on the sequence": (
            lambda x: x.gather(2, x.argmax(2, keepdim=True)), "aten.argmax|aten.gather", "index|depend",
        ),
        "branch on a sum": (
            lambda x: torch.where(x.sum(2, keepdim=True) > 0, x, 2 * x), "aten.where", "it branches on",
        ),
        "mask that depends on the sequence": (
            lambda x: x.masked_fill(x.flip(1) > 0, -math.inf).softmax(-1), "aten", "branches|depend",
        ),
        "weights that depend on the sequence": (
            lambda x: F.conv1d(x.view(1, -1, 16), x.view(-1, 1, 16)[..., :3], groups=4 * x.shape[0]),
            "aten.conv", "weights depend on the sequence",
        ),
        "yes-or-no places": (lambda x: x[:, :, torch.arange(LENGTH) % 3 == 0], "aten.index", "by number"),
        "noise": (lambda x: x + torch.rand_like(x), "aten.rand", "random"),
        "Gumbel softmax": (lambda x: F.gumbel_softmax(x), "aten.", "random"),
        "power of a broadcast base": (
            With(lambda x, w: x.exp().mean(1, keepdim=True) ** w, 4, 1), "aten.pow", "as exponent",
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def refusals() -> Callable[[str], list[Refusal]]:
    """What is refused in the branch of an operation."""
    table = {name: operation for name, (operation, _, _) in refused().items()}
    program = lower(capture(Branches(table), (CHANNELS, LENGTH), dtype=torch.float64))

    def of(name: str) -> list[Refusal]:
        path = f"branches.{list(table).index(name)}"
        return [
            r for r in program.refusals if r.source.module == path or r.source.module.startswith(f"{path}.")
        ]

    return of


@pytest.mark.parametrize(("name", "operation", "reason"), [(n, o, r) for n, (_, o, r) in refused().items()])
def test_what_has_no_exact_rule_is_refused_by_name_with_its_reason(
    name: str, operation: str, reason: str, refusals: Callable[[str], list[Refusal]]
) -> None:
    first, *_ = refusals(name)
    assert re.search(operation, first.operation)
    assert re.search(reason, first.reason)


LEFT_OUT = re.compile(r"3d|Lazy|Unpool|FractionalMaxPool|CrossMap|Sync")
"""Volumes, layers without shapes yet, and pools that draw numbers or go back."""


@pytest.mark.parametrize(
    "kind",
    ["activation", "pooling", "normalization", "batchnorm", "instancenorm", "conv", "padding", "upsampling"],
)
def test_every_layer_of_torch_is_tried(kind: str) -> None:
    listed = getattr(nn.modules, kind).__all__
    tried = {match[1] for _, name in NAMES if (match := re.match(r"nn\.(\w+)", name))}
    assert {layer for layer in listed if not LEFT_OUT.search(layer)} <= tried
