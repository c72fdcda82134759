"""The gradient against torch.autograd, its relatives against backward hooks, and the two max-pool rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.integrated import IntegratedGradientsEngine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.rulesets import RULE_SETS, SIGNED, MaxPoolRule, with_rules
from dlgenome.attribution.signed import SignedEngine

STEP = StepShape(2, 2)


class Body(nn.Module):
    """Layers, and a function that says what becomes of an input with four channels at twelve positions."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.body = body
        self.first, self.conv = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 6, 3, padding=1)
        self.norm, self.layer_norm = nn.BatchNorm1d(6), nn.LayerNorm(6)
        self.norm.weight.data.normal_()
        self.attention, self.lstm = (
            nn.MultiheadAttention(6, 2, batch_first=True),
            nn.LSTM(6, 6, batch_first=True),
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        made: Tensor = self.head(self.body(self, self.first(x)).mean(-1))
        return made


BODIES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "ReLU, batch-norm and a residual sum": lambda net, h: h + net.norm(net.conv(h.relu())).relu(),
    "smooth activations": lambda net, h: F.silu(net.conv(F.gelu(h))) - torch.tanh(h).exp(),
    "gate": lambda net, h: torch.tanh(net.conv(h)) * torch.sigmoid(net.norm(h)),
    "quotient": lambda net, h: net.conv(h) / (1 + h.abs()),
    "overlapping max-pool": lambda net, h: F.max_pool1d(net.conv(h.relu()), 4, 2, padding=1),
    "global maximum": lambda net, h: net.conv(h).amax(-1, keepdim=True),
    "maximum of two": lambda net, h: torch.maximum(net.conv(h), h),
    "layer norm": lambda net, h: net.layer_norm(h.transpose(1, 2)).transpose(1, 2).relu(),
    "attention": lambda net, h: net.attention(*[h.transpose(1, 2)] * 3)[0].transpose(1, 2),
    "LSTM": lambda net, h: net.lstm(h[..., :3].transpose(1, 2))[0].transpose(1, 2),
    "own function with branches": lambda net, h: net.conv(torch.where(h > 0.1, h * h, h.exp() - 1)),
}


def drawn(*shape: int) -> Tensor:
    """Normal numbers for the rows of a step; a third of each reference equals its sequence."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(STEP.rows, *shape, generator=generator, dtype=torch.float64)
    same = torch.rand(STEP.pairs, *shape, generator=generator) < 1 / 3
    rows[2:] = torch.where(same, rows[:2].repeat_interleave(2, 0), rows[2:])
    return rows


@cache
def program(net: nn.Module, shape: tuple[int, ...]) -> Program:
    """A network ready to be explained."""
    return lower(capture(net, shape, dtype=torch.float64))


def explained(net: nn.Module, rows: Tensor, method: Method, targets: int = 2) -> Tensor:
    """Multipliers, (targets, pairs, ...)."""
    engine = method.engine(program(net, tuple(rows.shape[1:])), STEP)
    return torch.stack(engine.run(rows, targets).multipliers)


def differentiated(net: nn.Module, rows: Tensor, targets: int = 2) -> Tensor:
    """Gradients by torch at the sequences, repeated for their references."""
    x = rows[:2].clone().requires_grad_()
    output = net.double().eval()(x)
    found = [torch.autograd.grad(output[:, t].sum(), x, retain_graph=True)[0] for t in range(targets)]
    return torch.stack(found).repeat_interleave(2, 1)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for rounding in float64, and not zero everywhere."""
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13 * float(theirs.abs().max().clamp_min(1)))


@pytest.mark.parametrize("name", BODIES)
def test_gradient_is_that_of_autograd(name: str) -> None:
    rows, net = drawn(4, 12), Body(BODIES[name])
    assert_same(explained(net, rows, Method("gradient")), differentiated(net, rows))


class Activations(nn.Module):
    """A network whose activations are modules, so that hooks can be hung on them."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first, self.second = nn.Conv1d(4, 6, 3), nn.Conv1d(6, 6, 3, padding=1)
        self.norm, self.dense, self.head = nn.BatchNorm1d(6), nn.Linear(30, 8), nn.Linear(8, 2)
        self.norm.weight.data.normal_()
        self.activations = nn.ModuleList(kind() for _ in range(4))
        self.gates = nn.ModuleList([nn.Sigmoid()])

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        first, second, third, fourth = self.activations
        x = first(self.first(x))
        x = x + second(self.norm(self.second(x)))
        x = third(x - 1) * self.gates[0](self.second(x))
        made: Tensor = self.head(fourth(self.dense(F.avg_pool1d(x, 2).flatten(1))))
        return made


class Seeded(nn.Linear):
    """A dense layer whose weights depend on its size only."""

    def __init__(self, inputs: int = 48, outputs: int = 8) -> None:
        torch.manual_seed(inputs)
        super().__init__(inputs, outputs)


class ByHand(nn.Module):
    """A leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Every number by itself."""
        return torch.where(x > 0, x, 0.01 * x)


@cache
def leaky(by_hand: bool) -> nn.Module:
    """A leaky ReLU between two dense layers."""
    return nn.Sequential(nn.Flatten(), Seeded(), ByHand() if by_hand else nn.LeakyReLU(), Seeded(8, 2))


Hook = Callable[[nn.Module, Tensor, Tensor], Tensor]
HOOKS: dict[str, Hook] = {
    "guided-backprop": lambda module, below, above: below * (above > 0),
    "deconvnet": lambda module, below, above: nn.Module.__call__(type(module)(), above),
    "passthrough": lambda module, below, above: above,
}


@cache
def activations(kind: Any) -> nn.Module:
    """The network without hooks."""
    return Activations(kind)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus])
@pytest.mark.parametrize("rules", HOOKS)
def test_relatives_of_the_gradient_are_gradients_with_hooks(rules: Any, kind: Any) -> None:
    rows, net = drawn(4, 12), Activations(kind)
    if rules == "passthrough":
        # What is left is a product, whose rule looks at the reference, too: the same number here.
        rows[2:] = rows[:2].repeat_interleave(2, 0)
    ours = explained(activations(kind), rows, Method(rules))

    def hung(module: nn.Module, below: Any, above: Any) -> tuple[Tensor]:
        return (HOOKS[rules](module, below[0], above[0]),)

    for module in (*net.activations, *net.gates):
        module.register_full_backward_hook(hung)
    assert_same(ours, differentiated(net, rows))


@pytest.mark.parametrize("rules", ["gradient", "guided-backprop", "deconvnet", "passthrough"])
def test_a_function_written_out_by_hand_counts_as_one_activation(rules: Any) -> None:
    rows = drawn(4, 12)
    ours = explained(leaky(True), rows, Method(rules))
    theirs = explained(leaky(False), rows, Method(rules))
    assert_same(ours, theirs)


class Pooled(nn.Module):
    """Nothing but a maximum between linear layers."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.pool, self.first, self.head = pool, nn.Conv1d(4, 6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a sequence."""
        made: Tensor = self.head(self.pool(self.first(x)).sum(-1))
        return made


