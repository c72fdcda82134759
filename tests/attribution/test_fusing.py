"""Steps that are traced and compiled give what steps that are run give, or are run.

The compiler is mostly left out, for it takes seconds: a traced step runs as the graph that it would get.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from dlgenome.attribution import fusing
from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.fusing import FusingRecorder, fused
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.recording import CudaRecorder

pytestmark = pytest.mark.usefixtures("one_thread")  # one lane, which alone records
LENGTH = 60
OPTIONS: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": 12}


class StandIn:
    """Replays on the processor, and keeps what it was given."""

    def __init__(self) -> None:
        self.functions: list[Callable[..., Any]] = []

    def record(
        self, function: Callable[..., Any], inputs: tuple[Tensor, ...]
    ) -> tuple[Any, Callable[[], None]]:
        self.functions.append(function)
        result = function(*inputs)

        def replay() -> None:
            for own, made in zip(tree_flatten(result)[0], tree_flatten(function(*inputs))[0], strict=True):
                if isinstance(own, Tensor):
                    own.copy_(made)

        return result, replay


class Residual(nn.Module):
    """Convolutions, a sum, a max-pool, a norm and a smooth function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 16, 5, padding=2), nn.Conv1d(16, 16, 3, padding=1)
        self.norm, self.out = nn.LayerNorm(LENGTH // 2), nn.Linear(16 * LENGTH // 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 2)."""
        x = self.first(x).relu()
        x = x + self.second(x).relu()
        pooled = nn.functional.max_pool1d(nn.functional.gelu(x), 2)
        result: Tensor = self.out(self.norm(pooled).flatten(1))
        return result


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return lower(capture(Residual().eval(), (4, LENGTH)))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that would have been compiled."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(fusing, "compiled_graph", keep)
    return graphs


def assert_close(found: list[Any], expected: list[Any], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("batch_size", [12, 4])
def test_fused_steps_give_the_same_scores(
    program: Program, random_codes: Any, batch_size: int, uncompiled: list[torch.fx.GraphModule]
) -> None:
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 6, LENGTH)
    options = OPTIONS | {"batch_size": batch_size}
    expected = DeepLift(program, **options).explain(codes, references)
    inside = StandIn()
    explaining = DeepLift(program, **options, recorder=FusingRecorder(inside))
    for _ in range(2):
        assert_close(explaining.explain(codes, references), expected, 1e-5)
    other = explaining.explain(codes[::-1].copy(), references[::-1].copy())
    np.testing.assert_allclose(other[0].hypothetical[::-1], expected[0].hypothetical, rtol=0, atol=1e-6)
    assert len(uncompiled) >= 2
    assert {function.__name__ for function in inside.functions} == {"found"}, "none of them fell back"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler needs a C++ compiler")
def test_compiled_steps_give_the_same_scores(random_codes: Any) -> None:
    network = nn.Sequential(nn.Conv1d(4, 8, 5), nn.Softplus(), nn.Flatten(), nn.Linear(8 * (LENGTH - 4), 2))
    program = lower(capture(network.eval(), (4, LENGTH)))
    codes, references = random_codes(1, 4, LENGTH), random_codes(2, 4, 6, LENGTH)
    options: dict[str, Any] = OPTIONS | {"dtype": torch.float64}
    wide = replace(program, parameters={name: p.double() for name, p in program.parameters.items()})
    expected = DeepLift(wide, **options).explain(codes, references)
    inside = StandIn()
    explaining = DeepLift(wide, **options, recorder=FusingRecorder(inside))
    for _ in range(2):
        assert_close(explaining.explain(codes, references), expected, 1e-12)
    assert {function.__name__ for function in inside.functions} == {"found"}


def test_rounding_is_that_of_the_lowest_precision_of_a_step() -> None:
    def function(value: Tensor) -> list[Tensor]:
        return [value * 3, value.double().sum(1)]

    def rounded(off: float) -> Callable[[torch.fx.GraphModule], Callable[..., Any]]:
        return lambda graph: lambda *given: [made * (1 + off) for made in graph(*given)]

    inputs = (torch.arange(12.0).view(3, 4),)
    assert fused(function, inputs, rounded(1e-6)) is not function
    assert fused(function, inputs, rounded(1e-2)) is function


def test_what_looks_at_numbers_on_its_way_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def function(value: Tensor) -> Tensor:
        return value * 2 if bool((value > 0).any()) else value

    assert fused(function, (torch.ones(4),)) is function
    (said,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("--compile: a step runs unfused, for ")


def test_what_was_traced_wrongly_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def function(value: Tensor) -> Tensor:
        return torch.from_numpy(value.numpy() * 2)  # torch sees a constant

    assert fused(function, (torch.arange(4.0),), lambda graph: graph) is function
    assert caplog.messages == ["--compile: a step runs unfused, for compiled it gives other numbers."]


def test_a_compiler_that_fails_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    def failing(graph: torch.fx.GraphModule) -> Callable[..., Any]:
        raise FileNotFoundError("no C++ compiler\nlook for one")

    def function(value: Tensor) -> Tensor:
        return value + 1

    assert fused(function, (torch.ones(2),), failing) is function
    assert caplog.messages == ["--compile: a step runs unfused, for no C++ compiler."]


def test_memory_that_runs_out_is_no_failure_of_the_compiler() -> None:
    def failing(graph: torch.fx.GraphModule) -> Callable[..., Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        fused(lambda value: value + 1, (torch.ones(2),), failing)


@pytest.mark.gpu
def test_fused_cuda_graphs_give_nearly_the_scores_of_the_device(
    program: Program, random_codes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    device = torch.device("cuda", 0)
    torch.backends.cudnn.allow_tf32 = False
    moved = replace(program, parameters={name: p.to(device) for name, p in program.parameters.items()})
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 6, LENGTH)
    expected = DeepLift(moved, **OPTIONS, device=device).explain(codes, references)
    recorder = FusingRecorder(CudaRecorder(device))
    explaining = DeepLift(moved, **OPTIONS, device=device, recorder=recorder)
    with caplog.at_level("WARNING"):
        for _ in range(3):
            assert_close(explaining.explain(codes, references), expected, 1e-5)
    assert not caplog.messages, "both halves are fused and recorded"
