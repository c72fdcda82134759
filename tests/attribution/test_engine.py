"""Whole networks against a slow DeepLIFT, completeness, and constructs that other programs miss."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.coverage import operations
from dlgenome.attribution.lowering import lower
from dlgenome.errors import UnsupportedModelError

LENGTH = 40
Multipliers = Callable[..., Any]


def one_hot(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    codes = np.random.default_rng(seed).integers(0, 4, size=shape)
    return F.one_hot(torch.from_numpy(codes), 4).transpose(-1, -2).to(dtype)


def relative_error(result: Any, sequences: Tensor, references: Tensor, target: int = 0) -> float:
    """Largest |sum of contributions - mean delta| over mean |delta|, as the written files state it."""
    multiplier = result.multipliers[target].unflatten(0, references.shape[:2]).double()
    difference = sequences.unsqueeze(1).double() - references.double()
    total = (multiplier * difference).sum((2, 3)).mean(1)
    delta = result.predictions[:, None, target].double() - result.reference_predictions[..., target].double()
    return float(((total - delta.mean(1)).abs() / delta.abs().mean(1)).max())


class Secant(torch.autograd.Function):
    """A function applied to the sequence's value; its gradient is the secant to the reference's value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.slopes = torch.zeros_like(x)
        for place in np.ndindex(*x.shape):
            if x[place] != r[place]:
                rise = function(x[place]) - function(r[place])
                ctx.slopes[place] = rise / (x[place] - r[place])
            else:
                at = x[place].detach().clone().requires_grad_()
                with torch.enable_grad():
                    (ctx.slopes[place],) = torch.autograd.grad(function(at), at)
        return function(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.slopes, None, None


class LargestOf(torch.autograd.Function):
    """Maximum over given windows of the last axis, its gradient the share of the difference of maxima."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, windows: list[range]) -> Tensor:
        ctx.shares = torch.zeros(*x.shape, len(windows), dtype=x.dtype)
        out = torch.zeros(*x.shape[:-1], len(windows), dtype=x.dtype)
        for lead in np.ndindex(*x.shape[:-1]):
            for number, window in enumerate(windows):
                at_x, at_r = (max(window, key=lambda p: float(value[lead][p])) for value in (x, r))
                out[(*lead, number)] = x[(*lead, at_x)]
                rise = x[(*lead, at_x)] - r[(*lead, at_r)]
                if rise == 0:
                    ctx.shares[(*lead, at_x, number)] = float(at_x == at_r)
                else:
                    winner = at_x if rise > 0 else at_r
                    ctx.shares[(*lead, winner, number)] = rise / (x[(*lead, winner)] - r[(*lead, winner)])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.shares * gradient.unsqueeze(-2)).sum(-1), None, None


class Both:
    """A value of one sequence and of one reference; gradients of the sequence's side are multipliers."""

    def __init__(self, x: Tensor, r: Tensor) -> None:
        self.x, self.r = x, r

    def linear(self, layer: Callable[[Tensor], Tensor]) -> Both:
        return Both(layer(self.x), layer(self.r).detach())

    def function(self, function: Callable[[Tensor], Tensor]) -> Both:
        return Both(Secant.apply(self.x, self.r, function), function(self.r))  # type: ignore[no-untyped-call]

    def largest(self, windows: Callable[[int], list[range]]) -> Both:
        found = windows(self.x.shape[-1])
        reference = torch.stack([self.r[..., list(w)].amax(-1) for w in found], -1)
        return Both(LargestOf.apply(self.x, self.r, found), reference)  # type: ignore[no-untyped-call]

    def plus(self, other: Both) -> Both:
        return Both(self.x + other.x, self.r + other.r)

    def times(self, other: Both) -> Both:
        """Each factor is multiplied by the mean of the other; half of both sums to the product's change."""
        middle, other_middle = ((v.x + v.r).detach() / 2 for v in (self, other))
        value = self.x * other_middle + middle * other.x
        constant = (self.x * other.x - value).detach()
        return Both(value + constant, self.r * other.r)


class Network(nn.Module):
    """A small network with one of everything that an ordinary CNN has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 6, 5, padding=2)
        self.norm = nn.BatchNorm1d(6)
        self.dilated = nn.Conv1d(6, 6, 3, padding=2, dilation=2)
        self.gate = nn.Conv1d(6, 6, 4, padding="same")
        self.last = nn.Conv1d(6, 8, 3, stride=2, groups=2)
        self.dense = nn.Linear(8 * 3, 10)
        self.head = nn.Linear(10, 2)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor([1.0, -0.8, 0.5, -1.5, 2.0, 0.1]))
            for name, low, high in (("running_var", 0.5, 2), ("running_mean", -1, 1)):
                self.norm.get_buffer(name).uniform_(low, high)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.norm(self.first(x)))
        x = F.max_pool1d(x, 4, 2, padding=1)
        x = x + F.gelu(self.dilated(x))
        x = torch.tanh(self.gate(x)) * torch.sigmoid(x)
        x = F.adaptive_max_pool1d(F.silu(self.last(x)), 3)
        return self.head(F.elu(self.dense(x.flatten(1))))


def padded_windows(length: int) -> list[range]:
    return [range(max(s - 1, 0), min(s + 3, length)) for s in range(0, length - 1, 2)]


def third_windows(length: int) -> list[range]:
    return [range(i * length // 3, -(-(i + 1) * length // 3)) for i in range(3)]


def slow_multipliers(
    network: Network, sequence: Tensor, reference: Tensor, target: int
) -> tuple[Tensor, ...]:
    """Multipliers and both predictions of one pair, one operation and one number at a time."""
    start = sequence[None].clone().requires_grad_()
    value = Both(start, reference[None])
    value = value.linear(network.first).linear(network.norm).function(torch.relu).largest(padded_windows)
    value = value.plus(value.linear(network.dilated).function(F.gelu))
    value = value.linear(network.gate).function(torch.tanh).times(value.function(torch.sigmoid))
    value = value.linear(network.last).function(F.silu).largest(third_windows)
    value = value.linear(lambda v: network.dense(v.flatten(1))).function(F.elu).linear(network.head)
    (gradient,) = torch.autograd.grad(value.x[0, target], start)
    return gradient[0], value.x[0].detach(), value.r[0].detach()


def test_multipliers_equal_a_slow_deeplift_of_each_pair(pair_multipliers: Multipliers) -> None:
    network = Network().double().eval()
    sequences, references = one_hot(1, 2, LENGTH), one_hot(2, 2, 3, LENGTH)
    result = pair_multipliers(network, sequences, references, 2)
    for target in (0, 1):
        for pair in range(6):
            expected, output, other = slow_multipliers(
                network, sequences[pair // 3], references[pair // 3, pair % 3], target
            )
            got = result.multipliers[target][pair]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(result.predictions[pair // 3], output, rtol=0, atol=1e-12)
            torch.testing.assert_close(
                result.reference_predictions[pair // 3, pair % 3], other, rtol=0, atol=1e-12
            )
        assert relative_error(result, sequences, references, target) < 1e-12


class ReusedRelu(nn.Module):
    """One nn.ReLU instance called twice on values of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 6, 5), nn.Conv1d(6, 8, 3)
        self.relu, self.head = nn.ReLU(), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.relu(self.second(self.relu(self.first(x)))).mean(-1))


