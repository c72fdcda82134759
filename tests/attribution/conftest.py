"""A bench on which one rule is run by hand, and shortcuts from a module to its scores."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import BatchAxis, StepShape, ValueInfo, unfold
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Backward, Call, Ref, Rule, Source, fill
from dlgenome.attribution.tiles.processor import has_tiles
from dlgenome.attribution.vectors.processor import has_narrow_vectors, has_vectors

Floats = NDArray[np.float64]
Arguments = Callable[[list[Ref], int], tuple[Any, ...]]
FIRST = BatchAxis()


def single_row(value: Tensor, batch: BatchAxis, row: int) -> Floats:
    """One row of a value, as the operation would see it in a batch of one."""
    size = value.shape[batch.axis] // (batch.outer * batch.inner)
    places = [
        (outer * size + row) * batch.inner + inner
        for outer, inner in itertools.product(range(batch.outer), range(batch.inner))
    ]
    return np.take(value.detach().cpu().double().numpy(), places, axis=batch.axis)


def rows_of(value: Tensor, batch: BatchAxis, rows: slice) -> Tensor:
    """Some rows of a value, the batch folded into its axis as before."""
    size = value.shape[batch.axis] // (batch.outer * batch.inner)
    unfolded = unfold(value, batch, size)
    chosen = unfolded[(slice(None),) * (batch.axis + 1) + (rows,)]
    return chosen.flatten(batch.axis, batch.axis + 2)


@dataclass(frozen=True)
class Pair:
    """One sequence-reference pair of a bench run, each value as in a batch of one."""

    sequence: list[Floats]
    reference: list[Floats]
    output_sequence: list[Floats]
    output_reference: list[Floats]
    multiplier: list[Floats | None]
    result: list[Floats]


@dataclass(frozen=True)
class Run:
    """What a rule made of some rows."""

    pairs: list[Pair]
    rows: list[tuple[list[Floats], list[Floats]]]
    """Inputs and outputs of every row of the forward pass."""


class Bench:
    """Runs the rule of one operation on rows of made-up values, two sequences with three references each."""

    def __init__(self) -> None:
        self.step = StepShape(2, 3)
        self.generator = np.random.default_rng(20)

    def draw(self, *dims: int, batch: BatchAxis = FIRST, dtype: torch.dtype = torch.float64) -> Tensor:
        """Normal numbers for all rows of a value of shape ``dims``; a third of them equal in all rows."""
        info = ValueInfo(dims, batch)
        shape = info.shape(self.step.rows)
        values = self.generator.normal(size=shape)
        shared = self.generator.random(dims) < 1 / 3
        unfolded = values.reshape(
            *shape[: batch.axis], batch.outer, self.step.rows, batch.inner, *shape[batch.axis + 1 :]
        )
        mask = shared.reshape(*dims[: batch.axis], batch.outer, 1, batch.inner, *dims[batch.axis + 1 :])
        first = np.take(unfolded, [0], axis=batch.axis + 1)
        return torch.from_numpy(np.where(mask, first, unfolded).reshape(shape)).to(dtype)

    def run(
        self,
        operation: Any,
        inputs: Sequence[Tensor],
        arguments: Arguments,
        *,
        batches: Sequence[BatchAxis] | None = None,
        output_batch: BatchAxis = FIRST,
        keywords: dict[str, Any] | None = None,
        unused_outputs: tuple[int, ...] = (),
        rule: Rule | None = None,
    ) -> Run:
        """Forward and backward of ``operation``; ``arguments(refs, rows)`` are its arguments."""
        rule = rule or RULES[operation]
        places = list(batches or [FIRST] * len(inputs))
        refs = [Ref(f"input{index}") for index in range(len(inputs))]
        infos = tuple(self._info(value, place) for value, place in zip(inputs, places, strict=True))
        values = {ref.name: value for ref, value in zip(refs, inputs, strict=True)}
        rows, pairs = self.step.rows, self.step.pairs
        plain = fill(arguments(refs, rows), values)
        outputs = operation(*plain, **(keywords or {}))
        several = isinstance(outputs, (tuple, list))
        differentiable = [o for o in (outputs if several else [outputs]) if o is not None and o.numel()]
        out_infos = tuple(self._info(value, output_batch) for value in differentiable)
        call = Call(
            "output", operation, arguments(refs, rows), keywords or {}, tuple(refs), infos,
            out_infos if several else out_infos[0], Source("", ""),
        )  # fmt: skip
        assert rule.refusal(call) is None, rule.refusal(call)
        got = rule.forward(call, plain, keywords or {})
        parts = [o for o in (got if several else [got]) if o is not None and o.numel()]
        multipliers: list[Tensor | None] = [
            None
            if index in unused_outputs
            else torch.from_numpy(self.generator.normal(size=info.shape(pairs))).to(inputs[0].dtype)
            for index, info in enumerate(out_infos)
        ]
        kept = {"inputs": tuple(inputs), "outputs": tuple(parts), "nothing": ()}[rule.keeps]
        kept_places = places if rule.keeps == "inputs" else [output_batch] * len(kept)
        before = [value.clone() for value in (*inputs, *parts)]
        own, others = (
            tuple(rows_of(value, place, part) for value, place in zip(kept, kept_places, strict=True))
            for part in (slice(None, self.step.sequences), slice(self.step.sequences, None))
        )
        saved = Backward(self.step, own, others, arguments(refs, pairs), keywords or {})
        back = rule.backward(call, multipliers if several else multipliers[0], saved)
        for value, same in zip((*inputs, *parts), before, strict=True):
            assert torch.equal(value, same), "a rule wrote into a kept value"
        for info, part in zip(infos, back, strict=True):
            assert part is not None
            assert tuple(part.shape) == info.shape(pairs)
        return self._collect(list(inputs), places, parts, output_batch, multipliers, list(back))

    def _info(self, value: Tensor, batch: BatchAxis) -> ValueInfo:
        size = value.shape[batch.axis] // self.step.rows
        dims = (*value.shape[: batch.axis], size, *value.shape[batch.axis + 1 :])
        assert size == batch.outer * batch.inner
        return ValueInfo(tuple(dims), batch)

    def _collect(
        self,
        inputs: list[Tensor],
        places: list[BatchAxis],
        outputs: list[Tensor],
        output_batch: BatchAxis,
        multipliers: list[Tensor | None],
        back: list[Any],
    ) -> Run:
        rows = [
            (
                [single_row(v, place, row) for v, place in zip(inputs, places, strict=True)],
                [single_row(v, output_batch, row) for v in outputs],
            )
            for row in range(self.step.rows)
        ]
        pairs = []
        for pair in range(self.step.pairs):
            sequence, reference = rows[pair // self.step.references], rows[self.step.sequences + pair]
            pairs.append(
                Pair(
                    sequence[0],
                    reference[0],
                    sequence[1],
                    reference[1],
                    [None if m is None else single_row(m, output_batch, pair) for m in multipliers],
                    [single_row(v, place, pair) for v, place in zip(back, places, strict=True)],
                )
            )
        return Run(pairs, rows)

    @staticmethod
    def check_complete(run: Run, tolerance: float = 1e-12) -> None:
        """Multipliers times input differences add up to the multiplied output difference."""
        for pair in run.pairs:
            got, scale = 0.0, 1e-300
            for m, x, r in zip(pair.result, pair.sequence, pair.reference, strict=True):
                got += float((m * (x - r)).sum())
                scale += float(np.abs(m * (x - r)).sum())
            expected = 0.0
            for out, x, r in zip(pair.multiplier, pair.output_sequence, pair.output_reference, strict=True):
                if out is not None:
                    expected += float((out * (x - r)).sum())
                    scale += float(np.abs(out * (x - r)).sum())
            assert abs(got - expected) <= tolerance * scale

    @staticmethod
    def check_linear(run: Run, definition: Callable[..., Any], tolerance: float = 1e-12) -> None:
        """Forward values equal the definition, multipliers its matrix column by column."""
        for inputs, outputs in run.rows:
            for got, expected in zip(outputs, _several(definition(*inputs)), strict=True):
                np.testing.assert_allclose(
                    got, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max())
                )
        zeros = [np.zeros_like(value) for value in run.rows[0][0]]
        origin = _several(definition(*zeros))
        for index, zero in enumerate(zeros):
            for place in np.ndindex(zero.shape):
                unit = [value.copy() for value in zeros]
                unit[index][place] = 1
                column = [c - o for c, o in zip(_several(definition(*unit)), origin, strict=True)]
                for pair in run.pairs:
                    terms = [c * m for c, m in zip(column, pair.multiplier, strict=True) if m is not None]
                    total = float(sum(term.sum() for term in terms))
                    scale = 1 + float(sum(np.abs(term).sum() for term in terms))
                    assert abs(pair.result[index][place] - total) <= tolerance * scale
        Bench.check_complete(run, tolerance)


def _several(value: Any) -> list[Floats]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Many steps of a few rows gain nothing from threads, and wait long for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def with_tiles() -> None:
    """Only on a processor that has tile registers."""
    if not has_tiles():
        pytest.skip("the processor has no tile registers")


@pytest.fixture
def with_vectors() -> None:
    """Only on a processor that computes with vectors of sixteen numbers."""
    if not has_vectors():
        pytest.skip("the processor has no vectors of sixteen numbers")


@pytest.fixture
def with_narrow_vectors() -> None:
    """Only on one that multiplies whole numbers of sixteen bits in such vectors, too."""
    if not has_narrow_vectors():
        pytest.skip("the processor has no vectors of whole numbers")


@pytest.fixture
def without_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has no tile registers; vectors it may have."""
    _deny(monkeypatch, has_tiles)


