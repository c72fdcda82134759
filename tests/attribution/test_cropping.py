"""Positions that cannot reach the target are not computed, and nothing of it changes a score."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution import cropping, towers, winograd
from dlgenome.attribution.capture import capture
from dlgenome.attribution.cropping import cropped
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import Engine, PairMultipliers
from dlgenome.attribution.integrated import IntegratedGradientsEngine
from dlgenome.attribution.kernels import cropped_sum, pair_rows, relu_multiplier
from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.readout import Readout
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rewriting import put_together
from dlgenome.attribution.rules.linear import Identity, Linear
from dlgenome.attribution.rules.tower import Tower
from dlgenome.attribution.rulesets import RULE_SETS, SIGNED, with_rules
from dlgenome.attribution.signed import SignedEngine
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.targets import TargetHead, parse_targets

STEP = StepShape(2, 3)
LENGTH = 60
CHANNELS = 6

Forward = Callable[["Layers", Tensor], Any]


class Layers(nn.Module):
    """Layers of every kind, and a forward pass of some of them."""

    def __init__(self, run: Forward) -> None:
        super().__init__()
        self.run = run
        self.first = nn.Conv1d(4, CHANNELS, 5, padding=2)
        self.convs = nn.ModuleList(
            nn.Conv1d(CHANNELS, CHANNELS, 3, padding=d, dilation=d) for d in (1, 2, 4, 8)
        )
        self.same = nn.Conv1d(CHANNELS, CHANNELS, 4, padding="same", dilation=2)
        self.odd_same = nn.Conv1d(CHANNELS, CHANNELS, 5, padding="same")
        self.valid = nn.Conv1d(CHANNELS, CHANNELS, 6)
        self.grouped = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1, groups=2)
        self.strided = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1, stride=2)
        self.transposed = nn.ConvTranspose1d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.slopes = nn.PReLU(CHANNELS)
        self.profile = nn.Conv1d(CHANNELS, 1, 15, padding=7)
        self.linear = nn.Linear(CHANNELS, 2)
        self.gate = nn.Linear(CHANNELS, CHANNELS)
        self.ramp = nn.Parameter(torch.linspace(0, 1, LENGTH))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)

    def body(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for conv in self.convs:
            x = x + conv(x).relu()
        return x

    def head(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.mean(2))
        return out


def summed(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1, keepdim=True)


def two_widths(net: Layers, x: Tensor) -> Tensor:
    x = net.body(x)
    profile = net.profile(x[:, :, 22:38])[:, :, 7:-7].flatten(1)
    return torch.cat([net.head(x[:, :, 17:43]), profile], 1)


def far_apart(net: Layers, x: Tensor) -> Tensor:
    x = net.body(x)
    return net.head(x[:, :, 20:24] + x[:, :, 30:34])


def read_on_the_way(net: Layers, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    early = x = x + net.convs[0](x).relu()
    made = net.convs[3](x).relu()
    x = x + made
    return net.head((x * early + made)[:, :, 25:35])


def gelus(net: Layers, x: Tensor) -> Tensor:
    x = F.gelu(net.first(x))
    for conv in net.convs:
        x = x + F.gelu(conv(net.norm(x)))
    return net.head(x[:, :, 20:40])


def normalised(net: Layers, x: Tensor) -> Tensor:
    x = net.norm(net.first(x)).relu()
    for conv in net.convs:
        x = net.slopes(net.norm(conv(x))) + F.dropout(x, 0.5, training=False)
    return net.head(x[:, :, 20:40])


def by_hand(net: Layers, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    for conv in net.convs:
        assert isinstance(conv, nn.Conv1d)
        d = conv.dilation[0]
        x = x + F.conv1d(F.pad(x, (d, d)), conv.weight, conv.bias, dilation=d).relu()
        x = torch.where(x > 1, x * x, x)
    return net.head(x[:, :, 20:40])


def other_kinds(net: Layers, x: Tensor) -> Tensor:
    x = net.first(x).relu()
    x = x + net.same(x).relu()
    x = x + net.odd_same(x).relu()
    x = x + net.grouped(x).relu()
    x = torch.cat([x[:, :3], net.valid(F.pad(x, (5, 0)))[:, 3:]], 1)
    return net.head(x[:, :, 30:45])


def squeezed(net: Layers, x: Tensor) -> Tensor:
    x = net.body(x)
    x = x * net.gate(x.mean(2)).sigmoid().unsqueeze(2)
    x = net.convs[2](x).relu() * x
    return net.head(x[:, :, 20:30])


def with_places(net: Layers, x: Tensor) -> Tensor:
    x = net.body(x) + net.ramp
    return net.head((net.convs[1](x).relu() * net.ramp)[:, :, 20:30])


def not_everything(net: Layers, x: Tensor) -> Tensor:
    x = F.max_pool1d(net.body(x), 2)
    x = net.transposed(net.strided(x).relu())
    x = x + net.convs[3](x).relu()
    return net.head(x[:, :, 4:9])


def only_padding(net: Layers, x: Tensor) -> Tensor:
    x = net.body(x)
    return net.head(F.pad(x, (9, 9))[:, :, :5] + x[:, :, 30:35])


def negative(net: Layers, x: Tensor) -> Tensor:
    x = net.body(F.pad(x, (-3, -2)))
    return net.head(x[:, :, -30:-20])


def stepped(net: Layers, x: Tensor) -> Tensor:
    return net.head(net.convs[0](net.body(x)[:, :, 10:50:2])[:, :, 5:15])


def of_slice(start: int, stop: int) -> Forward:
    return lambda net, x: net.head(net.body(x)[:, :, start:stop])


NETWORKS: dict[str, tuple[Forward, int]] = {
    "middle": (of_slice(20, 40), 2),
    "not quite the middle": (of_slice(19, 42), 2),
    "left side": (of_slice(0, 20), 2),
    "right side": (of_slice(35, 60), 2),
    "one position": (of_slice(31, 32), 2),
    "almost all": (of_slice(1, 59), 2),
    "two widths": (two_widths, 4),
    "far apart": (far_apart, 2),
    "read on the way": (read_on_the_way, 2),
    "GELU": (gelus, 2),
    "batch-norm and PReLU": (normalised, 2),
    "padded by hand": (by_hand, 2),
    "other kinds of convolutions": (other_kinds, 2),
    "squeezed": (squeezed, 2),
    "positions as constants": (with_places, 2),
    "pool, stride, transposed": (not_everything, 2),
    "only padding": (only_padding, 2),
    "negative": (negative, 2),
    "stepped": (stepped, 2),
    "to the last": (lambda net, x: summed(net.body(x)[:, 2:5, 10:20]), 1),
}


WHOLE = ("positions as constants", "only padding")
"""Networks of which every position is needed, or may be."""


@cache
def program_of(run: Forward, dtype: torch.dtype = torch.float64) -> Program:
    torch.manual_seed(5)
    network = Layers(run)
    with torch.no_grad():
        for values in (network.norm.running_mean, network.norm.running_var, network.norm.weight):
            assert values is not None
            values.uniform_(0.5, 1.5)
    return lower(capture(network.eval(), (4, LENGTH), dtype=dtype))


def one_hot(length: int, dtype: torch.dtype = torch.float64, step: StepShape = STEP) -> Tensor:
    bases = torch.randint(4, (step.rows, 1, length), generator=torch.Generator().manual_seed(2))
    return torch.zeros(step.rows, 4, length, dtype=dtype).scatter_(1, bases, 1)


def assert_same(one: PairMultipliers, other: PairMultipliers, tolerance: float = 1e-12) -> None:
    for a, b in zip(one.multipliers, other.multipliers, strict=True):
        assert (a - b).abs().max() <= tolerance * a.abs().max()
    for x, y in (
        (one.pair_predictions, other.pair_predictions),
        (one.reference_predictions, other.reference_predictions),
    ):
        assert (x - y).abs().max() <= tolerance * x.abs().max()


def widths(program: Program) -> dict[str, int]:
    return {step.call.name: step.call.output.dims[-1] for step in program.steps}


@pytest.fixture(autouse=True)
def copies_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are too small for any copy to pay."""
    monkeypatch.setattr(cropping, "_COPY", 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_of_the_program_with_all_positions(name: str) -> None:
    run, targets = NETWORKS[name]
    program, rows = program_of(run), one_hot(LENGTH)
    expected = Engine(program, STEP, keep_all=True).run(rows, targets)
    for version in (cropped(program), put_together(program)):
        assert_same(expected, Engine(version, STEP).run(rows, targets))
    assert (cropped(program) is program) == (name in WHOLE)


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_random_stacks_are_the_same(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=draw))

    torch.manual_seed(seed)
    plans = [(number(1, 6), number(1, 9), number(0, 4)) for _ in range(number(2, 6))]
    start = number(0, LENGTH - 2)
    stop = number(start + 1, LENGTH)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv1d(4, 4, k, padding="same", dilation=d) for k, d, _ in plans)

        def forward(self, x: Tensor) -> Tensor:
            for conv, (_, _, kind) in zip(self.convs, plans, strict=True):
                made = conv(x)
                x = (x + made.relu(), made.relu() + x, torch.tanh(made) * x, F.gelu(made))[kind]
            return summed(x[:, :, start:stop])

    program, rows = lower(capture(Stack(), (4, LENGTH), dtype=torch.float64)), one_hot(LENGTH)
    expected = Engine(program, STEP, keep_all=True).run(rows, 1)
    assert_same(expected, DEEPLIFT.engine(program, STEP).run(rows, 1))