class FunctionalRelu(nn.Module):
    """F.relu, torch.relu and Tensor.relu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv1d(4, 6, 5), nn.Conv1d(6, 6, 3), nn.Conv1d(6, 6, 3)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.second(F.relu(self.first(x))))
        return self.head(self.third(x).relu().mean(-1))


class MyRelu(nn.ReLU):
    """A subclass of nn.ReLU that adds nothing."""


class Gated(nn.Module):
    """tanh * sigmoid gates and a residual through x.relu()."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.value, self.gate = (
            nn.Conv1d(4, 6, 5),
            nn.Conv1d(6, 6, 3, padding=1),
            nn.Conv1d(6, 6, 1),
        )
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        x = x + x.relu()
        return self.head((torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))).mean(-1))


class Quotient(nn.Module):
    """Instance-like normalisation written by hand: differences, squares, roots and quotients."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(4, 6, 5), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        centred = x - x.mean(-1, keepdim=True)
        x = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 0.1)
        return self.head(F.softplus(x).amax(-1))


class Folded(nn.Module):
    """Attention-like shuffling: channels folded into the batch, the batch moved behind, matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dense, self.head = nn.Conv1d(4, 8, 5), nn.Linear(4, 4), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        batch = x.shape[0]
        x = self.first(x)
        heads = x.view(batch, 2, 4, -1).permute(1, 0, 3, 2).reshape(2 * batch, -1, 4)
        heads = F.gelu(self.dense(heads))
        mixed = torch.sigmoid(torch.bmm(heads, heads.transpose(1, 2)) / 4)
        heads = torch.bmm(mixed, heads).mean(1)
        back = heads.view(2, batch, 4).permute(1, 0, 2).reshape(batch, 8)
        return self.head(back)


