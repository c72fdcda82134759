"""A model becomes a graph: by export, by tracing where that gives up, or not at all and with the reason."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.torchscript import NOTE
from dlgenome.errors import UnsupportedModelError

SHAPE = (4, 24)


class Net(nn.Module):
    """Its sequences may have any length, which capture must not leave open."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 6, 5), nn.BatchNorm1d(6)
        self.head = nn.Linear(12, 1)
        self.norm.running_mean = torch.randn(6)

    def forward(self, x: Tensor) -> Tensor:
        values = F.gelu(self.norm(self.conv(x)))
        pooled = torch.stack([values.mean(2), values.amax(2)], 1)
        out: Tensor = self.head(pooled.view(pooled.size(0), -1))
        return out


class Reversed(nn.Module):
    """Python around a part of another kind."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Any:
        return self.part(x.flip(1, 2))


@pytest.fixture
def net() -> nn.Module:
    return Net().eval().double()


@pytest.fixture
def script() -> Iterator[None]:
    """torch warns that TorchScript grows old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def traced(net: nn.Module) -> nn.Module:
    made: nn.Module = torch.jit.trace(net, torch.zeros(2, *SHAPE, dtype=torch.float64))  # type: ignore[no-untyped-call]
    return made


TORCHSCRIPT: dict[str, Callable[[nn.Module], Any]] = {
    "traced": traced,
    "scripted": torch.jit.script,
    "scripted and frozen": lambda net: torch.jit.freeze(torch.jit.script(net)),
}


@pytest.mark.parametrize("kind", TORCHSCRIPT)
def test_torchscript_is_converted_with_a_note_and_equal_scores(
    kind: str, net: nn.Module, script: None, explain: Callable[..., Any]
) -> None:
    program = lower(capture(Reversed(TORCHSCRIPT[kind](net)), SHAPE, dtype=torch.float64))
    assert program.notes == (NOTE,)
    assert not program.refusals
    own, other = explain(Reversed(net), SHAPE), explain(Reversed(net), SHAPE, program=program)
    assert own.program.notes == ()
    lines = {str(step.call.op): step.call.source.line for step in program.steps}
    assert lines["aten.gelu.default"] == ""
    assert "test_capture.py, line" in lines["aten.flip.default"]
    torch.testing.assert_close(other.multipliers[0], own.multipliers[0], rtol=0, atol=1e-14)


def test_what_export_gives_up_on_is_traced_with_a_note_and_equal_scores(
    net: nn.Module, explain: Callable[..., Any]
) -> None:
    program = lower(capture(nn.DataParallel(net), SHAPE, dtype=torch.float64))
    assert "it was traced instead (experimental)" in program.notes[0]
    own, other = explain(net, SHAPE), explain(net, SHAPE, program=program)
    torch.testing.assert_close(other.multipliers[0], own.multipliers[0], rtol=0, atol=1e-14)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            x = x * 2
        return x.sum((1, 2))[:, None]


class Looping(nn.Module):
    """A loop whose number of turns is known."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 3

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.turns):
            x = torch.relu(x) - 0.1
        return x.sum((1, 2))[:, None]


class Reshaping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(3, -1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching(), r"cond in the model's forward: .*a branch on the sequence"),
        (Reshaping(), "fixes the batch size"),
    ],
    ids=["a branch", "a batch size"],
)
def test_tracing_does_not_hide_branches_or_a_fixed_batch(module: nn.Module, words: str, script: None) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        lower(capture(torch.jit.script(module), SHAPE)).require_supported()


def test_a_loop_in_torchscript_is_unrolled(script: None, explain: Callable[..., Any]) -> None:
    program = lower(capture(torch.jit.script(Looping()), SHAPE, dtype=torch.float64))
    assert explain(Looping(), SHAPE, program=program).completeness[0] < 1e-12


class Numpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().sum((1, 2)))[:, None]


class RowByRow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.sum() for row in x])[:, None]


class Kronecker(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.kron(x, torch.ones(1, 2, 1)).sum((1, 2))[:, None]


class TakenAlong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[2] - 1, -1, -1).expand(1, 4, -1)
        return torch.take_along_dim(x, places, 2).sum((1, 2))[:, None]


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum((1, 2))[:, None] * max(x.amax().item(), 1.0)


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such layer")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Numpy(), r"test_capture.py, line \d+\): torch.export stops with RuntimeError: .numpy\(\)"),
        (RowByRow(), r"test_capture.py, line \d+\): it fixes the batch size in torch.Tensor.unbind; use x"),
        (Kronecker(), r"test_capture.py, line \d+\): it fixes the batch size in torch.kron; use x"),
        (
            TakenAlong(),
            r"test_capture.py, line \d+\): it fixes the batch size in torch.take_along_dim; use x",
        ),
        (Counting(), r"test_capture.py, line \d+\): it makes a number of Python .* with .item\(\)"),
        (Failing(), r"test_capture.py, line \d+\): torch.export stops with ValueError: no such layer"),
    ],
    ids=[
        "numpy",
        "a loop over rows",
        "a product over the batch",
        "places without a batch",
        "a number",
        "an error of its own",
    ],
)
def test_what_cannot_be_captured_says_where_and_why(module: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        capture(module, SHAPE)


class Mapped(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.vmap(torch.tanh)(x).sum((1, 2))[:, None]


def test_vmap_is_refused_by_its_name() -> None:
    first, *_ = lower(capture(Mapped(), SHAPE)).refusals
    assert first.operation == "torch.vmap"


class Odd(nn.Module):
    """Constants made in the forward, a hook, a precision of its own, a line on the screen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 3, 3)
        self.conv.register_forward_hook(lambda module, args, out: out * 2)

    def forward(self, x: Tensor) -> Any:
        weights = torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype)[:, None]
        with torch.no_grad():
            values = self.conv(x if x.shape[0] > 1 else x * 1)
        values = torch.utils.checkpoint.checkpoint(torch.tanh, values, use_reentrant=False)
        return (values.double() * weights).to(x.dtype).sum((1, 2))[:, None]


def test_hooks_constants_checkpoints_and_casts_are_captured(explain: Callable[..., Any]) -> None:
    found = explain(Odd(), SHAPE)
    assert found.completeness[0] < 1e-12
    assert found.forward[0] < 1e-14


class ModesOfItsOwn(nn.Module):
    """Parts that run under another mode of torch, of the sequence and of the weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 3, 3)

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            values = torch.relu(self.conv(x))
        with torch.enable_grad():
            weights = self.conv.weight.sum() * 2
            values = torch.tanh(values * weights)
        return values.sum((1, 2))[:, None]


def test_parts_under_a_mode_of_torch_are_taken_apart(explain: Callable[..., Any]) -> None:
    found = explain(ModesOfItsOwn(), SHAPE)
    assert found.completeness[0] < 1e-12
    assert found.forward[0] < 1e-14


def test_capture_says_nothing_and_leaves_the_module_and_the_logger_alone(
    net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    net.train()
    before, level = (
        {key: value.clone() for key, value in net.state_dict().items()},
        logging.getLogger("torch").level,
    )
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        capture(net, SHAPE)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.getLogger("torch").level == level
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
