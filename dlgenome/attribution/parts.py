"""RevealCancel: multipliers for the positive and the negative part of every difference.

Shrikumar et al. 2017 (arXiv 1704.02685), sections 3.4 and 3.5. Every value's difference d = x - r is split
into parts P + N = d, with multipliers m+ and m- such that ``sum (m+ P + m- N)`` is the output difference.
Convolutions and dense layers start a new split from the sign of d; operations between them carry the split
of their inputs on. Where the original program refuses (residual sums, products, gates) these are the natural
extensions, all exact in the sum:

* sums, views, pools of averages: parts are carried like values, multipliers go back unchanged;
* factors k (batch-norm, products, constant divisors): ``P = k+ P + k- N``, ``m+ <- k+ m+ + k- m-``, and
  likewise for N and m-;
* functions that are not defined everywhere (roots, logarithms, reciprocals) keep Rescale, since r + P or
  r + N may lie outside their domain;
* maxima: the selection of the exact max-pool rule carries both parts;
* any other operation: its exact rule on the whole difference, split anew by the sign of its output's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import GetItem, Step
from dlgenome.attribution.rules.base import Backward, Kept, fill, unbroadcast
from dlgenome.attribution.rules.batch_norm import BatchNorm
from dlgenome.attribution.rules.elementwise import Elementwise
from dlgenome.attribution.rules.linear import Add, Negate
from dlgenome.attribution.rules.pooling import AxisMax, MaxPool
from dlgenome.attribution.signs import Signed, split
from dlgenome.attribution.terms import scales, signs, weight_position, without_constants
from dlgenome.attribution.tracking import Info


@dataclass(frozen=True)
class Plan:
    """What parts need to know of a program bound to a step shape."""

    step: StepShape
    infos: Mapping[str, Info]
    steps: Mapping[str, Step]
    """The operation that makes each value; the sequences have none."""
    arguments: Mapping[str, tuple[tuple[Any, ...], dict[str, Any]]]
    """Arguments of each operation with constants filled in for the pair rows."""
    reveals: Mapping[str, bool]
    """Whether an activation gets RevealCancel; otherwise Rescale."""


class Parts:
    """One backward pass: kept values, and the parts of those that were asked for."""

    def __init__(self, plan: Plan, kept: Kept) -> None:
        self.plan, self.kept, self.step = plan, kept, plan.step
        self._parts: dict[str, list[Signed]] = {}

    def difference(self, name: str) -> Tensor:
        """x - r of a value on the pair rows."""
        info = self.plan.infos[name]
        batch = (info[0] if isinstance(info, tuple) else info).batch
        assert batch is not None
        x, r = self.kept.sequences[name], self.kept.references[name]
        x, r = (value[0] if isinstance(value, (tuple, list)) else value for value in (x, r))
        gap = self.step.sequence_part(x, batch) - self.step.pair_part(r, batch)
        return self.step.flat_pairs(gap, batch)

    def parts(self, name: str, output: int = 0) -> Signed:
        """Positive and negative part of a value's difference; of one of several outputs."""
        if name not in self._parts:
            step = self.plan.steps.get(name)
            self._parts[name] = [split(self.difference(name))] if step is None else self._made(step)
        return self._parts[name][output]

    def _saved(self, step: Step, args: tuple[Any, ...] | None = None) -> Backward:
        given, kwargs = self.plan.arguments[step.call.name]
        return self.kept.saved(self.step, step.call.inputs, given if args is None else args, kwargs)

    def back(self, step: Step, multipliers: dict[int, Signed]) -> list[Signed]:
        """Multipliers of the inputs from those of the outputs by their number."""
        rule, call = step.rule, step.call
        if set(multipliers) != {0}:
            return self._plain(step, multipliers)
        m = multipliers[0]
        if isinstance(rule, Elementwise):
            return [self._scaled_by_slopes(step, m)]
        if weight_position(step) is not None and not m.same:
            return [self._through_weights(step, m)]
        if scales(step) and not m.same:
            return [self._through_factor(step, index, m) for index in range(len(call.inputs))]
        if isinstance(rule, (Add, Negate)):
            return self._through_signs(step, m)
        if m.same or rule.linear or isinstance(rule, (MaxPool, AxisMax)):
            return self._plain(step, multipliers)
        whole = m.by_sign(self.difference(call.name))
        return self._plain(step, {0: Signed(whole, whole)})

    def _plain(self, step: Step, multipliers: dict[int, Signed]) -> list[Signed]:
        """The operation's own rule, for each sign."""
        info = step.call.info
        numbers = range(len(info)) if isinstance(info, tuple) else None

        def run(choose: Callable[[Signed], Tensor]) -> list[Tensor]:
            chosen = {number: choose(m) for number, m in multipliers.items()}
            given = chosen[0] if numbers is None else [chosen.get(number) for number in numbers]
            found = step.rule.backward(step.call, given, self._saved(step))
            missing = next(iter(chosen.values())).new_zeros(())
            return [missing if part is None else part for part in found]

        up = run(lambda m: m.positive)
        same = all(m.same for m in multipliers.values())
        down = up if same else run(lambda m: m.negative)
        return [Signed(a, b) for a, b in zip(up, down, strict=True)]

    def _made(self, step: Step) -> list[Signed]:
        """Parts of what an operation makes, one entry an output."""
        rule, call = step.rule, step.call
        if isinstance(rule, GetItem):
            return [self.parts(call.inputs[0].name, call.args[1])]
        if rule.linear and weight_position(step) is None and not isinstance(rule, BatchNorm):
            return self._carried(step)
        return [self._split_anew(step)]

    def _split_anew(self, step: Step) -> Signed:
        """Parts of the (only) output of an operation that does not just carry them on."""
        rule, call = step.rule, step.call
        if isinstance(rule, Elementwise):
            up, down = self._slopes(step)
            parts = self.parts(call.inputs[0].name)
            return Signed(up * parts.positive, down * parts.negative)
        if weight_position(step) is not None:
            return self._split_by_weights(step)
        if scales(step):
            return self._sum_of_factors(step)
        if isinstance(rule, (MaxPool, AxisMax)):
            return self._selected(step)
        return split(self.difference(call.name))

    def _slopes(self, step: Step) -> tuple[Tensor, Tensor]:
        """s+ and s- of an activation: means of two secants along the two orders of adding N and P."""
        rule, call = step.rule, step.call
        assert isinstance(rule, Elementwise)
        batch, saved = call.input_batch(0), self._saved(step)
        x, r = saved.sequence(0, batch), saved.reference(0, batch)
        if not (self.plan.reveals[step.call.name] and rule.whole_line):
            slope = self.step.flat_pairs(rule.secant(call, x, r, saved), batch)
            return slope, slope
        parts = self.parts(call.inputs[0].name)
        with_p = r + self.step.pair_part(parts.positive, batch)
        with_n = r + self.step.pair_part(parts.negative, batch)
        x = x.expand_as(r)
        up = rule.secant(call, with_p, r, saved) + rule.secant(call, x, with_n, saved)
        down = rule.secant(call, with_n, r, saved) + rule.secant(call, x, with_p, saved)
        return self.step.flat_pairs(up / 2, batch), self.step.flat_pairs(down / 2, batch)

    def _scaled_by_slopes(self, step: Step, m: Signed) -> Signed:
        up, down = self._slopes(step)
        first = m.positive * up
        return Signed(first, first if m.same and up is down else m.negative * down)

    def _through_weights(self, step: Step, m: Signed) -> Signed:
        """The Linear rule: each sign of the difference meets each sign of the weights."""
        args, _ = self.plan.arguments[step.call.name]
        place = weight_position(step)
        assert place is not None
        gap = self.difference(step.call.inputs[0].name)

        def adjoint(multiplier: Tensor, weight: Tensor) -> Tensor:
            saved = self._saved(step, (*args[:place], weight, *args[place + 1 :]))
            (found,) = step.rule.backward(step.call, multiplier, saved)
            assert found is not None
            return found

        up, down = args[place].clamp_min(0), args[place].clamp_max(0)
        rising = adjoint(m.positive, up) + adjoint(m.negative, down)
        falling = adjoint(m.positive, down) + adjoint(m.negative, up)
        still = adjoint((m.positive + m.negative) / 2, args[place])
        whole = torch.where(gap > 0, rising, torch.where(gap < 0, falling, still))
        return Signed(whole, whole)

    def _split_by_weights(self, step: Step) -> Signed:
        """P from equal signs of difference and weight, N from opposite ones; the bias plays no part."""
        args, kwargs = self.plan.arguments[step.call.name]
        place = weight_position(step)
        assert place is not None
        parts = split(self.difference(step.call.inputs[0].name))
        unbiased = [None if index == 2 and isinstance(arg, Tensor) else arg for index, arg in enumerate(args)]

        def run(value: Tensor, weight: Tensor) -> Tensor:
            given = list(unbiased)
            given[place], given[1 - place] = weight, value
            made: Tensor = step.rule.forward(step.call, tuple(given), kwargs)
            return made

        up, down = args[place].clamp_min(0), args[place].clamp_max(0)
        return Signed(
            run(parts.positive, up) + run(parts.negative, down),
            run(parts.positive, down) + run(parts.negative, up),
        )

    def _factor(self, step: Step, index: int) -> Tensor:
        """What an input's difference is multiplied by: the rule's multiplier for an output of ones."""
        shape = step.call.output.shape(self.step.pairs)
        ones = self.difference(step.call.inputs[index].name).new_ones(shape)
        many = isinstance(step.call.info, tuple)
        unsummed = replace(step.call, input_infos=tuple(step.call.output for _ in step.call.inputs))
        found = step.rule.backward(
            unsummed if not many else step.call, [ones] if many else ones, self._saved_like(step)
        )
        factor = found[index]
        assert factor is not None
        return factor

    def _saved_like(self, step: Step) -> Backward:
        """As saved, with every kept input broadcast to the shape of the output."""
        saved = self._saved(step)
        info = step.call.output
        return replace(
            saved,
            sequences=tuple(value.expand(info.shape(self.step.sequences)) for value in saved.sequences),
            references=tuple(value.expand(info.shape(self.step.pairs)) for value in saved.references),
        )

    def _through_factor(self, step: Step, index: int, m: Signed) -> Signed:
        shape = step.call.input_infos[index].shape(self.step.pairs)
        return m.scaled(self._factor(step, index)).map(lambda tensor: unbroadcast(tensor, shape))

    def _sum_of_factors(self, step: Step) -> Signed:
        parts = [self.parts(ref.name).scaled(self._factor(step, i)) for i, ref in enumerate(step.call.inputs)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _through_signs(self, step: Step, m: Signed) -> list[Signed]:
        """Sums: a term that is subtracted swaps the roles of the signs."""
        straight, swapped = self._plain(step, {0: m}), self._plain(step, {0: m.swapped()})
        chosen = zip(signs(step), straight, swapped, strict=True)
        return [plain if sign > 0 else turned for sign, plain, turned in chosen]

    def _selected(self, step: Step) -> Signed:
        """Maxima carry the share of both parts that their rule selects: the transpose of its adjoint."""
        parts = self.parts(step.call.inputs[0].name)
        shape = step.call.output.shape(self.step.pairs)
        blank = parts.positive.new_zeros(shape).requires_grad_()
        many = isinstance(step.call.info, tuple)
        with torch.enable_grad():
            (spread,) = step.rule.backward(step.call, [blank] if many else blank, self._saved(step))
            assert spread is not None
            return parts.map(lambda part: torch.autograd.grad(spread, blank, part, retain_graph=True)[0])

    def _carried(self, step: Step) -> list[Signed]:
        """Parts through a linear operation; constants beside them add nothing to a difference."""
        args, kwargs = self.plan.arguments[step.call.name]
        blank = without_constants(step, args)
        parts = [
            self.parts(ref.name) if sign > 0 else self.parts(ref.name).swapped()
            for ref, sign in zip(step.call.inputs, signs(step), strict=True)
        ]

        def run(tensors: list[Tensor]) -> list[Tensor]:
            values = {ref.name: tensor for ref, tensor in zip(step.call.inputs, tensors, strict=True)}
            made = step.rule.forward(step.call, fill(blank, values), kwargs)
            return list(made) if isinstance(made, (list, tuple)) else [made]

        up, down = run([part.positive for part in parts]), run([part.negative for part in parts])
        return [Signed(a, b) for a, b in zip(up, down, strict=True)]