def negative_norm() -> nn.Module:
    norm = nn.BatchNorm1d(6)
    nn.init.uniform_(norm.weight, -2, -0.5)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(
        nn.Conv1d(4, 6, 5), norm, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 1)
    )


def sequential(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv1d(4, 6, 5), *layers, nn.Flatten(), nn.Linear(width, 1))


def smooth(activation: Callable[[], nn.Module]) -> nn.Module:
    """Weights large enough that the activations bend and the predictions differ."""
    network = nn.Sequential(
        nn.Conv1d(4, 8, 7), activation(), nn.Conv1d(8, 8, 3), activation(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 8), activation(), nn.Linear(8, 1),
    )  # fmt: skip
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    return network


RELU_MODELS: dict[str, Callable[[], nn.Module]] = {
    "one ReLU instance called twice": ReusedRelu,
    "functional ReLU": FunctionalRelu,
    "ReLU in place": lambda: sequential(
        nn.ReLU(inplace=True), nn.Conv1d(6, 6, 3), nn.ReLU(inplace=True), nn.AvgPool1d(34), width=6
    ),
    "overlapping MaxPool1d(4, 2)": lambda: sequential(nn.ReLU(), nn.MaxPool1d(4, 2), width=6 * 17),
    "AdaptiveMaxPool1d": lambda: sequential(nn.ReLU(), nn.AdaptiveMaxPool1d(5), width=30),
    "subclass of nn.ReLU": lambda: sequential(MyRelu(), nn.AdaptiveAvgPool1d(3), width=18),
    "batch norm with negative gamma": negative_norm,
}
SMOOTH_MODELS: dict[str, Callable[[], nn.Module]] = {
    "tanh * sigmoid gate and residual": Gated,
    "everything": lambda: nn.Sequential(Network(), nn.Linear(2, 1)),
    "quotients": Quotient,
    "batch folded and moved": Folded,
    **{
        activation.__name__: lambda activation=activation: smooth(activation)  # type: ignore[misc]
        for activation in (nn.GELU, nn.SiLU, nn.Sigmoid, nn.SELU, nn.Softplus)
    },
}  # fmt: skip
MODELS = {**RELU_MODELS, **SMOOTH_MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_contributions_sum_to_the_difference_of_predictions(name: str, pair_multipliers: Multipliers) -> None:
    module = MODELS[name]().eval()
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5 if name in RELU_MODELS else 1e-4)):
        sequences, references = one_hot(3, 4, LENGTH, dtype=dtype), one_hot(4, 4, 20, LENGTH, dtype=dtype)
        module = module.to(dtype)
        result = pair_multipliers(module, sequences, references)
        with torch.no_grad():
            torch.testing.assert_close(result.predictions, module(sequences), check_dtype=False)
        assert relative_error(result, sequences, references) < limit


def test_a_sequence_equal_to_its_reference_scores_the_derivative(pair_multipliers: Multipliers) -> None:
    module = smooth(nn.GELU).double().eval()
    sequences = one_hot(5, 2, LENGTH)
    result = pair_multipliers(module, sequences, sequences.unsqueeze(1).clone())
    start = sequences.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(start).sum(), start)
    torch.testing.assert_close(result.multipliers[0], gradient, rtol=1e-12, atol=1e-14)


