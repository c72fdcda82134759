"""Which positions of its inputs an operation needs for a range of positions of what it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from dlgenome.attribution.fusion import is_pointwise
from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.lowering import GetItem, Program, Step
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Call, Ref, Rule, aten, refs_in, same_axis
from dlgenome.attribution.rules.batch_norm import BatchNorm
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution, SamePadding
from dlgenome.attribution.rules.elementwise import Elementwise
from dlgenome.attribution.rules.fused import FusedElementwise
from dlgenome.attribution.rules.gradient import DeconvNet, Gradient, Held, PassThrough
from dlgenome.attribution.rules.linear import Identity, Slice
from dlgenome.attribution.rules.piecewise import PRelu
from dlgenome.attribution.rules.residual import ResidualRelu
from dlgenome.attribution.tracking import first_info

_BY_NUMBER = (Elementwise, FusedElementwise, ResidualRelu, Identity)
_GRADIENTS = (Gradient, Held, DeconvNet, PassThrough)
PADS = frozenset({aten.constant_pad_nd.default, aten.pad.default})


@dataclass(frozen=True, slots=True)
class Window:
    """A range of positions on the last axis; the last one is not included."""

    start: int
    stop: int

    @property
    def width(self) -> int:
        """How many positions."""
        return self.stop - self.start

    def joined(self, other: Window | None) -> Window:
        """The shortest window that holds both."""
        if other is None:
            return self
        return Window(min(self.start, other.start), max(self.stop, other.stop))

    def read(self, reach: Reach, length: int) -> Window:
        """The positions, of ``length``, that are needed for these; their number may be zero or less."""
        return Window(max(0, self.start - reach.before), min(length, self.stop + reach.after))


@dataclass(frozen=True, slots=True)
class Reach:
    """Position p of what is made needs those of the inputs from ``p - before`` to ``p + after``, no others.

    Those before the first and after the last position are made up: zeros, mostly.
    """

    before: int
    after: int
    products: int = 0
    """Of weights and values, for one position of what is made."""


_SAME_PLACE = Reach(0, 0)


def whole(info: ValueInfo) -> Window:
    """All positions of a value."""
    return Window(0, info.dims[-1] if info.dims else 1)


@dataclass(frozen=True)
class Surroundings:
    """What is asked of the program that an operation stands in."""

    constants: Mapping[str, tuple[Any, ...]]
    """Shapes of what does not depend on the sequence."""
    norms: frozenset[str]
    """Names of batch normalisations."""


def surroundings(program: Program) -> Surroundings:
    """Those of every operation of a program."""
    norms = frozenset(step.call.name for step in program.steps if isinstance(step.rule, BatchNorm))
    return Surroundings(_constant_shapes(program), norms)


def _constant_shapes(program: Program) -> dict[str, tuple[Any, ...]]:
    shapes: dict[str, tuple[Any, ...]] = {
        name: tuple(value.shape) for name, value in program.parameters.items()
    }
    for node in program.constants:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            shapes[node.name] = tuple(value.shape)
        elif isinstance(value, (int, float, torch.SymInt)):
            shapes[node.name] = ()
    return shapes


def reach_of(step: Step, around: Surroundings) -> Reach | None:
    """How far an operation looks; None where it may look at any position, or that is not certain."""
    if not _has_positions(step.call) or not _is_built_in(step.rule):
        return None
    if is_convolution(step.rule):
        return _of_convolution(step, around)
    if type(step.rule) is Slice:
        return _of_slice(step.call)
    if step.call.op in PADS:
        return _of_pad(step.call) if _is_ours(step) else None
    return _SAME_PLACE if _stays_in_place(step, around) else None


def is_convolution(rule: Rule) -> TypeGuard[Convolution | AnyConvolution]:
    """Whether a rule is that of a convolution of any kind along positions."""
    return isinstance(rule, AnyConvolution) or (isinstance(rule, Convolution) and rule.axes == 1)


def _is_built_in(rule: Rule) -> bool:
    """Whether the class of a rule is ours; one that a plug-in derives from ours may look anywhere."""
    return type(rule).__module__.partition(".")[0] == __name__.partition(".")[0]


def _has_positions(call: Call) -> bool:
    """Whether the batch comes first in every value, and the last axis is another one."""
    infos = (call.output, *call.input_infos)
    return all(info.batch == BatchAxis() and len(info.dims) > 1 for info in infos)


def _of_convolution(step: Step, around: Surroundings) -> Reach | None:
    args = step.call.args
    weight = around.constants.get(args[1].name, ()) if isinstance(args[1], Ref) else ()
    if len(weight) != 3 or step.call.kwargs or len(step.call.output.dims) != 3:
        return None
    general = args[6:] if isinstance(step.rule, AnyConvolution) else ()
    if general and general[0]:
        return None
    stride, padding, dilation = (
        one_number(args[place] if len(args) > place else neutral)
        for place, neutral in ((3, 1), (4, 0), (5, 1))
    )
    if stride != 1 or not isinstance(dilation, int):
        return None
    spread = dilation * (weight[2] - 1)
    if isinstance(step.rule, SamePadding):
        padding = 0 if padding == "valid" else spread // 2
    return Reach(padding, spread - padding, math.prod(weight)) if isinstance(padding, int) else None


def one_number(value: Any) -> Any:
    """The one number of a list of one, else the argument itself."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def is_along_positions(call: Call) -> bool:
    """Whether a slice, or values side by side, go along the last axis."""
    return same_axis(call.argument(1, "dim", 0), -1, len(call.output.dims))


