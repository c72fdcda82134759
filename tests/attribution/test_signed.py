"""RevealCancel and genomics-default: exact on what models are written with, the same in any company."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method

REVEAL_CANCEL, GENOMICS, RESCALE = Method("revealcancel"), Method("genomics-default"), Method()
STEP = StepShape(2, 3)


class Layers(nn.Module):
    """Layers for six channels at nine positions, and a body that says what becomes of them."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = body
        self.first, self.conv = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 6, 3, padding=1)
        self.query, self.key, self.value = (nn.Linear(6, 6) for _ in range(3))
        self.layer_norm, self.attention = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.hidden, self.head = nn.Linear(6, 12), nn.Linear(12, 2)
        self.norm = nn.BatchNorm1d(6)
        self.norm.weight.data = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -0.1])
        for values in (self.norm.bias.data, self.norm.running_mean):
            assert values is not None
            values.normal_()

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        made: Tensor = self.head(self.hidden(self.body(self, x).mean(-1)).relu())
        return made


def gate(net: Any, h: Tensor) -> Tensor:
    """tanh of one convolution times sigmoid of another."""
    return torch.tanh(net.conv(h)) * torch.sigmoid(net.norm(net.conv(h)))


def attend(net: Any, h: Tensor) -> Tensor:
    """Softmax attention written out."""
    t = net.norm(h).transpose(1, 2)
    weights = torch.softmax(net.query(t) @ net.key(t).transpose(1, 2) / 2, -1)
    made: Tensor = (weights @ net.value(t)).relu().transpose(1, 2)
    return made


def split_and_join(net: Any, h: Tensor) -> Tensor:
    """Unequal pieces that go different ways."""
    a, b, c = net.norm(h).split([1, 2, 3], 1)
    return torch.cat([torch.tanh(c), a, -b], 1).relu()


def chunks(net: Any, h: Tensor) -> Tensor:
    """One half of the channels gates the other."""
    a, b = net.norm(h).chunk(2, 1)
    return torch.cat([a.relu() * b, b - a], 1)


def hidden(body: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """The body on the activations of a convolution."""
    return lambda net, x: body(net, net.first(x).relu())


CONSTRUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "residual sum": hidden(lambda net, h: h + torch.tanh(net.conv(h + net.conv(h).relu()))),
    "subtraction": hidden(lambda net, h: (1.5 - (F.gelu(net.conv(h)) - h)).relu()),
    "subtraction with a factor": hidden(lambda net, h: torch.add(net.norm(h), h, alpha=-2).relu()),
    "batch-norm after a convolution": hidden(lambda net, h: torch.sigmoid(net.norm(net.conv(h)))),
    "batch-norm after an activation": hidden(lambda net, h: torch.tanh(net.norm(net.norm(h).relu()))),
    "gate": hidden(gate),
    "gated linear unit": hidden(lambda net, h: F.glu(torch.cat([net.conv(h), net.norm(h)], 1), 1)),
    "product and square": hidden(lambda net, h: (net.conv(h) * h * h).relu().square()),
    "broadcast product": hidden(lambda net, h: (net.norm(h) - h.mean(1, keepdim=True) * h).relu()),
    "quotient": hidden(lambda net, h: (net.norm(h) / (1 + h)).relu() / 3),
    "negative constant divisor": hidden(lambda net, h: torch.tanh(net.norm(h) / -3)),
    "overlapping max-pool": hidden(lambda net, h: F.max_pool1d(net.norm(net.conv(h)), 3, 1).relu()),
    "global maximum": hidden(lambda net, h: torch.tanh(net.norm(h)).amax(-1, keepdim=True)),
    "maximum of two": hidden(lambda net, h: torch.maximum(net.norm(h), net.conv(h)).relu()),
    "average pool": hidden(lambda net, h: torch.tanh(F.avg_pool1d(net.norm(h), 3, 2))),
    "padding with a number": hidden(
        lambda net, h: torch.tanh(F.avg_pool1d(F.pad(net.norm(h), (2, 1), value=0.7), 3, 1))
    ),
    "mask filled with a number": hidden(
        lambda net, h: torch.tanh(F.avg_pool1d(net.norm(h).masked_fill(torch.arange(9) < 3, 2.0), 3, 1))
    ),
    "concatenation": hidden(lambda net, h: torch.cat([h, -h, net.norm(h)], -1).relu()),
    "split": hidden(split_and_join),
    "chunk": hidden(chunks),
    "softmax attention": hidden(attend),
    "multi-head attention": hidden(
        lambda net, h: F.gelu(net.attention(*[net.norm(h).transpose(1, 2)] * 3)[0]).transpose(1, 2)
    ),
    "layer norm": hidden(lambda net, h: net.layer_norm(h.transpose(1, 2)).relu().transpose(1, 2)),
    "LSTM of three steps": lambda net, x: net.lstm(x[..., :3].transpose(1, 2))[0].transpose(1, 2),
}