@pytest.mark.parametrize("rules", RULE_SETS)
@pytest.mark.parametrize("name", ["padded by hand", *list(NETWORKS)[::4]])
def test_every_rule_set_gives_the_same(name: str, rules: Any) -> None:
    run, targets = NETWORKS[name]
    program, rows, method = program_of(run), one_hot(LENGTH), Method(rules=rules)
    chosen = with_rules(program, rules)
    plain = (
        SignedEngine(chosen, STEP, reveal_all=rules == "revealcancel")
        if rules in SIGNED
        else Engine(chosen, STEP, keep_all=True)
    )
    assert_same(plain.run(rows, targets), method.engine(program, STEP).run(rows, targets))


def test_integrated_gradients_are_the_same() -> None:
    program, rows = program_of(gelus), one_hot(LENGTH)
    method = Method(intervals=3)
    expected = IntegratedGradientsEngine(program, STEP, intervals=3).run(rows, 2)
    assert_same(expected, method.engine(program, STEP).run(rows, 2))


def test_gradients_that_stand_in_for_rules_are_the_same() -> None:
    def run(net: Layers, x: Tensor) -> Tensor:
        x = net.body(x)
        x = torch.where(x > x.roll(1, 1), x, net.convs[0](x).relu())
        return net.head(x[:, :, 20:40])

    torch.manual_seed(6)
    program = lower(capture(Layers(run).eval(), (4, LENGTH), dtype=torch.float64), strict=False)
    assert program.approximations
    expected = Engine(program, STEP, keep_all=True).run(one_hot(LENGTH), 2)
    assert cropped(program) is not program
    assert_same(expected, DEEPLIFT.engine(program, STEP).run(one_hot(LENGTH), 2))


