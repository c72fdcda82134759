"""Rules of the user's own: from a file, from a package, for an operation that torch does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution import plugins
from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.plugins import rules_with_plugins
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.elementwise import Elementwise
from dlgenome.errors import UnsupportedModelError, UsageError

PLUGIN = '''
import torch
from dlgenome.attribution.rules.elementwise import Elementwise


class Cube(Elementwise):
    """x^3, whose secant is x^2 + x r + r^2."""

    title = "rescale (closed form)"

    def secant(self, call, x, r, saved):
        return x * x + x * r + r * r


RULES = {torch.ops.dlgenome_tests.cube.default: Cube()}
'''


@pytest.fixture(scope="module")
def cube() -> Iterator[Any]:
    """An operation of one's own, known to torch but not to dlgenome."""
    make: Any = torch.library.Library  # torch leaves it untyped
    library = make("dlgenome_tests", "DEF")
    library.define("cube(Tensor x) -> Tensor")
    library.impl("cube", lambda x: x**3, "CompositeExplicitAutograd")
    library.impl("cube", torch.empty_like, "Meta")
    yield torch.ops.dlgenome_tests.cube
    library._destroy()


class Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 3, 5)

    def forward(self, x: Tensor) -> Any:
        return torch.ops.dlgenome_tests.cube(self.conv(x)).sum((1, 2))[:, None]


def test_an_operation_without_a_rule_is_refused_by_name(cube: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"dlgenome_tests\.cube.*--plugin"):
        lower(capture(Cubed(), (4, 12))).require_supported()


def test_a_rule_from_a_file_explains_it_exactly(cube: Any, tmp_path: Path) -> None:
    (tmp_path / "cube.py").write_text(PLUGIN)
    rules = rules_with_plugins([tmp_path / "cube.py"])
    assert len(rules) == len(RULES) + 1
    torch.manual_seed(0)
    program = lower(capture(Cubed(), (4, 12), dtype=torch.float64, rules=rules), rules)
    step = StepShape(2, 3)
    rows = torch.randn(step.rows, 4, 12, dtype=torch.float64)
    result = Engine(program, step).run(rows, 1)
    gap = rows[:2].repeat_interleave(3, 0) - rows[2:]
    total = (result.multipliers[0] * gap).sum((1, 2)).view(2, 3)
    delta = result.predictions - result.reference_predictions[..., 0]
    assert float((total - delta).abs().max()) < 1e-12 * float(delta.abs().max())


class Point:
    """An entry point of an installed package."""

    value = "somebody.rules:RULES"
    name = "somebody"

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def installed(monkeypatch: pytest.MonkeyPatch, loaded: Any) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point(loaded)])


def test_installed_packages_may_bring_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = torch.ops.aten.relu.default
    installed(monkeypatch, {relu: RULES[torch.ops.aten.tanh.default]})
    assert rules_with_plugins()[relu] is RULES[torch.ops.aten.tanh.default]
    assert RULES[relu] is not RULES[torch.ops.aten.tanh.default]


def test_an_entry_point_may_name_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = torch.ops.aten.relu.default
    module = ModuleType("mylab_rules")
    module.RULES = {relu: RULES[torch.ops.aten.tanh.default]}  # type: ignore[attr-defined]
    installed(monkeypatch, module)
    assert rules_with_plugins()[relu] is RULES[torch.ops.aten.tanh.default]


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        (ModuleType("mylab_rules"), "entry point somebody: RULES must map operations"),
        ({torch.ops.aten.relu.default: "rescale"}, "entry point somebody: RULES must map operations"),
        (ImportError("no module named x"), "somebody.rules:RULES stops with ImportError"),
    ],
    ids=["without rules", "not a rule", "broken"],
)
def test_broken_packages_are_named(loaded: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, loaded)
    with pytest.raises(UsageError, match=words):
        rules_with_plugins()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such Python file"),
        ("1 / 0", "stops with ZeroDivisionError"),
        ("rules = {}", "defines no RULES"),
        ("RULES = [1]", "must map operations to instances of Rule"),
    ],
)
def test_bad_files_say_what_is_wrong(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=words):
        rules_with_plugins([file])


class Straight(Elementwise):
    """The multiplier as it is, handed back as an :class:`Elementwise`, whose results may be added to."""

    title = "straight through"

    def backward(self, call: Any, multiplier: Any, saved: Any) -> Any:
        return [multiplier]


class Shared(nn.Module):
    """A multiplier that three values share, one of which is read by a convolution, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(channels, 5, 3, padding=1) for channels in (4, 4, 5))
        self.head = nn.Linear(60, 1)
        self.activation: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> Any:
        first, second, third = self.convs
        other, value = first(x), second(x)
        total = self.activation(value) + other + third(value)
        return self.head(total.flatten(1))


def test_a_multiplier_that_a_rule_hands_on_is_not_added_to() -> None:
    torch.manual_seed(0)
    network = Shared().double()
    rules = {**RULES, torch.ops.aten.tanh.default: Straight()}
    program = lower(capture(network, (4, 12), dtype=torch.float64, rules=rules), rules)
    rows = torch.randn(8, 4, 12, dtype=torch.float64)
    (found,) = Engine(program, StepShape(2, 3)).run(rows, 1).multipliers
    network.activation = nn.Identity()
    point = rows[2:].requires_grad_()
    (slope,) = torch.autograd.grad(network(point).sum(), point)
    torch.testing.assert_close(found, slope, rtol=0, atol=1e-14)