@cache
def program(construct: str) -> Program:
    """A construct ready to be explained in float64."""
    return lower(capture(Layers(CONSTRUCTS[construct]), (4, 11), dtype=torch.float64))


def one_hot_rows(length: int, step: StepShape = STEP) -> Tensor:
    """One-hot sequences, then references: one the sequence itself, some equal to it in part."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 4, (step.sequences, length), generator=generator)
    own = F.one_hot(codes, 4).double().transpose(1, 2)
    references = torch.rand(step.pairs, 4, length, generator=generator, dtype=torch.float64)
    references[0] = own[0]
    references[1, :, : length // 2] = own[0, :, : length // 2]
    return torch.cat([own, references])


def error(program: Program, method: Method, rows: Tensor) -> float:
    """Largest |sum of contributions - output difference| over the mean |difference|, over all targets."""
    result = method.engine(program, STEP).run(rows, 2)
    delta = (result.predictions[:, None] - result.reference_predictions).flatten(0, 1)
    gap = rows[:2].repeat_interleave(3, 0) - rows[2:]
    sums = torch.stack([(m * gap).flatten(1).sum(1) for m in result.multipliers], 1)
    return float(((sums - delta).abs().amax(0) / delta.abs().mean(0)).max())


@pytest.mark.parametrize("method", [REVEAL_CANCEL, GENOMICS])
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_parts_times_multipliers_sum_to_the_output_difference(construct: str, method: Method) -> None:
    assert error(program(construct), method, one_hot_rows(11)) < 1e-12


@pytest.mark.parametrize("method", [REVEAL_CANCEL, GENOMICS])
def test_half_a_value_is_a_value_divided_by_two(method: Method) -> None:
    rows = one_hot_rows(11)
    bodies = (lambda net, h: (net.norm(h) / -2).relu(), lambda net, h: (net.norm(h) * -0.5).relu())
    divided, multiplied = (
        method.engine(lower(capture(Layers(hidden(body)), (4, 11), dtype=torch.float64)), STEP).run(rows, 2)
        for body in bodies
    )
    torch.testing.assert_close(divided.multipliers, multiplied.multipliers, rtol=0, atol=1e-14)


class Genomic(nn.Module):
    """Two convolutions and a dense layer, each with an activation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        norms = nn.BatchNorm1d(5), nn.BatchNorm1d(6)
        for norm in norms:
            norm.weight.data.normal_()
            norm.bias.data.normal_()
        self.front: Any = nn.Sequential(nn.Conv1d(4, 5, 3), norms[0], nn.Dropout(), nn.ReLU())
        self.back: Any = nn.Sequential(
            nn.Flatten(), nn.Linear(35, 6), norms[1], nn.Dropout(), nn.ReLU(), nn.Linear(6, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        made: Tensor = self.back(self.front(x))
        return made


def multipliers(net: nn.Module, rows: Tensor, method: Method) -> Tensor:
    """Multipliers of two targets, (targets, pairs, ...)."""
    made = lower(capture(net, tuple(rows.shape[1:]), dtype=torch.float64))
    return torch.stack(method.engine(made, STEP).run(rows, 2).multipliers)


def test_genomics_default_is_rescale_after_convolutions_whatever_lies_between() -> None:
    rows = one_hot_rows(9)
    net = nn.Sequential(*Genomic().front, nn.Flatten(), nn.Linear(35, 2)).eval()
    expected = multipliers(net, rows, RESCALE)
    torch.testing.assert_close(multipliers(net, rows, GENOMICS), expected, rtol=0, atol=1e-13)
    assert (multipliers(net, rows, REVEAL_CANCEL) - expected).abs().max() > 1e-3


def test_genomics_default_is_revealcancel_after_dense_layers_whatever_lies_between() -> None:
    rows = one_hot_rows(9)[:, :, :7].repeat(1, 2, 1)[:, :5]
    net = Genomic().back.eval()
    expected = multipliers(net, rows, REVEAL_CANCEL)
    torch.testing.assert_close(multipliers(net, rows, GENOMICS), expected, rtol=0, atol=1e-13)
    assert (multipliers(net, rows, RESCALE) - expected).abs().max() > 1e-3


def test_genomics_default_joins_rescale_in_front_and_revealcancel_behind() -> None:
    rows = one_hot_rows(9)
    net: Any = Genomic().double().eval()
    with torch.no_grad():
        before, after = net.front[:3](rows), net.front(rows)
        gap = before[:2].repeat_interleave(3, 0) - before[2:]
        rise = after[:2].repeat_interleave(3, 0) - after[2:]
        secant = torch.where(gap == 0, (before[2:] > 0).double(), rise / gap.masked_fill(gap == 0, 1))
        norm = net.front[1]
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]
        behind = multipliers(net.back, after, REVEAL_CANCEL)
        expected = [F.conv_transpose1d(m * secant * factor, net.front[0].weight) for m in behind]
    torch.testing.assert_close(multipliers(net, rows, GENOMICS), torch.stack(expected), rtol=0, atol=1e-13)


def scored(batch_size: int, codes: Any, references: Any) -> Any:
    """Hypothetical scores of both targets by RevealCancel, (targets, sequences, bases, length)."""
    deeplift = DeepLift(
        program("gate"), targets=2, n_references=references.shape[1], batch_size=batch_size,
        dtype=torch.float64, method=REVEAL_CANCEL,
    )  # fmt: skip
    step = deeplift.sequences_at_once
    found = [
        deeplift.explain(codes[i : i + step], references[i : i + step]) for i in range(0, len(codes), step)
    ]
    return np.concatenate([np.stack([task.hypothetical for task in part]) for part in found], 1)


@pytest.fixture
def drawn() -> tuple[Any, Any]:
    """Codes of five sequences, and of four references each."""
    generator = np.random.default_rng(8)
    codes = generator.integers(0, 4, (5, 11)).astype(np.uint8)
    references = generator.integers(0, 4, (5, 4, 11)).astype(np.uint8)
    references[:, 0, ::2] = codes[:, ::2]
    return codes, references


def test_scores_do_not_depend_on_the_batch_size(drawn: tuple[Any, Any]) -> None:
    whole = scored(20, *drawn)
    for batch_size in (1, 3, 4, 8):
        np.testing.assert_allclose(
            scored(batch_size, *drawn), whole, rtol=0, atol=1e-13 * np.abs(whole).max()
        )


def test_scores_are_the_same_bits_wherever_a_sequence_stands(drawn: tuple[Any, Any]) -> None:
    codes, references = drawn
    order = [3, 0, 4, 1, 2]
    np.testing.assert_array_equal(scored(8, codes[order], references[order]), scored(8, *drawn)[:, order])


def test_scores_do_not_depend_on_the_order_of_references(drawn: tuple[Any, Any]) -> None:
    codes, references = drawn
    whole = scored(20, *drawn)
    turned = scored(20, codes, references[:, ::-1])
    np.testing.assert_allclose(turned, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


def test_scores_against_several_references_are_the_mean_of_those_against_each(drawn: tuple[Any, Any]) -> None:
    codes, references = drawn
    whole = scored(20, *drawn)
    single = np.mean([scored(5, codes, references[:, [i]]) for i in range(4)], 0)
    np.testing.assert_allclose(single, whole, rtol=0, atol=1e-13 * np.abs(whole).max())
