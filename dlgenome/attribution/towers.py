"""Finds towers: residual layers that follow one another, which one operation explains together.

Networks such as BPNet are ``h + relu(convolution(h))`` some times over. One by one, every layer passes all of
its values through memory several times.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.lowering import GET_ITEM, Program, Step
from dlgenome.attribution.reach import is_along_positions, one_number
from dlgenome.attribution.rules.base import Call, Ref, fill
from dlgenome.attribution.rules.convolution import Convolution
from dlgenome.attribution.rules.cropped import CroppedResidualRelu, Place, Spread, SpreadConvolution
from dlgenome.attribution.rules.elementwise import Relu
from dlgenome.attribution.rules.linear import Slice
from dlgenome.attribution.rules.residual import ResidualRelu
from dlgenome.attribution.rules.tower import Tower
from dlgenome.attribution.tiles.instructions import SIDE
from dlgenome.attribution.tiles.processor import has_tiles
from dlgenome.attribution.vectors.layers import Layer
from dlgenome.attribution.vectors.processor import has_vectors
from dlgenome.attribution.vectors.tower import TAPS

_CACHE = 1 << 21
"""Bytes of one row of values; beyond, layers one by one are as fast."""


@dataclass(frozen=True)
class _Found:
    """A layer, and the operations that it stands for."""

    layer: Layer
    convolution: Step
    residual: Step
    cuts: tuple[Step, ...]
    """What takes the positions that are added to, where there are operations for it."""
    narrow: bool
    place: Place | None
    """Where its positions are among those of its multiplier; None where the two have the same."""

    @property
    def call(self) -> Call:
        """The operation that makes the last of it."""
        return self.residual.call

    @property
    def first(self) -> Ref:
        """What it is a layer on."""
        return self.convolution.call.inputs[0]

    @property
    def first_info(self) -> ValueInfo:
        return self.convolution.call.input_infos[0]

    @property
    def length(self) -> int:
        """Positions of the first value."""
        return self.first_info.dims[-1]

    @property
    def names(self) -> list[str]:
        """Of the operations that it stands for."""
        return [step.call.name for step in (self.convolution, *self.cuts, self.residual)]


def with_towers(program: Program) -> Program:
    """The program with towers of two layers or more as one operation each, where the processor can."""
    if not has_tiles() and not has_vectors():
        return program
    towers = {tower[-1].call.name: tower for tower in _towers(program) if len(tower) > 1}
    spread, relus = _spread_alone(program, towers), _relus_alone(program, towers)
    gone = {name for tower in towers.values() for found in tower for name in found.names}
    gone |= spread.keys() | {relu.name for relu in relus.values()}
    steps, infos = list[Step](), dict(program.infos)
    for step in program.steps:
        name = step.call.name
        if name in towers:
            steps += [_reading(part, spread) for part in _together(towers[name], relus.get(name), infos)]
        elif step.call.name not in gone:
            steps.append(_reading(step, spread))
    for name in gone - towers.keys():
        del infos[name]
    return replace(program, steps=tuple(steps), infos=infos)


def _spread_alone(program: Program, towers: Mapping[str, list[_Found]]) -> dict[str, Ref]:
    """What operations read that only put the multiplier of a tower between zeros, which it does itself."""
    readers = program.readers()
    found = {}
    for step in program.steps:
        name = step.call.inputs[0].name
        if type(step.rule) is Spread and name in towers and readers[name] == 1:
            below = sum(one.layer.start for one in towers[name])
            if step.rule.place == Place(below, towers[name][0].length):
                found[step.call.name] = Ref(name)
    return found


def _relus_alone(program: Program, towers: Mapping[str, list[_Found]]) -> dict[str, Call]:
    """ReLUs that make the first value of a tower, which nothing else reads, by the name of the tower."""
    relus = {step.call.name: step.call for step in program.steps if type(step.rule) is Relu}
    readers = program.readers()
    firsts = {name: tower[0].first.name for name, tower in towers.items()}
    return {name: relus[first] for name, first in firsts.items() if first in relus and readers[first] == 2}


def _reading(step: Step, instead: dict[str, Ref]) -> Step:
    """The operation with other names for some of its inputs."""
    call = step.call
    if not any(ref.name in instead for ref in call.inputs):
        return step
    inputs = tuple(instead.get(ref.name, ref) for ref in call.inputs)
    args, kwargs = fill(call.args, instead), fill(call.kwargs, instead)
    return replace(step, call=replace(call, args=args, kwargs=kwargs, inputs=inputs))


def _towers(program: Program) -> list[list[_Found]]:
    makers = {step.call.name: step for step in program.steps}
    readers = program.readers()
    towers: dict[str, list[_Found]] = {}
    for step in program.steps:
        found = _layer(step, makers, readers, program)
        if found is None:
            continue
        below = towers.get(found.first.name, [])
        alone = bool(below) and readers[found.first.name] == 2
        if alone and found.narrow == below[0].narrow and _stands(found, below):
            towers[step.call.name] = [*towers.pop(found.first.name), found]
        elif _stands(found, []):
            towers[step.call.name] = [found]
    return list(towers.values())


def _stands(found: _Found, below: list[_Found]) -> bool:
    """Whether its multiplier is as that of the next layer of a tower must be.

    It has the positions that its value has, or those of the first value of the tower.
    """
    tower = [*below, found]
    if found.place is None:
        return all(one.place is None for one in below)
    return found.place == Place(sum(one.layer.start for one in tower), tower[0].length)


def _layer(step: Step, makers: Mapping[str, Step], readers: Counter[str], program: Program) -> _Found | None:
    """What makes a residual connection, where it is a layer as towers have them."""
    if type(step.rule) not in (ResidualRelu, CroppedResidualRelu):
        return None
    first, added = step.call.inputs
    convolution, cuts = makers.get(added.name), _cuts(first, makers, readers)
    kept = cuts[-1].call.inputs[0] if cuts else first
    if convolution is None or readers[added.name] != 1 or convolution.call.inputs != (kept,):
        return None
    rule = convolution.rule.rule if isinstance(convolution.rule, SpreadConvolution) else convolution.rule
    if type(rule) is not Convolution or rule.axes != 1:
        return None
    moves = _moves(convolution.call, program)
    if moves is None or not _fits(convolution.call.input_infos[0]):
        return None
    start, place = sum(_first_position(cut.call) for cut in cuts), None
    if isinstance(step.rule, CroppedResidualRelu):
        start, place = start + step.rule.start, step.rule.place
    layer = Layer(step.call.output.dims[-1], start, *moves)
    return _Found(layer, convolution, step, cuts, rule.narrow, place)


def _fits(info: ValueInfo) -> bool:
    """Whether a value is (batch, channels, positions), of whole groups of channels, and fits the cache."""
    plain = info.batch == BatchAxis() and len(info.dims) == 3
    return plain and info.dims[1] % SIDE == 0 and 4 * info.elements_per_row <= _CACHE


def _cuts(ref: Ref, makers: Mapping[str, Step], readers: Counter[str]) -> tuple[Step, ...]:
    """Operations that take a range of positions of a value, the last of them for this one reader."""
    step = makers.get(ref.name)
    if step is None or type(step.rule) is not Slice or readers[ref.name] != 1:
        return ()
    call = step.call
    bounds = [call.argument(2, "start"), call.argument(3, "end")]
    known = all(bound is None or isinstance(bound, int) for bound in bounds)
    together = known and is_along_positions(call) and call.argument(4, "step", 1) == 1
    if not together and (is_along_positions(call) or call.input_infos[0] != call.output):
        return ()
    return (step, *_cuts(step.call.inputs[0], makers, readers))


def _first_position(call: Call) -> int:
    """That a slice takes; one along another axis takes all."""
    if not is_along_positions(call):
        return 0
    bounds = slice(call.argument(2, "start"), call.argument(3, "end"))
    return bounds.indices(call.input_infos[0].dims[-1])[0]


def _moves(call: Call, program: Program) -> tuple[int, int, int] | None:
    """Padding, dilation and taps; None unless weights are parameters, as many outputs as channels."""
    weight, bias = call.args[1], call.argument(2, "bias")
    stride, padding, dilation = (
        one_number(call.argument(place, name, neutral))
        for place, name, neutral in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if call.kwargs or not _is_parameter(weight, program) or stride != 1 or call.argument(6, "groups", 1) != 1:
        return None
    if bias is not None and not _is_parameter(bias, program):
        return None
    outputs, channels, taps = program.parameters[weight.name].shape
    known = isinstance(padding, int) and isinstance(dilation, int) and outputs == channels
    known = known and (taps == TAPS or has_tiles())
    return (padding, dilation, taps) if known and 0 <= padding <= dilation * (taps - 1) else None


def _is_parameter(argument: Any, program: Program) -> bool:
    value = program.parameters.get(argument.name) if isinstance(argument, Ref) else None
    return value is not None and value.dtype is torch.float32 and value.device.type == "cpu"


def _together(
    tower: list[_Found], relu: Call | None, infos: dict[str, ValueInfo | tuple[ValueInfo, ...]]
) -> list[Step]:
    """The tower as one operation, the ReLU before it included, and its last value under its own name."""
    last, first, info = tower[-1].call, tower[0].first, tower[0].first_info
    if relu is not None:
        first, info = relu.inputs[0], relu.input_infos[0]
    name, channels = f"{last.name}/tower", info.dims[1]
    rule = Tower([found.layer for found in tower], narrow=tower[0].narrow, of_relu=relu is not None)
    infos[name] = (last.output, ValueInfo((1, rule.record_size(channels)), BatchAxis()))
    weights = [argument for found in tower for argument in (*found.convolution.call.args[1:3], None)[:2]]
    whole = replace(
        last, name=name, op="tower", args=(first, *weights), inputs=(first,), input_infos=(info,),
        info=infos[name],
    )  # fmt: skip
    picked = replace(
        last, op=operator.getitem, args=(Ref(name), 0), inputs=(Ref(name),), input_infos=(last.output,)
    )
    return [Step(whole, rule), Step(picked, GET_ITEM)]
