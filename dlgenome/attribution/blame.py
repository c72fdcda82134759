"""Where completeness is lost: the error of every single operation, for one step of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape, ValueInfo
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.readout import Readout
from dlgenome.attribution.rules.base import Kept, Source
from dlgenome.attribution.waiting import Waiting


@dataclass(frozen=True)
class OperationError:
    """How far one operation's rule is from summing to its output difference."""

    operation: str
    rule: str
    source: Source
    error: float
    """Mean over pairs of |sum over inputs of m (x - r) - the same of the output|, over mean |f(x) - f(r)|."""


class BlamingEngine(Engine):
    """An engine that keeps every value and compares both sides of every operation on the way back."""

    def __init__(self, program: Program, step: StepShape) -> None:
        super().__init__(program, step, keep_all=True)
        self._missed: dict[str, Tensor] = {}

    @torch.no_grad()
    def blame(self, rows: Tensor, readout: Readout) -> list[OperationError]:
        """Errors of all operations that one target needs, the worst first."""
        self._missed = {}
        sequences = self._forward(rows[: self.step.sequences], self._sequence_values)
        references = self._forward(rows[self.step.sequences :], self._pair_values)
        outputs = sequences.output, references.output
        weights = readout.weights(*outputs, self.step)
        seeds = self._seeds(readout, weights, references.output)
        self._backward(seeds, Kept(sequences.kept, references.kept), references.rows, spare=False)
        x, r = readout.predictions(*outputs, weights, self.step)
        scale = (x - r).abs().mean().double()
        found = [
            OperationError(
                str(s.call.op), s.rule.title, s.call.source, float(self._missed[s.call.name] / scale)
            )
            for s in self.program.steps
            if s.call.name in self._missed and s.rule.title != "identity"
        ]
        return sorted(found, key=lambda fact: -fact.error)

    def _send_back(
        self, step: Step, multiplier: Any, own: bool, kept: Kept, waiting: Waiting, spare: bool
    ) -> None:
        alone = Waiting({})
        super()._send_back(step, multiplier, own, kept, alone, spare)
        parts = alone.multipliers
        before = sum(
            self._carried(ref.name, parts[ref.name], kept) for ref in step.call.inputs if ref.name in parts
        )
        after = self._carried(step.call.name, multiplier, kept)
        self._missed[step.call.name] = (before - after).abs().mean()
        for name, part in parts.items():
            waiting.multipliers[name] = _joined(waiting.multipliers.get(name), part)

    def _carried(self, name: str, multiplier: Any, kept: Kept) -> Tensor:
        """Sum of m (x - r) of a value, (pairs,) in float64."""
        info, x, r = self.program.infos[name], kept.sequences[name], kept.references[name]
        if isinstance(info, tuple):
            parts = [
                self._single(part, *one)
                for part, *one in zip(info, multiplier, x, r, strict=False)
                if one[0] is not None
            ]
            return torch.stack(parts).sum(0)
        return self._single(info, multiplier, x, r)

    def _single(self, info: ValueInfo, multiplier: Tensor, x: Tensor, r: Tensor) -> Tensor:
        batch = info.batch
        assert batch is not None
        gap = self.step.sequence_part(x, batch) - self.step.pair_part(r, batch)
        carried = self.step.pair_part(multiplier, batch).double() * gap.double()
        rows = carried.movedim((batch.axis + 1, batch.axis + 2), (0, 1))
        return rows.reshape(self.step.pairs, -1).sum(1)


def _joined(first: Any, second: Any) -> Any:
    """Sum of two multipliers, or of two lists of them with gaps."""
    if first is None or second is None:
        return second if first is None else first
    if isinstance(second, list):
        return [_joined(a, b) for a, b in zip(first, second, strict=True)]
    return first + second