WAYS = {
    "library": "without_vectors",
    "fewer products": "without_tiles",
    "tiles": "with_tiles",
    "tower of tiles": "with_tiles",
    "tower of vectors": "only_vectors",
}
"""Of computing convolutions, and what the processor must have, or not have, for that."""


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("width", "start", "stop"),
    [(3, 20, 40), (3, 10, 40), (3, 0, 30), (3, 31, 60), (4, 20, 40), (5, 15, 58), (2, 20, 40)],
)
def test_layers_of_many_channels_may_end_on_one_side_first(
    width: int, start: int, stop: int, way: str, narrow: bool, request: pytest.FixtureRequest
) -> None:
    """The library then adds to values of other lengths, or must not be asked to.

    Layers that end on both sides at once are a tower, where there are towers.
    """
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    request.getfixturevalue(WAYS[way])
    if way in ("library", "fewer products"):
        patch.setattr(winograd, "WORTH_IT", 10 if way == "fewer products" else 0)
    if not way.startswith("tower"):
        for question in ("has_tiles", "has_vectors"):
            patch.setattr(towers, question, lambda: False)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(4, 64, 5, padding=2)
            self.convs = nn.ModuleList(
                nn.Conv1d(64, 64, width, padding="same", dilation=d) for d in (1, 2, 4, 8)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            for conv in self.convs:
                x = x + conv(x).relu()
            return summed(x[:, :, start:stop])

    torch.manual_seed(8)
    network = Residual()
    program, rows = lower(capture(network, (4, LENGTH))), one_hot(LENGTH, torch.float32)
    program = with_narrow_products(program) if narrow else program
    exact = lower(capture(deepcopy(network).double(), (4, LENGTH), dtype=torch.float64))
    assert cropped(program) is not program
    if (start, stop) == (20, 40) and width == 3:
        has_tower = any(isinstance(step.rule, Tower) for step in put_together(program).steps)
        assert has_tower == way.startswith("tower")
    expected = Engine(exact, STEP, keep_all=True).run(rows.double(), 1)
    assert_same(expected, DEEPLIFT.engine(program, STEP).run(rows, 1), 1e-2 if narrow else 1e-5)


BASES = 400


@cache
def bpnet(
    targets: tuple[str, ...] = ("counts",), dtype: torch.dtype = torch.float64, n_filters: int = 32
) -> Program:
    """A BPNet of 400 bases whose outermost positions see the outermost bases."""
    torch.manual_seed(7)
    network = BPNet(n_filters=n_filters, n_layers=4, n_outputs=1, trimming=70).eval()
    return lower(capture(TargetHead(network, parse_targets(targets)), (4, BASES), dtype=dtype))


def test_the_last_layers_of_a_bpnet_are_narrower() -> None:
    program = bpnet()
    before = [step.call.output.dims[-1] for step in program.steps if "conv" in step.call.name]
    after = [step.call.output.dims[-1] for step in put_together(program).steps if "conv" in step.call.name]
    assert before == [BASES] * 5
    # 33 - 37 bases from either end for the counts, one dilation more for every layer before
    counted = BASES - 2 * (70 - 37)
    assert after == [min(BASES, counted + 2 * more) for more in (30, 28, 24, 16, 0)]


def test_operations_are_listed_as_they_were_written() -> None:
    program = bpnet()
    names = [step.call.name for step in program.steps]
    put_together(program)
    assert [step.call.name for step in program.steps] == names
    assert program.infos["add_3"].dims[-1] == BASES  # type: ignore[union-attr]


def test_a_network_that_reads_all_positions_is_left_as_it_is() -> None:
    program = program_of(lambda net, x: net.head(net.convs[1](F.max_pool1d(net.body(x), 2)).relu()))
    assert cropped(program) is program


@pytest.mark.parametrize("kind", [Linear, Identity])
def test_a_rule_of_a_plug_in_is_given_all_positions(kind: type[Linear]) -> None:
    anywhere = type("Anywhere", (kind,), {})()
    torch.manual_seed(5)
    network = Layers(lambda net, x: net.head((-net.convs[0](net.first(x)))[:, :, 20:40])).eval()
    captured = capture(network, (4, LENGTH), dtype=torch.float64)
    assert cropped(program := lower(captured)) is not program
    program = lower(captured, {**RULES, torch.ops.aten.neg.default: anywhere})
    assert cropped(program) is program


def test_a_copy_that_costs_more_than_it_saves_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(net: Layers, x: Tensor) -> Tensor:
        x = F.max_pool1d(net.body(x), 2)
        return net.head(net.convs[0](x)[:, :, 5:25])

    program = program_of(run)
    assert cropped(program) is not program
    monkeypatch.undo()
    assert cropped(program) is program


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_target_of_a_large_bpnet_has_the_same_scores(dtype: torch.dtype) -> None:
    program, rows = bpnet(("counts", "profile-bpnet"), dtype), one_hot(BASES, dtype)
    columns = program.infos[program.output].dims[-1]  # type: ignore[union-attr]
    readouts = [Readout(0, 1), Readout(1, columns, "bpnet")]
    expected = Engine(program, STEP, keep_all=True).run(rows, readouts)
    engine = DEEPLIFT.engine(program, STEP)
    for _ in range(2):  # what was written over is made anew
        assert_same(expected, engine.run(rows, readouts), 1e-12 if dtype is torch.float64 else 2e-5)


def test_narrow_convolutions_give_what_they_give_at_all_positions() -> None:
    program, rows = with_narrow_products(bpnet(dtype=torch.float32)), one_hot(BASES, torch.float32)
    assert cropped(program) is not program
    expected = Engine(program, STEP, keep_all=True).run(rows, 1)
    found = DEEPLIFT.engine(program, STEP).run(rows, 1)
    assert_same(expected, found, 0.005)


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
def test_neighbours_and_threads_change_no_bit(narrow: bool, random_codes: Any) -> None:
    program = bpnet(dtype=torch.float32)
    program = with_narrow_products(program) if narrow else program
    codes, references = random_codes(5, 4, BASES), random_codes(6, 4, 5, BASES)

    def explained(rows: slice) -> Any:
        explainer = DeepLift(program, targets=1, n_references=5, batch_size=10)
        return explainer.explain(codes[rows], references[rows])[0].hypothetical

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = explained(slice(None))
        torch.set_num_threads(1)
        np.testing.assert_array_equal(together, explained(slice(None)))
        np.testing.assert_array_equal(together[2:3], explained(slice(2, 3)))
    finally:
        torch.set_num_threads(before)


def lying(value: Tensor) -> Tensor:
    """The value with its channels side by side in memory."""
    return value.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64], ids=str)