def _of_slice(call: Call) -> Reach | None:
    if not is_along_positions(call):
        return _SAME_PLACE
    start, stop, by = call.argument(2, "start"), call.argument(3, "end"), call.argument(4, "step", 1)
    if by != 1 or isinstance(start, Ref) or isinstance(stop, Ref):
        return None
    first, last, _ = slice(start, stop).indices(call.input_infos[0].dims[-1])
    return Reach(-first, first) if first < last else None


def _of_pad(call: Call) -> Reach | None:
    pads, constant = call.args[1], call.op is aten.constant_pad_nd.default
    constant = constant or call.argument(2, "mode", "constant") == "constant"
    return Reach(pads[0], -pads[0]) if constant and len(pads) == 2 and _all_numbers(pads) else None


def _all_numbers(values: Any) -> bool:
    return all(isinstance(value, int) for value in values)


def _stays_in_place(step: Step, around: Surroundings) -> bool:
    """Whether every number comes from those at the same position, and nothing else knows of positions."""
    call, rule = step.call, step.rule
    dims = call.output.dims
    alike = all(len(i.dims) == len(dims) and i.dims[-1] in (1, dims[-1]) for i in call.input_infos)
    by_number = isinstance(rule, _BY_NUMBER) or (is_pointwise(call) and _is_ours(step))
    if not alike:
        return False
    if isinstance(rule, GetItem):
        return call.args[0].name in around.norms and call.args[1] == 0
    if isinstance(rule, (BatchNorm, PRelu)):
        return len(dims) > 2 and call.inputs == (call.args[0],)
    beside = call.op is aten.cat.default and _is_ours(step) and not is_along_positions(call)
    return (by_number or beside) and _know_no_positions(call, around)


def _is_ours(step: Step) -> bool:
    """Whether the operation has the rule of our table, or a gradient; one of a plug-in may look anywhere."""
    return RULES.get(step.call.op) is step.rule or isinstance(step.rule, _GRADIENTS)


def _know_no_positions(call: Call, around: Surroundings) -> bool:
    """Whether what does not depend on the sequence is the same at every position."""
    others = [ref for ref in refs_in((call.args, call.kwargs)) if not call.depends(ref)]
    return all(around.constants.get(ref.name, (None,))[-1:] in ((), (1,)) for ref in others)


def resized(info: Any, width: int) -> Any:
    """The shape of a value, or of the first of several, with so many positions."""
    if isinstance(info, tuple):
        return (resized(info[0], width), *info[1:])
    return ValueInfo((*info.dims[:-1], width), info.batch)


def windows_and_reaches(program: Program) -> tuple[dict[str, Window], dict[str, Reach]]:
    """Where each value is needed, and how far each operation looks that may be computed there alone.

    From the output on, which is needed whole; what other operations make is computed whole.
    """
    around = surroundings(program)
    needed = {program.output: whole(first_info(program.infos[program.output]))}
    windows: dict[str, Window] = {}
    reaches: dict[str, Reach] = {}
    for step in reversed(program.steps):
        call, reach, made = step.call, reach_of(step, around), needed.get(step.call.name)
        reads = None if reach is None or made is None else _reads(call, reach, made)
        if reach is None or made is None or reads is None:
            made, reads = whole(call.output), [whole(info) for info in call.input_infos]
        else:
            reaches[call.name] = reach
        windows[call.name] = made
        for ref, window in zip(call.inputs, reads, strict=True):
            needed[ref.name] = window.joined(needed.get(ref.name))
    windows[program.sequences] = whole(first_info(program.infos[program.sequences]))
    return windows, reaches


def _reads(call: Call, reach: Reach, made: Window) -> list[Window] | None:
    """What it needs of every input for a window of what it makes; None where that is nothing but padding."""
    windows = [
        whole(info) if info.dims[-1] == 1 and len(call.inputs) > 1 else made.read(reach, info.dims[-1])
        for info in call.input_infos
    ]
    return windows if all(window.width > 0 for window in windows) else None