@cache
def pooled(pool: str) -> nn.Module:
    """The network with one of the pools."""
    return Pooled(POOLS[pool])


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "overlapping": lambda h: F.max_pool1d(h, 3, 1),
    "dilated and padded": lambda h: F.max_pool1d(h, 3, 2, padding=1, dilation=2),
    "open at the end": lambda h: F.max_pool1d(h, 4, 3, ceil_mode=True),
    "adaptive": lambda h: F.adaptive_max_pool1d(h, 3),
    "in two dimensions": lambda h: F.max_pool2d(h.unflatten(-1, (2, 5)), 2, 1).flatten(-2),  # type: ignore[no-untyped-call]
    "over an axis": lambda h: h.amax(-1, keepdim=True),
    "over an axis, with places": lambda h: h.max(-1, keepdim=True).values,
    "minimum over an axis": lambda h: h.amin(-1, keepdim=True),
}


@pytest.mark.parametrize("rules", ["rescale", "revealcancel", "gradient"])
@pytest.mark.parametrize("pool", POOLS)
def test_argmax_is_the_derivative_of_max_pooling(pool: str, rules: Any) -> None:
    rows, net = drawn(4, 12), pooled(pool)
    assert_same(explained(net, rows, Method(rules, "argmax")), differentiated(net, rows))


@pytest.mark.parametrize(("max_pool", "complete"), [("exact", True), ("argmax", False)])
@pytest.mark.parametrize("pool", POOLS)
def test_only_the_exact_rule_of_max_pooling_sums_to_the_difference(
    pool: str, max_pool: MaxPoolRule, complete: bool
) -> None:
    rows, net = drawn(4, 12), pooled(pool).double()
    m = explained(net, rows, Method(max_pool=max_pool))
    with torch.no_grad():
        made = net(rows)
    own = rows[:2].repeat_interleave(2, 0)
    delta = (made[:2].repeat_interleave(2, 0) - made[2:]).T
    error = ((m * (own - rows[2:])).flatten(2).sum(-1) - delta).abs().max() / delta.abs().mean()
    assert (error < 1e-12) if complete else (error > 1e-2)


@pytest.mark.parametrize("largest", [True, False])
def test_argmax_gives_every_equal_maximum_of_an_axis_the_whole_multiplier(largest: bool) -> None:
    class Extreme(nn.Module):
        """Largest or smallest number of a row, times three."""

        def forward(self, x: Tensor) -> Tensor:
            """One number a sequence."""
            return 3 * (x.amax(1, keepdim=True) if largest else x.amin(1, keepdim=True))

    row = torch.tensor([2.0, -1.0, 2.0, 0.0, -1.0], dtype=torch.float64)
    rows = row.expand(STEP.rows, -1).clone()
    rows[2:] += torch.arange(20).reshape(4, 5) % 3
    expected = 3 * (row == (2 if largest else -1)).double()
    found = explained(Extreme(), rows, Method(max_pool="argmax"), 1)[0]
    torch.testing.assert_close(found, expected.expand(4, -1))


@pytest.mark.parametrize("rules", RULE_SETS)
def test_every_rule_set_has_its_engine(rules: Any) -> None:
    found = program(pooled("overlapping"), (4, 12))
    expected = SignedEngine if rules in SIGNED else Engine
    assert type(Method(rules).engine(found, STEP)) is expected
    assert type(Method(rules, intervals=3).engine(found, STEP)) is IntegratedGradientsEngine


def test_rescale_leaves_the_program_as_it_is() -> None:
    plain = program(activations(nn.ReLU), (4, 12))
    assert with_rules(plain).steps == plain.steps
    for rules in set(RULE_SETS) - {"rescale", *SIGNED}:
        changed = with_rules(plain, rules)  # type: ignore[arg-type]
        assert changed.steps != plain.steps
        assert [step.call for step in changed.steps] == [step.call for step in plain.steps]
    assert set(get_args(MaxPoolRule)) == {"exact", "argmax"}
