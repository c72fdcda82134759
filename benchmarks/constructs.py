"""Things that sequence models are written with, one tiny network for each.

Imported in the environments of other programs too: nothing but torch may be needed here. Every network is
a convolution, the construct, and a linear layer to one output; whatever else the construct needs to stand on
is made of modules of `torch.nn`, each used once, so that only the construct itself is in question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LENGTH = 32
CHANNELS = 6
CONTROL = "control"
"""The network that every program gets right; what a program warns of there, it warns of always."""

Layers = dict[str, nn.Module]
Middle = Callable[[Any, Tensor], Tensor]
"""From the network (its layers are attributes) and (batch, channels, length) to (batch, ...)."""


class Network(nn.Module):
    """(batch, 4, length) -> (batch, 1): the convolution, the construct, the linear head.

    The construct stands in ``forward`` itself, between modules, as people write it.
    """

    def __init__(self, middle: Middle, layers: Layers) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, CHANNELS, 5, padding=2)
        nn.init.normal_(self.first.weight, std=0.5)
        for name, layer in layers.items():
            self.add_module(name, layer)
            _spread_statistics(layer)
        self.middle = middle
        with torch.no_grad():
            width = middle(self.eval(), torch.ones(1, CHANNELS, LENGTH)).numel()
        self.head = nn.Linear(width, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        """The one output of each sequence."""
        output: Tensor = self.head(self.middle(self, self.first(sequences)).flatten(1))
        return output


def _spread_statistics(layer: nn.Module) -> None:
    """A batch-norm layer as training would leave it, not the identity that it starts as."""
    if isinstance(layer, nn.BatchNorm1d):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        nn.init.uniform_(layer.running_var, 0.5, 2.0)
        for values in (layer.running_mean, layer.weight, layer.bias):
            nn.init.normal_(values)


@dataclass(frozen=True)
class Construct:
    """One row of the table."""

    title: str
    middle: Middle
    layers: Callable[[], Layers] = dict

    def build(self, seed: int) -> Network:
        """The network with weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Network(self.middle, self.layers()).eval()


class OwnReLU(nn.ReLU):
    """What a user makes of nn.ReLU to add a method or a default to it."""


def _same_length(channels: int = CHANNELS) -> nn.Conv1d:
    return nn.Conv1d(CHANNELS, channels, 3, padding=1)


def _pair(**layers: nn.Module) -> Layers:
    """Two convolutions side by side, and what they are followed by."""
    return {"left": _same_length(), "right": _same_length(), **layers}


def _module(title: str, layer: Callable[[], nn.Module]) -> Construct:
    return Construct(f"`{title}`", lambda net, x: net.layer(x), lambda: {"layer": layer()})


def _before_relu(title: str, layer: Callable[[], nn.Module]) -> Construct:
    """A layer that is linear in prediction mode, followed by a ReLU."""
    return Construct(
        f"`{title}`, then `nn.ReLU`",
        lambda net, x: net.relu(net.layer(x)),
        lambda: {"layer": layer(), "relu": nn.ReLU()},
    )


def _function(title: str, function: Callable[[Tensor], Tensor]) -> Construct:
    return Construct(f"`{title}`", lambda net, x: function(x))


def _reused_relu(net: Any, x: Tensor) -> Tensor:
    shorter: Tensor = net.second(net.relu(x))
    result: Tensor = net.relu(shorter)
    return result