@pytest.fixture
def without_vectors(without_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has neither vectors of sixteen numbers nor tile registers."""
    _deny(monkeypatch, has_vectors)
    _deny(monkeypatch, has_narrow_vectors)


def _deny(monkeypatch: pytest.MonkeyPatch, question: Callable[[], bool]) -> None:
    """Have every room that asks it be told that it is not so."""
    name = question.__name__
    rooms = [room for where, room in sys.modules.items() if where.startswith("dlgenome.")]
    asking = [room for room in rooms if getattr(room, name, None) is question]
    for room in asking:
        if room.__name__ != question.__module__:
            monkeypatch.setattr(room, name, lambda: False)


@pytest.fixture
def only_vectors(with_vectors: None, without_tiles: None) -> None:
    """As on a processor that has vectors of sixteen numbers and no tile registers."""


WAYS = {"tiles": "with_tiles", "vectors": "only_vectors", "neither": "without_vectors"}


@pytest.fixture(params=WAYS)
def either_way(request: pytest.FixtureRequest) -> str:
    """With the tile registers of the processor, and as on one that has only its vectors, or neither."""
    request.getfixturevalue(WAYS[request.param])
    return str(request.param)


@pytest.fixture(params=["tiles", "vectors"])
def registers(request: pytest.FixtureRequest) -> str:
    """With each kind of register that towers are explained by, which this names."""
    request.getfixturevalue(WAYS[request.param])
    return str(request.param)


@pytest.fixture
def bench() -> Bench:
    """Bench for one rule."""
    return Bench()


@pytest.fixture(scope="session")
def batch_axis() -> type[BatchAxis]:
    """The type that says where the batch is."""
    return BatchAxis


@pytest.fixture
def pair_multipliers() -> Callable[..., Any]:
    """Multipliers and predictions of a module for (sequences, bases, length) and their references."""

    def run(module: nn.Module, sequences: Tensor, references: Tensor, targets: int = 1) -> Any:
        program = lower(capture(module, tuple(sequences.shape[1:]), dtype=sequences.dtype))
        step = StepShape(references.shape[0], references.shape[1])
        rows = torch.cat([sequences, references.flatten(0, 1)])
        return Engine(program, step).run(rows, targets)

    return run


@pytest.fixture
def explainer() -> Callable[..., DeepLift]:
    """DeepLift of a module for sequences of one length."""

    def make(
        module: nn.Module,
        length: int,
        *,
        n_references: int,
        batch_size: int,
        targets: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> DeepLift:
        program = lower(capture(module, (4, length), dtype=dtype))
        return DeepLift(
            program, targets=targets, n_references=n_references, batch_size=batch_size, dtype=dtype
        )

    return make


@pytest.fixture
def random_codes() -> Callable[..., NDArray[np.uint8]]:
    """Base codes of a seed."""

    def draw(seed: int, *shape: int) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 4, size=shape).astype(np.uint8)

    return draw


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights of modules made in a test are the same in every run."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Explained:
    """How far the contributions of every target are from its output difference, and what made them."""

    completeness: list[float]
    """Per target the largest |sum of contributions - output difference| over the mean |difference|."""
    forward: list[float]
    """Per target the largest difference from the module's own output, over its largest."""
    multipliers: list[Tensor]
    predictions: Tensor
    program: Program


def shared_rows(shape: Sequence[int], step: StepShape, seed: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers for all rows; a quarter of each reference equals its sequence."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(step.rows, *shape, generator=generator, dtype=torch.float64)
    own = rows[: step.sequences].repeat_interleave(step.references, 0)
    same = torch.rand(step.pairs, *shape, generator=generator) < 1 / 4
    rows[step.sequences :] = torch.where(same, own, rows[step.sequences :])
    return rows.to(dtype)


TWO_BY_THREE = StepShape(2, 3)


def explained(
    module: nn.Module,
    shape: Sequence[int],
    targets: int = 1,
    method: Method = DEEPLIFT,
    *,
    program: Program | None = None,
    rows: Tensor | None = None,
    step: StepShape = TWO_BY_THREE,
    dtype: torch.dtype = torch.float64,
) -> Explained:
    """Both errors of a (batch, targets) module; ``rows`` are sequences, then references."""
    module = copy.deepcopy(module).eval().to(dtype)
    program = program or lower(capture(module, tuple(shape), dtype=dtype))
    rows = shared_rows(shape, step, 1, dtype) if rows is None else rows.to(dtype)
    with torch.no_grad():
        expected = module(rows).double()
    result = method.engine(program, step).run(rows, targets)
    own, references = rows[: step.sequences], rows[step.sequences :]
    gap = (own.repeat_interleave(step.references, 0) - references).double()
    completeness, forward = [], []
    for target, multiplier in enumerate(result.multipliers):
        total = (multiplier.double() * gap).flatten(1).sum(1)
        made = torch.cat([result.predictions[:, target], result.reference_predictions[..., target].flatten()])
        made = made.double()
        delta = made[: step.sequences].repeat_interleave(step.references) - made[step.sequences :]
        completeness.append(float((total - delta).abs().max() / delta.abs().mean()))
        wanted = expected[:, target]
        forward.append(float((made - wanted).abs().max() / wanted.abs().max()))
    return Explained(completeness, forward, result.multipliers, result.predictions, program)


@pytest.fixture(scope="session")
def explain() -> Callable[..., Explained]:
    """:func:`explained`."""
    return explained
