"""An engine for RevealCancel: two multipliers for every value, one for each sign of its difference."""

from __future__ import annotations

from torch import Tensor

from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import GetItem, Program, Step
from dlgenome.attribution.parts import Parts, Plan
from dlgenome.attribution.rules.base import Kept
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution
from dlgenome.attribution.rules.dense import Dense
from dlgenome.attribution.rules.gradient import Held
from dlgenome.attribution.rules.products import MatrixProduct
from dlgenome.attribution.signs import Signed
from dlgenome.attribution.terms import scales


class SignedEngine(Engine):
    """An engine whose backward pass carries a pair of multipliers."""

    def __init__(self, program: Program, step: StepShape, *, reveal_all: bool) -> None:
        super().__init__(program, step, precise=False, keep_all=True)
        self._steps = {s.call.name: s for s in program.steps}
        reveals = {s.call.name: reveal_all or self._follows_dense(s) for s in program.steps}
        self._plan = Plan(step, program.infos, self._steps, self._pair_arguments, reveals)

    def _backward(self, seeds: dict[str, Tensor], kept: Kept, rows: Tensor, *, spare: bool) -> Tensor:
        state = Parts(self._plan, kept)
        waiting: dict[str, dict[int, Signed]] = {name: {0: Signed(m, m)} for name, m in seeds.items()}
        for step in reversed(self.program.steps):
            multipliers = waiting.pop(step.call.name, None)
            if multipliers is None or isinstance(step.rule, Held):
                continue
            if isinstance(step.rule, GetItem):
                places, parts = [step.call.args[1]], [multipliers[0]]
            else:
                parts = state.back(step, multipliers)
                places = [0] * len(parts)
            for ref, place, part in zip(step.call.inputs, places, parts, strict=True):
                slots = waiting.setdefault(ref.name, {})
                slots[place] = slots[place] + part if place in slots else part
        result = waiting.get(self.program.sequences)
        if result is None:
            return rows.new_zeros(self.step.pairs, *rows.shape[1:])
        return result[0].by_sign(state.difference(self.program.sequences))

    def _follows_dense(self, step: Step) -> bool:
        """Whether a dense layer is among the linear layers that feed an activation directly."""
        names = [ref.name for ref in step.call.inputs]
        while names:
            before = self._steps.get(names.pop())
            if before is None or isinstance(before.rule, (Convolution, AnyConvolution)):
                continue
            if isinstance(before.rule, (Dense, MatrixProduct)):
                return True
            if before.rule.linear or scales(before) or isinstance(before.rule, GetItem):
                names.extend(ref.name for ref in before.call.inputs)
        return False