def _half_through_relu(net: Any, x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.cat([first, net.relu(second)], dim=1)


def _attention(net: Any, x: Tensor) -> Tensor:
    positions = x.transpose(1, 2)
    attended: Tensor = net.layer(positions, positions, positions, need_weights=False)[0]
    return attended


def _dot_product_attention(net: Any, x: Tensor) -> Tensor:
    query, key, value = (layer(x).transpose(1, 2) for layer in (net.left, net.right, net.value))
    return F.scaled_dot_product_attention(query, key, value)


def _lstm(net: Any, x: Tensor) -> Tensor:
    states: Tensor = net.layer(net.pool(x).transpose(1, 2))[0]
    return states


CONSTRUCTS = {
    CONTROL: _module("nn.ReLU", nn.ReLU),
    "reused-relu": Construct(
        "one `nn.ReLU` called twice, on different shapes",
        _reused_relu,
        lambda: {"relu": nn.ReLU(), "second": nn.Conv1d(CHANNELS, 4, 3, stride=2)},
    ),
    "functional-relu": _function("F.relu", F.relu),
    "in-place-relu": _module("nn.ReLU(inplace=True)", lambda: nn.ReLU(inplace=True)),
    "overlapping-max-pool": _module("nn.MaxPool1d(4, 2)", lambda: nn.MaxPool1d(4, 2)),
    "adaptive-max-pool": _module("nn.AdaptiveMaxPool1d(5)", lambda: nn.AdaptiveMaxPool1d(5)),
    "own-relu": Construct(
        "a subclass of `nn.ReLU`", lambda net, x: net.layer(x), lambda: {"layer": OwnReLU()}
    ),
    "residual": Construct(
        "residual sum, `x + F.relu(conv(x))`",
        lambda net, x: x + F.relu(net.second(x)),
        lambda: {"second": _same_length()},
    ),
    "gate": Construct(
        "gate, `nn.Tanh` times `nn.Sigmoid`",
        lambda net, x: net.tanh(net.left(x)) * net.sigmoid(net.right(x)),
        lambda: _pair(tanh=nn.Tanh(), sigmoid=nn.Sigmoid()),
    ),
    "gelu": _module("nn.GELU", nn.GELU),
    "functional-gelu": _function("F.gelu", F.gelu),
    "silu": _module("nn.SiLU", nn.SiLU),
    "functional-silu": _function("F.silu", F.silu),
    "softplus": _module("nn.Softplus", nn.Softplus),
    "functional-softplus": _function("F.softplus", F.softplus),
    "elu": _module("nn.ELU", nn.ELU),
    "functional-elu": _function("F.elu", F.elu),
    "prelu": _module("nn.PReLU", nn.PReLU),
    "functional-prelu": Construct(
        "`F.prelu`",
        lambda net, x: F.prelu(x, net.slopes[0]),
        lambda: {"slopes": nn.ParameterList([torch.full((1,), 0.25)])},
    ),
    "batch-norm": _before_relu("nn.BatchNorm1d", lambda: nn.BatchNorm1d(CHANNELS)),
    "layer-norm": _module("nn.LayerNorm", lambda: nn.LayerNorm([CHANNELS, LENGTH])),
    "rms-norm": _module("nn.RMSNorm", lambda: nn.RMSNorm(LENGTH)),
    "group-norm": _module("nn.GroupNorm", lambda: nn.GroupNorm(2, CHANNELS)),
    "softmax": _module("nn.Softmax", lambda: nn.Softmax(dim=1)),
    "functional-softmax": _function("F.softmax", lambda x: F.softmax(x, dim=1)),
    "multihead-attention": Construct(
        "`nn.MultiheadAttention`",
        _attention,
        lambda: {"layer": nn.MultiheadAttention(CHANNELS, 2, batch_first=True)},
    ),
    "dot-product-attention": Construct(
        "`F.scaled_dot_product_attention`", _dot_product_attention, lambda: _pair(value=_same_length())
    ),
    "product": Construct("product of two branches", lambda net, x: net.left(x) * net.right(x), _pair),
    "quotient": Construct(
        "quotient of two branches",
        lambda net, x: net.left(x) / (1 + net.softplus(net.right(x))),
        lambda: _pair(softplus=nn.Softplus()),
    ),
    "exp": _function("torch.exp", torch.exp),
    "log": Construct(
        "`torch.log`",
        lambda net, x: torch.log(0.1 + net.softplus(x)),
        lambda: {"softplus": nn.Softplus()},
    ),
    "pow": _function("x ** 3", lambda x: x**3),
    "abs": _function("torch.abs", torch.abs),
    "clamp": _function("torch.clamp", lambda x: torch.clamp(x, -0.5, 0.5)),
    "where": _function("torch.where(x > 0, x, 0.1 * x)", lambda x: torch.where(x > 0, x, 0.1 * x)),
    "amax": _function("x.amax(dim=2)", lambda x: x.amax(dim=2)),
    "average-pool": _before_relu("nn.AvgPool1d(3, 2, padding=1)", lambda: nn.AvgPool1d(3, 2, padding=1)),
    "transposed-convolution": _before_relu(
        "nn.ConvTranspose1d", lambda: nn.ConvTranspose1d(CHANNELS, 4, 4, stride=2)
    ),
    "lstm": Construct(
        "`nn.LSTM` over 4 steps",
        _lstm,
        lambda: {"pool": nn.AvgPool1d(8), "layer": nn.LSTM(CHANNELS, 5, batch_first=True)},
    ),
    "glu": _module("nn.GLU", lambda: nn.GLU(dim=1)),
    "cat": Construct(
        "`torch.cat` of two branches",
        lambda net, x: torch.cat([net.relu(net.left(x)), net.sigmoid(net.right(x))], dim=1),
        lambda: _pair(relu=nn.ReLU(), sigmoid=nn.Sigmoid()),
    ),
    "chunk": Construct(
        "`x.chunk(2)`, one half through `nn.ReLU`", _half_through_relu, lambda: {"relu": nn.ReLU()}
    ),
    "einsum": Construct(
        "`torch.einsum` of two branches",
        lambda net, x: torch.einsum("ncl,ndl->ncd", net.left(x), net.right(x)),
        _pair,
    ),
    "logsumexp": _function("torch.logsumexp(x, dim=2)", lambda x: torch.logsumexp(x, dim=2)),
    "shared-weights": Construct(
        "one `nn.Conv1d` called twice",
        lambda net, x: net.relu(net.shared(net.elu(net.shared(x)))),
        lambda: {"shared": _same_length(), "elu": nn.ELU(), "relu": nn.ReLU()},
    ),
    "dilated-max-pool": Construct(
        "`nn.MaxPool2d(2, dilation=2)`",
        lambda net, x: net.layer(x.unsqueeze(1)),
        lambda: {"layer": nn.MaxPool2d(2, dilation=2)},
    ),
    "upsample": _before_relu("nn.Upsample", lambda: nn.Upsample(scale_factor=2, mode="linear")),
    "cumsum": Construct(
        "`torch.cumsum`, then `nn.ReLU`",
        lambda net, x: net.relu(torch.cumsum(x, dim=2)),
        lambda: {"relu": nn.ReLU()},
    ),
    "where-of-another": Construct(
        "`torch.where(a > 0, b, 0)`",
        lambda net, x: torch.where(net.left(x) > 0, net.right(x), 0.0),
        _pair,
    ),
    "topk": _function("x.topk(3)", lambda x: x.topk(3, dim=2).values),
    "sort": _function("torch.sort", lambda x: torch.sort(x, dim=2).values),
    "cumprod": _function("torch.cumprod", lambda x: torch.cumprod(x, dim=2)),
}
