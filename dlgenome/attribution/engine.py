"""Runs a program: a forward pass over sequences, one over references, one backward pass over the pairs.

The forward pass of the sequences serves every step of their references.

DeepLIFT as reverse accumulation of multipliers (arXiv 1704.02685, section 3.2, the chain rule): each rule
turns the multiplier of an operation's output into those of its inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.constants import evaluate_constants
from dlgenome.attribution.heads import heads
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.memory import plan_memory
from dlgenome.attribution.precise import precise_steps, widened
from dlgenome.attribution.readout import Readout, numbers
from dlgenome.attribution.rules.base import Call, Kept, Rule, fill
from dlgenome.attribution.steady import steady_bits
from dlgenome.attribution.waiting import Waiting


@dataclass(frozen=True)
class PairMultipliers:
    """Result of one step."""

    multipliers: list[Tensor]
    """One (pairs, bases, length) tensor a target."""
    pair_predictions: Tensor
    """The explained number of the sequence in each pair, (sequences, references, targets)."""
    reference_predictions: Tensor
    """(sequences, references, targets)."""

    @property
    def predictions(self) -> Tensor:
        """(sequences, targets): those of the first pairs; weights of pairs make them differ between pairs."""
        return self.pair_predictions[:, 0]


@dataclass(frozen=True)
class Forwarded:
    """A forward pass over the sequences or the references of a step."""

    rows: Tensor
    """(rows, bases, length)."""
    output: Tensor
    """(rows, columns)."""
    kept: dict[str, Any]
    """What the way back needs, by name."""


class Engine:
    """A program bound to one step shape; constants are evaluated once."""

    def __init__(
        self, program: Program, step: StepShape, *, precise: bool = True, keep_all: bool = False
    ) -> None:
        """Evaluate the constants; ``precise`` computes the last linear operations in float64.

        ``keep_all`` keeps every value of the forward passes for the way back.
        """
        program.require_supported()
        self.program, self.step = program, step
        self._sequence_values = evaluate_constants(program, step.sequences)
        self._pair_values = evaluate_constants(program, step.pairs)
        self._memory = plan_memory(program, keep_all=keep_all)
        self._precise = precise_steps(program) if precise else frozenset()
        self._pair_arguments = {
            s.call.name: self._arguments(s.call, self._pair_values) for s in program.steps
        }
        self._rules = {
            s.call.name: s.rule.bound(s.call, self._pair_arguments[s.call.name][0]) for s in program.steps
        }
        self._heads = heads(program)

    def run(self, rows: Tensor, targets: int | Sequence[Readout]) -> PairMultipliers:
        """Multipliers of every target for ``rows`` = sequences, then references, (rows, bases, length).

        ``targets`` are readouts of the output, or how many numbers it has.
        """
        sequences = self.forward_sequences(rows[: self.step.sequences])
        return self.run_pairs(sequences, rows[self.step.sequences :], targets)

    @torch.no_grad()
    def forward_sequences(self, rows: Tensor) -> Forwarded:
        """The forward pass of (sequences, bases, length), for any number of :meth:`run_pairs`."""
        return self._forward(rows, self._sequence_values)

    @torch.no_grad()
    def run_pairs(
        self, sequences: Forwarded, references: Tensor, targets: int | Sequence[Readout]
    ) -> PairMultipliers:
        """Multipliers of every target for references (pairs, bases, length), sequence by sequence."""
        return self._run(sequences, self._forward(references, self._pair_values), targets)

    def _run(
        self, sequences: Forwarded, references: Forwarded, targets: int | Sequence[Readout]
    ) -> PairMultipliers:
        readouts = numbers(targets) if isinstance(targets, int) else targets
        outputs = sequences.output, references.output
        kept = Kept(sequences.kept, references.kept)
        weights = [readout.weights(*outputs, self.step) for readout in readouts]
        seeds = [self._seeds(*pair, references.output) for pair in zip(readouts, weights, strict=True)]
        # Points that are their own references are read as both.
        last = None if sequences is references else seeds[-1]
        multipliers = [self._backward(seed, kept, references.rows, spare=seed is last) for seed in seeds]
        return self._result(multipliers, outputs, readouts, weights)

    @staticmethod
    def _steadily(rule: Rule, like: Tensor) -> AbstractContextManager[object]:
        """For single operations: every one inside pays for being looked at."""
        return nullcontext() if rule.steady else steady_bits(like.device)

    def _result(
        self,
        multipliers: list[Tensor],
        outputs: tuple[Tensor, Tensor],
        readouts: Sequence[Readout],
        weights: Sequence[Tensor],
    ) -> PairMultipliers:
        predicted = [
            readout.predictions(*outputs, weight, self.step)
            for readout, weight in zip(readouts, weights, strict=True)
        ]
        x, r = (torch.stack([pair[side] for pair in predicted], -1) for side in (0, 1))
        return PairMultipliers(multipliers, x, r)

    def _seeds(self, readout: Readout, weights: Tensor, output: Tensor) -> dict[str, Tensor]:
        """Multipliers of the values that the output is made of, of those that the readout looks at."""
        seed = output.new_zeros(self.step.pairs, output.shape[1])
        seed[:, readout.start : readout.stop] = weights.reshape(self.step.pairs, -1)
        parts = self._heads or ((self.program.output, 0, output.shape[1]),)
        return {
            name: seed[:, start:stop]
            for name, start, stop in parts
            if start < readout.stop and readout.start < stop
        }

    def _arguments(self, call: Call, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with what is known filled in, as wide as the operation is computed."""
        filled = fill(call.args, values), fill(call.kwargs, values)
        return widened(filled) if call.name in self._precise else filled

    def _forward(self, rows: Tensor, constants: Mapping[str, Any]) -> Forwarded:
        plan = self._memory
        values: dict[str, Any] = {**constants, self.program.sequences: rows}
        kept = {self.program.sequences: rows} if self.program.sequences in plan.kept else {}
        for index, step in enumerate(self.program.steps):
            call, rule = step.call, self._rules[step.call.name]
            run = rule.forward_over if call.name in plan.over else rule.forward
            with self._steadily(rule, rows):
                values[call.name] = run(call, *self._arguments(call, values))
            if call.name in plan.kept:
                kept[call.name] = values[call.name]
            for name in plan.done.get(index, ()):
                del values[name]
        return Forwarded(rows, values[self.program.output], kept)

    def _backward(self, seeds: dict[str, Tensor], kept: Kept, rows: Tensor, *, spare: bool) -> Tensor:
        """Multiplier of the input; ``spare`` is for the last target, after which nothing kept is needed."""
        waiting = Waiting(seeds)
        for step in reversed(self.program.steps):
            multiplier, own = waiting.take(step.call.name)
            if multiplier is not None:
                narrow = multiplier
                if step.call.name not in self._precise:
                    narrow = _narrowed(multiplier, rows.dtype)
                with self._steadily(self._rules[step.call.name], rows):
                    self._send_back(step, narrow, own and narrow is multiplier, kept, waiting, spare)
        result, _ = waiting.take(self.program.sequences)
        if result is None:
            return rows.new_zeros(self.step.pairs, *rows.shape[1:])
        found: Tensor = result.to(rows.dtype)
        return found

    def _send_back(
        self, step: Step, multiplier: Any, own: bool, kept: Kept, waiting: Waiting, spare: bool
    ) -> None:
        """Add the multipliers of the inputs to what waits; ``own`` where nothing else holds the given one."""
        call = step.call
        if call.op is operator.getitem:
            several, place = call.args[0].name, call.args[1]
            waiting.add_to(several, place, _outputs(self.program, several, place), multiplier)
            return
        rule = self._rules[call.name]
        over = spare and call.name in self._memory.spare
        saved = kept.saved(self.step, step.rule.kept(call), *self._pair_arguments[call.name], over)
        so_far = waiting.may_grow(call.inputs[0].name) if len(call.inputs) == 1 else None
        if so_far is not None and rule.backward_onto(call, multiplier, saved, so_far):
            return
        parts = rule.backward(call, multiplier, saved)
        passed_on = own and sum(part is multiplier for part in parts) == 1
        for ref, part in zip(call.inputs, parts, strict=True):
            if part is not None:
                waiting.add(ref.name, part, passed_on if part is multiplier else step.rule.fresh)


def _narrowed(multiplier: Any, dtype: torch.dtype) -> Any:
    """The multiplier as wide as the rows are; those of several outputs never come from a precise step.

    One that was spread over positions is narrowed before it is spread, and takes no more memory than before.
    """
    if not isinstance(multiplier, Tensor) or multiplier.dtype.itemsize <= dtype.itemsize:
        return multiplier
    once = [slice(0, 1) if stride == 0 else slice(None) for stride in multiplier.stride()]
    return multiplier[tuple(once)].to(dtype).expand_as(multiplier)


def _outputs(program: Program, name: str, picked: int) -> int:
    """How many outputs an operation has, as far as they are known: the picked one at least."""
    info = program.infos[name]
    return max(len(info), picked + 1) if isinstance(info, tuple) else 1
