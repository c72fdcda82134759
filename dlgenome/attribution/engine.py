"""Runs a program: one forward pass over sequences and references, one backward pass over the pairs.

DeepLIFT as reverse accumulation of multipliers (arXiv 1704.02685, section 3.2, the chain rule): each rule
turns the multiplier of an operation's output into those of its inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.constants import evaluate_constants, require_equal_rows
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.precise import precise_steps, widened
from dlgenome.attribution.readout import Readout, numbers
from dlgenome.attribution.rules.base import Backward, Call, fill
from dlgenome.attribution.steady import steady_bits


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


class Engine:
    """A program bound to one step shape; constants are evaluated once."""

    def __init__(self, program: Program, step: StepShape, *, precise: bool = True) -> None:
        """Evaluate the constants; ``precise`` computes the last linear operations in float64."""
        program.require_supported()
        self.program, self.step = program, step
        self._forward_values = evaluate_constants(program, step.rows)
        require_equal_rows(program, self._forward_values, step.rows)
        self._pair_values = evaluate_constants(program, step.pairs)
        self._keep = _kept_names(program)
        self._last_use = _last_uses(program)
        self._precise = precise_steps(program) if precise else frozenset()
        self._pair_arguments = {
            s.call.name: self._arguments(s.call, self._pair_values) for s in program.steps
        }
        self._rules = {
            s.call.name: s.rule.bound(s.call, self._pair_arguments[s.call.name][0]) for s in program.steps
        }

    @torch.no_grad()
    def run(self, rows: Tensor, targets: int | Sequence[Readout]) -> PairMultipliers:
        """Multipliers of every target for ``rows`` = sequences, then references, (rows, bases, length).

        ``targets`` are readouts of the output, or how many numbers it has.
        """
        readouts = numbers(targets) if isinstance(targets, int) else targets
        multipliers = []
        with steady_bits(rows.device):
            values, kept = self._forward(rows)
            output = values[self.program.output]
            weights = [readout.weights(output, self.step) for readout in readouts]
            for readout, weight in zip(readouts, weights, strict=True):
                multipliers.append(self._backward(self._seed(readout, weight, output), kept, rows))
        return self._result(multipliers, output, readouts, weights)

    def _result(
        self,
        multipliers: list[Tensor],
        output: Tensor,
        readouts: Sequence[Readout],
        weights: Sequence[Tensor],
    ) -> PairMultipliers:
        predicted = [
            readout.predictions(output, weight, self.step)
            for readout, weight in zip(readouts, weights, strict=True)
        ]
        x, r = (torch.stack([pair[side] for pair in predicted], -1) for side in (0, 1))
        return PairMultipliers(multipliers, x, r)

    def _seed(self, readout: Readout, weights: Tensor, output: Tensor) -> Tensor:
        """Multiplier of the whole output: the weights in their columns."""
        seed = output.new_zeros(self.step.pairs, output.shape[1])
        seed[:, readout.start : readout.stop] = weights.reshape(self.step.pairs, -1)
        return seed

    def _arguments(self, call: Call, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with what is known filled in, as wide as the operation is computed."""
        filled = fill(call.args, values), fill(call.kwargs, values)
        return widened(filled) if call.name in self._precise else filled

    def _forward(self, rows: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        values: dict[str, Any] = {**self._forward_values, self.program.sequences: rows}
        kept = {self.program.sequences: rows} if self.program.sequences in self._keep else {}
        for index, step in enumerate(self.program.steps):
            call = step.call
            rule = self._rules[call.name]
            values[call.name] = rule.forward(call, *self._arguments(call, values))
            if call.name in self._keep:
                kept[call.name] = values[call.name]
            for name in self._last_use.get(index, ()):
                del values[name]
        return values, kept

    def _backward(self, seed: Tensor, kept: dict[str, Any], rows: Tensor) -> Tensor:
        waiting: dict[str, Any] = {self.program.output: seed}
        for step in reversed(self.program.steps):
            multiplier = waiting.pop(step.call.name, None)
            if multiplier is not None:
                if step.call.name not in self._precise:
                    multiplier = _narrowed(multiplier, rows.dtype)
                self._send_back(step, multiplier, kept, waiting)
        result: Tensor | None = waiting.get(self.program.sequences)
        if result is None:
            return rows.new_zeros(self.step.pairs, *rows.shape[1:])
        return result.to(rows.dtype)

    def _send_back(self, step: Step, multiplier: Any, kept: dict[str, Any], waiting: dict[str, Any]) -> None:
        call = step.call
        if call.op is operator.getitem:
            several = call.args[0].name
            parts = waiting.setdefault(several, [None] * _outputs(self.program, several, call.args[1]))
            parts[call.args[1]] = _sum(parts[call.args[1]], multiplier)
            return
        names = {"inputs": [ref.name for ref in call.inputs], "outputs": [call.name], "nothing": []}[
            step.rule.keeps
        ]
        args, kwargs = self._pair_arguments[call.name]
        saved = Backward(self.step, tuple(kept[name] for name in names), args, kwargs)
        parts = self._rules[call.name].backward(call, multiplier, saved)
        for ref, part in zip(call.inputs, parts, strict=True):
            if part is not None:
                waiting[ref.name] = _sum(waiting.get(ref.name), part, step.rule.fresh)


def _narrowed(multiplier: Any, dtype: torch.dtype) -> Any:
    """The multiplier as wide as the rows are; those of several outputs never come from a precise step.

    One that was spread over positions is narrowed before it is spread, and takes no more memory than before.
    """
    if not isinstance(multiplier, Tensor) or multiplier.dtype is dtype:
        return multiplier
    once = [slice(0, 1) if stride == 0 else slice(None) for stride in multiplier.stride()]
    return multiplier[tuple(once)].to(dtype).expand_as(multiplier)


def _outputs(program: Program, name: str, picked: int) -> int:
    """How many outputs an operation has, as far as they are known: the picked one at least."""
    info = program.infos[name]
    return max(len(info), picked + 1) if isinstance(info, tuple) else 1


def _sum(first: Tensor | None, second: Tensor, fresh: bool = False) -> Tensor:
    """Sum of two multipliers; written into the second where nothing else holds it."""
    if first is None:
        return second
    return second.add_(first) if fresh else first + second


def _kept_names(program: Program) -> set[str]:
    names: set[str] = set()
    for step in program.steps:
        if step.rule.keeps == "inputs":
            names.update(ref.name for ref in step.call.inputs)
        elif step.rule.keeps == "outputs":
            names.add(step.call.name)
    return names


def _last_uses(program: Program) -> dict[int, list[str]]:
    """For each step the values that nothing after it reads."""
    last: dict[str, int] = {program.sequences: 0}
    for index, step in enumerate(program.steps):
        last.update({ref.name: index for ref in step.call.inputs})
        last.setdefault(step.call.name, index)
    last.pop(program.output, None)
    uses: dict[int, list[str]] = {}
    for name, index in last.items():
        uses.setdefault(index, []).append(name)
    return uses