def test_a_cropped_sum_is_the_plain_one(kind: torch.dtype, over: bool, threads: int) -> None:
    first, value = lying(torch.randn(5, 48, 300).to(kind)), lying(torch.randn(5, 48, 187).to(kind))
    value[0, 0, 0] = torch.nan
    expected, before = first[:, :, 90:277] + value.relu(), torch.get_num_threads()
    memory = first.data_ptr()
    try:
        torch.set_num_threads(threads)
        found = cropped_sum(first, 90, value, over)
    finally:
        torch.set_num_threads(before)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert (found.data_ptr() == memory) == (over and threads == 1)


def test_a_cropped_sum_is_not_made_of_values_that_lie_otherwise() -> None:
    first, value = torch.randn(5, 48, 300), torch.randn(5, 48, 187)
    assert cropped_sum(first, 90, value) is None
    assert cropped_sum(lying(first), 90, value) is None
    assert cropped_sum(lying(first)[:, :, 1:], 90, lying(value)) is None


@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32], ids=str)
def test_a_multiplier_with_more_positions_counts_where_the_values_are(kind: torch.dtype, spare: bool) -> None:
    x, r = (lying(torch.randn(n, 48, 187).to(kind)) for n in (STEP.sequences, STEP.pairs))
    multiplier = lying(torch.randn(STEP.pairs, 48, 300).to(kind))
    cut = lying(multiplier[:, :, 90:277])
    expected = relu_multiplier(pair_rows(x, r.clone(), cut, STEP, BatchAxis()))
    found = relu_multiplier(pair_rows(x, r, multiplier, STEP, BatchAxis(), spare, 90))
    assert expected is not None
    assert found is not None
    assert torch.equal(expected, found)
    x, r = x.contiguous(), r.contiguous()
    assert pair_rows(x, r, multiplier, STEP, BatchAxis(), spare, 90) is None