def test_bases_that_the_target_does_not_read_get_zero(pair_multipliers: Multipliers) -> None:
    class Left(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x[:, :, :10].relu().sum((1, 2)).unsqueeze(1)

    result = pair_multipliers(Left(), one_hot(6, 2, LENGTH), one_hot(7, 2, 2, LENGTH))
    assert (result.multipliers[0][:, :, 10:] == 0).all()


@pytest.mark.parametrize("name", ["everything", "ReLU in place", "batch norm with negative gamma"])
def test_the_module_of_the_user_is_left_as_it_was(name: str, pair_multipliers: Multipliers) -> None:
    module = MODELS[name]().double().train()
    module[0].eval() if isinstance(module, nn.Sequential) else None
    hook = module.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(module.state_dict())
    flags = [child.training for child in module.modules()]
    needs = [weight.requires_grad for weight in module.parameters()]
    hooks = [len(child._forward_hooks) for child in module.modules()]
    pair_multipliers(module, one_hot(8, 2, LENGTH), one_hot(9, 2, 3, LENGTH))
    assert flags == [child.training for child in module.modules()]
    assert needs == [weight.requires_grad for weight in module.parameters()]
    assert hooks == [len(child._forward_hooks) for child in module.modules()]
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    hook.remove()


class Refused(nn.Module):
    """A convolution, then something without a rule inside a submodule called ``block``."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.block, self.head = nn.Conv1d(4, 6, 5), Block(function), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.block(self.first(x)).mean(-1))


class Block(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def sort(x: Tensor) -> Tensor:
    return torch.sort(x, -1).values


def spectrum(x: Tensor) -> Tensor:
    power: Tensor = torch.fft.rfft(x).abs()
    return power


def over_batch(x: Tensor) -> Tensor:
    return x - x.mean(0)


def flipped_batch(x: Tensor) -> Tensor:
    return x + x.flip(0)


def first_rows(x: Tensor) -> Tensor:
    return x + x[:1]


def noise(x: Tensor) -> Tensor:
    return x + torch.rand_like(x)


def total(x: Tensor) -> Tensor:
    return x / x.sum()


def running_median(x: Tensor) -> Tensor:
    middle: Tensor = torch.median(x.unfold(-1, 3, 3), -1)[0]
    return middle


@pytest.mark.parametrize(
    ("function", "operation", "reason"),
    [
        (sort, "aten.sort.default", "no exact DeepLIFT rule exists for it in dlgenome"),
        (spectrum, "fft", "no exact DeepLIFT rule exists for it in dlgenome"),
        (running_median, "aten.median.dim", "no exact DeepLIFT rule exists for it in dlgenome"),
        (over_batch, "aten.mean.dim", "batch"),
        (flipped_batch, "aten.flip.default", "it works across the batch"),
        (first_rows, "aten.slice.Tensor", "batch"),
        (noise, "aten.rand", "random|no exact DeepLIFT rule"),
        (total, "aten.sum", "batch"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_operations_without_a_rule_are_refused_by_name_module_and_line(
    function: Callable[[Tensor], Tensor], operation: str, reason: str
) -> None:
    program = lower(capture(Refused(function), (4, LENGTH)))
    with pytest.raises(UnsupportedModelError) as refused:
        program.require_supported()
    line = Block.forward.__code__.co_firstlineno + 1
    (sentence,) = [part for part in str(refused.value).splitlines()[1:] if operation in part][:1]
    assert "module block" in sentence
    assert f"test_engine.py, line {line})" in sentence
    assert re.search(reason, sentence)
    assert refused.value.exit_code == 5
    assert any(not fact.exact and fact.module == "block" for fact in operations(program))


def test_every_operation_without_a_rule_is_named_at_once() -> None:
    program = lower(capture(Refused(lambda x: running_median(x) + sort(x)[..., :12]), (4, LENGTH)))
    assert {refusal.operation for refusal in program.refusals} >= {"aten.sort.default", "aten.median.dim"}


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Any:
        if x.sum() > 3:
            return x.sum((1, 2))[:, None]
        return x.mean((1, 2))[:, None]


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.view(3, -1).sum(1, keepdim=True)


class ShiftOfEight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(8, 4, 1))

    def forward(self, x: Tensor) -> Any:
        return (x + self.shift).sum((1, 2))[:, None]


def test_a_branch_on_the_sequence_says_why_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    line = Branching.forward.__code__.co_firstlineno + 1
    with pytest.raises(UnsupportedModelError) as refused:
        capture(Branching(), (4, LENGTH))
    assert f"test_engine.py, line {line})" in str(refused.value)
    assert "it branches on the values of the sequence; write the branch with torch.where" in str(
        refused.value
    )
    assert capsys.readouterr() == ("", "")


def test_a_fixed_batch_size_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedModelError, match=r"it fixes the batch size in torch\.Tensor\.view; use x"):
        capture(FixedBatch(), (4, LENGTH))


def test_other_reasons_of_the_capture_are_passed_on_with_the_line() -> None:
    line = ShiftOfEight.forward.__code__.co_firstlineno + 1
    with pytest.raises(UnsupportedModelError, match="must match the size of tensor b") as refused:
        capture(ShiftOfEight(), (4, LENGTH))
    assert f"test_engine.py, line {line})" in str(refused.value)


class Dropping(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return F.dropout(x, 0.5, training=True).sum((1, 2))[:, None]


def test_functional_dropout_is_switched_off_with_a_note(pair_multipliers: Multipliers) -> None:
    program = lower(capture(Dropping(), (4, LENGTH)))
    line = Dropping.forward.__code__.co_firstlineno + 1
    assert len(program.notes) == 1
    assert program.notes[0].endswith(f"test_engine.py, line {line} is switched off")
    assert not program.refusals
    result = pair_multipliers(Dropping(), one_hot(1, 2, LENGTH), one_hot(2, 2, 2, LENGTH))
    assert torch.equal(result.predictions, torch.full((2, 1), float(LENGTH), dtype=torch.float64))


class DroppingWeights(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.2).sum((1, 2))[:, None]


def test_dropout_of_attention_is_switched_off_with_a_note() -> None:
    program = lower(capture(DroppingWeights(), (4, LENGTH)))
    line = DroppingWeights.forward.__code__.co_firstlineno + 1
    assert [note.endswith(f"test_engine.py, line {line} is switched off") for note in program.notes] == [True]
    assert not program.refusals


def test_a_target_that_ignores_the_sequence_is_refused() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.ones(x.shape[0], 1)

    with pytest.raises(UnsupportedModelError, match="there is nothing to explain"):
        lower(capture(Constant(), (4, LENGTH)))


def test_outputs_that_the_target_does_not_need_are_not_asked_for_a_rule(
    pair_multipliers: Multipliers,
) -> None:
    class TwoHeads(nn.Module):
        def forward(self, x: Tensor) -> Any:
            torch.sort(x, -1)
            return x.relu().sum((1, 2))[:, None]

    program = lower(capture(TwoHeads(), (4, LENGTH)))
    assert not program.refusals
    assert "sort" not in " ".join(fact.name for fact in operations(program))


def handwritten_elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.exp(x) - 1)


def handwritten_leaky_relu(x: Tensor) -> Tensor:
    return x * (x > 0) + 0.1 * x * (x <= 0)


def handwritten_swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.7 * x)


def sawtooth(x: Tensor) -> Tensor:
    return x - torch.floor(x)


def bent_twice(x: Tensor) -> Tensor:
    return torch.where(x > 1, x.abs(), (x + 0.3).abs() * 0.5 + x.clamp(-0.2, 0.1))


@pytest.mark.parametrize(
    "function", [handwritten_elu, handwritten_leaky_relu, handwritten_swish, sawtooth, bent_twice]
)
def test_functions_of_one_value_written_by_hand_are_exact(
    function: Callable[[Tensor], Tensor], pair_multipliers: Multipliers
) -> None:
    module = Refused(function).eval()
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        module = module.to(dtype)
        sequences, references = one_hot(3, 4, LENGTH, dtype=dtype), one_hot(4, 4, 20, LENGTH, dtype=dtype)
        result = pair_multipliers(module, sequences, references)
        torch.testing.assert_close(result.predictions, module(sequences).detach(), check_dtype=False)
        assert relative_error(result, sequences, references) < limit
