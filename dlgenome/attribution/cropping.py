"""The same program without the positions that cannot reach the target.

Networks such as BPNet pad every convolution to keep the length of the sequence, and read only the middle of
what the last one makes. The last layers are then computed at twice as many positions as anything reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.reach import (
    PADS,
    Reach,
    Window,
    is_along_positions,
    is_convolution,
    resized,
    whole,
    windows_and_reaches,
)
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Call, Ref, Rule, Source, aten, fill
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution, SamePadding
from dlgenome.attribution.rules.cropped import CroppedResidualRelu, Place, Spread, SpreadConvolution
from dlgenome.attribution.rules.linear import Slice
from dlgenome.attribution.rules.residual import ResidualRelu
from dlgenome.attribution.tracking import first_info

_COPY = 50
"""Products of a convolution that take as long as one number of a slice, copied forward and put back."""


def cropped(program: Program) -> Program:
    """The program with every value computed at the positions that the output depends on.

    The very same program where nothing is cut off, or too little to pay for the copies that it takes: a
    convolution reads what is contiguous in memory.
    """
    cropper = _Cropper(program)
    return cropper.result() if cropper.saved > cropper.spent else program


class _Cropper:
    """Operations rewritten one by one, and what that saves and costs, in products of convolutions a row."""

    def __init__(self, program: Program) -> None:
        self.program, self.saved, self.spent = program, 0, 0
        self._windows, self._reaches = windows_and_reaches(program)
        self._multipliers = dict(self._windows)
        """The positions that the multiplier of each value has: in residual connections more than it."""
        self._infos = {
            name: resized(info, self._windows[name].width) if name in self._windows else info
            for name, info in program.infos.items()
        }
        self._steps: list[Step] = []
        for step in program.steps:
            self._steps.append(self._rewritten(step))

    def result(self) -> Program:
        """The rewritten program."""
        return replace(self.program, steps=tuple(self._steps), infos=self._infos)

    def _rewritten(self, step: Step) -> Step:
        call, reach = step.call, self._reaches.get(step.call.name)
        names = (call.name, *(ref.name for ref in call.inputs))
        if reach is None or all(self._is_whole(name) for name in names):
            return step
        if is_convolution(step.rule):
            return self._convolution(step.call, step.rule, reach)
        if call.op in PADS or (type(step.rule) is Slice and is_along_positions(call)):
            return self._moved(step, reach)
        if isinstance(step.rule, ResidualRelu):
            return self._residual(step)
        return self._in_place(step)

    def _is_whole(self, name: str) -> bool:
        return self._windows[name] == whole(first_info(self.program.infos[name]))

    def _convolution(self, call: Call, rule: Convolution | AnyConvolution, reach: Reach) -> Step:
        """Narrower, with what padding is left; padded first where the two sides differ."""
        ref, made = call.inputs[0], self._windows[call.name]
        needed, wide = made.read(reach, call.input_infos[0].dims[-1]), self._multipliers[ref.name]
        sides = needed.start + reach.before - made.start, made.stop + reach.after - needed.stop
        direct = self._windows[ref.name] == needed and sides[0] == sides[1]
        if not direct:
            ref = self._padded(self._sliced(ref, needed, call.source), sides, call.source)
        self.saved += reach.products * (call.output.dims[-1] - made.width)
        plain, call = _with_padding(rule, call, ref, min(sides))
        resized = self._resized(call, (ref,))
        if not direct or wide == needed:
            return Step(resized, plain)
        left, right = wide.start + reach.before - made.start, made.stop + reach.after - wide.stop
        place = Place(needed.start - wide.start, wide.width)
        return Step(resized, SpreadConvolution(plain, place, left if left == right else None))

    def _moved(self, step: Step, reach: Reach) -> Step:
        """A slice or a pad that takes what is there to what is needed."""
        call, made, given = step.call, *(self._windows[n] for n in (step.call.name, step.call.inputs[0].name))
        ref = self._read(call.inputs[0], call.source)
        left, right = given.start + reach.before - made.start, made.stop + reach.after - given.stop
        if call.op in PADS:
            call = replace(call, args=(ref, [left, right], *call.args[2:]))
        else:
            call = replace(call, args=(ref, call.argument(1, "dim"), -left, made.width - left), kwargs={})
        return Step(self._resized(call, (ref,)), step.rule)

    def _residual(self, step: Step) -> Step:
        call, made = step.call, self._windows[step.call.name]
        first, added = call.inputs
        given, wide = self._windows[first.name], self._multipliers[first.name]
        inputs, rule = (first, self._sliced(added, made, call.source)), step.rule
        if not given == wide == made:
            place = Place(made.start - wide.start, wide.width)
            rule = CroppedResidualRelu(made.start - given.start, place)
            self._multipliers[call.name] = wide
        return Step(self._resized(replace(call, args=inputs), inputs), rule)

    def _in_place(self, step: Step) -> Step:
        """An operation number by number, on values as narrow as what it makes."""
        call, made = step.call, self._windows[step.call.name]
        new = {
            ref.name: self._sliced(ref, made, call.source)
            for ref, info in zip(call.inputs, call.input_infos, strict=True)
            if info.dims[-1] == call.output.dims[-1]
        }
        args, kwargs = fill(call.args, new), fill(call.kwargs, new)
        inputs = tuple(new.get(ref.name, ref) for ref in call.inputs)
        return Step(self._resized(replace(call, args=args, kwargs=kwargs), inputs), step.rule)

    def _resized(self, call: Call, inputs: tuple[Ref, ...]) -> Call:
        infos = tuple(first_info(self._infos[ref.name]) for ref in inputs)
        return replace(call, inputs=inputs, input_infos=infos, info=self._infos[call.name])

    def _read(self, ref: Ref, source: Source) -> Ref:
        """The value, for operations whose multipliers have as many positions as it has."""
        given, wide = self._windows[ref.name], self._multipliers[ref.name]
        if given == wide:
            return ref
        rule = Spread(Place(given.start - wide.start, wide.width))
        return self._added(f"{ref.name}/spread", "spread", (ref,), given.width, rule, source)

    def _sliced(self, ref: Ref, needed: Window, source: Source) -> Ref:
        """The value at the positions that are needed and no others."""
        given, ref = self._windows[ref.name], self._read(ref, source)
        if given == needed:
            return ref
        start, axis = needed.start - given.start, len(first_info(self._infos[ref.name]).dims) - 1
        name, args = f"{ref.name}/{needed.start}-{needed.stop}", (ref, axis, start, start + needed.width)
        return self._copied(name, aten.slice.Tensor, args, needed.width, source)

    def _padded(self, ref: Ref, sides: tuple[int, int], source: Source) -> Ref:
        """The value with zeros on the side where more are missing."""
        left, right = (side - min(sides) for side in sides)
        if left == right:
            return ref
        width = first_info(self._infos[ref.name]).dims[-1] + left + right
        args = (ref, [left, right])
        return self._copied(f"{ref.name}/{left}+{right}", aten.constant_pad_nd.default, args, width, source)

    def _copied(self, name: str, op: Any, args: tuple[Any, ...], width: int, source: Source) -> Ref:
        ref = self._added(name, op, args, width, RULES[op], source)
        self.spent += _COPY * first_info(self._infos[name]).elements_per_row
        return ref

    def _added(
        self, name: str, op: Any, args: tuple[Any, ...], width: int, rule: Rule, source: Source
    ) -> Ref:
        """An operation of one value more; the same once more is the first."""
        if name not in self._infos:
            info = first_info(self._infos[args[0].name])
            made = self._infos[name] = resized(info, width)
            self._steps.append(Step(Call(name, op, args, {}, args[:1], (info,), made, source), rule))
        return Ref(name)


def _with_padding(
    rule: Convolution | AnyConvolution, call: Call, ref: Ref, padding: int
) -> tuple[Convolution | AnyConvolution, Call]:
    """A convolution of another value with so many zeros on both sides."""
    given = (*call.args, None)[:3] + (call.args[3:4] or ([1],))
    args = (ref, *given[1:4], [padding], *call.args[5:])
    if not isinstance(rule, SamePadding):
        return rule, replace(call, args=args)
    return Convolution(1, narrow=rule.narrow), replace(call, op=aten.conv1d.default, args=args)
