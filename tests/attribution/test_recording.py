"""Steps that are recorded once and replayed give what steps that are run give.

Where there is no GPU a stand-in replays: it runs the work again and puts what comes out where the first run
put its own, as a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import Forwarded
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.recording import CudaRecorder, Recorded

pytestmark = pytest.mark.usefixtures("one_thread")  # one lane, which alone records
LENGTH = 60
Result = TypeVar("Result")


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Forwarded):
        return [result.rows, result.output, *(leaf for leaf in tree_leaves(result.kept))]
    if isinstance(result, list):
        return [tensor for one in result for tensor in tensors(one)]
    if isinstance(result, Tensor):
        return [result]
    found = (getattr(result, field.name) for field in fields(result))
    return [value for value in found if value is not None]


class StandIn:
    """Replays on the processor; counts what it does."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(
        self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
    ) -> tuple[Result, Callable[[], None]]:
        self.recorded += 1
        result = function(*inputs)

        def replay() -> None:
            self.replayed += 1
            for own, made in zip(tensors(result), tensors(function(*inputs)), strict=True):
                own.copy_(made)

        return result, replay


class Refusing:
    """As a GPU refuses a step that reads a number on its way."""

    def __init__(self, only: int | None = None) -> None:
        self._only, self._asked, self._inside = only, 0, StandIn()

    def record(
        self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
    ) -> tuple[Result, Callable[[], None]]:
        self._asked += 1
        if self._only is None or self._asked == self._only:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        return self._inside.record(function, inputs)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(4, 16, 5), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(2),
    ).eval()  # fmt: skip
    network(torch.zeros(2, 4, LENGTH))
    return lower(capture(network, (4, LENGTH)))


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        for field in fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch_size", [12, 4, 5])
def test_replayed_steps_give_the_same_bits(program: Program, random_codes: Any, batch_size: int) -> None:
    """12: two sequences a step; 4: two steps a sequence, the second of two references; 5: not a full step."""
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 6, LENGTH)
    options: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": batch_size}
    expected = DeepLift(program, **options).explain(codes, references)
    recorder = StandIn()
    explaining = DeepLift(program, **options, recorder=recorder)
    for _ in range(2):
        assert_same(explaining.explain(codes, references), expected)
    other = explaining.explain(codes[::-1].copy(), references[::-1].copy())
    np.testing.assert_array_equal(other[0].hypothetical[::-1], expected[0].hypothetical)
    assert recorder.recorded in (2, 3)
    assert recorder.replayed > 9


@pytest.mark.parametrize("refusing", [None, 1, 2])
def test_what_cannot_be_recorded_runs_as_it_is(
    program: Program, random_codes: Any, refusing: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 6, LENGTH)
    options: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": 12}
    expected = DeepLift(program, **options).explain(codes, references)
    explaining = DeepLift(program, **options, recorder=Refusing(refusing))
    for _ in range(2):
        assert_same(explaining.explain(codes, references), expected)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warned
    assert len(warned) == len(set(warned))
    assert warned[0].endswith("runs unrecorded, for operation not permitted when stream is capturing.")


def test_memory_that_runs_out_is_no_refusal() -> None:
    class Full:
        def record(
            self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
        ) -> tuple[Result, Callable[[], None]]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Recorded(lambda value: value, Full(), "a step")(torch.zeros(1))


def test_single_references_are_not_recorded(program: Program, random_codes: Any) -> None:
    recorder = StandIn()
    options: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": 6, "keep_pairs": True}
    found = DeepLift(program, **options, recorder=recorder).explain(
        random_codes(1, 1, LENGTH), random_codes(2, 1, 6, LENGTH)
    )
    assert found[0].pair_projected is not None
    assert recorder.recorded == 0


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [12, 4])
def test_cuda_graphs_give_the_bits_of_cuda_and_nearly_those_of_the_processor(
    program: Program, random_codes: Any, batch_size: int
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, 6, LENGTH)
    options: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": batch_size}
    processor = DeepLift(program, **options).explain(codes, references)
    device = torch.device("cuda", 0)
    torch.backends.cudnn.allow_tf32 = False
    moved = _on(program, device)
    expected = DeepLift(moved, **options, device=device).explain(codes, references)
    explaining = DeepLift(moved, **options, device=device, recorder=CudaRecorder(device))
    for _ in range(3):
        assert_same(explaining.explain(codes, references), expected)
    for one, other in zip(expected, processor, strict=True):
        scale = np.abs(other.hypothetical).max()
        assert np.abs(one.hypothetical - other.hypothetical).max() < 1e-4 * scale


def _on(program: Program, device: torch.device) -> Program:
    return replace(program, parameters={name: p.to(device) for name, p in program.parameters.items()})


def test_lanes_do_not_record_one_another(program: Program, random_codes: Any) -> None:
    torch.set_num_threads(2)
    recorder = StandIn()
    options: dict[str, Any] = {"targets": 2, "n_references": 6, "batch_size": 6}
    codes, references = random_codes(1, 4, LENGTH), random_codes(2, 4, 6, LENGTH)
    expected = DeepLift(program, **options).explain(codes, references)
    assert_same(DeepLift(program, **options, recorder=recorder).explain(codes, references), expected)
    assert recorder.recorded == 0
