"""From captured graph to program: what is constant, where the batch is, which rule each operation gets.

Everything here happens before any data moves; the findings are what `dlgenome inspect` prints, and
operations without an exact rule are refused here.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from dlgenome.attribution.capture import CapturedGraph, source_of
from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Call, Ref, Rule, Source, refs_in
from dlgenome.errors import UnsupportedModelError


class GetItem(Rule):
    """Picks one of several outputs."""

    title = "identity"

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output asked for."""
        return args[0][args[1]]


GET_ITEM = GetItem()
RANDOM = (
    "rand",
    "randn",
    "bernoulli",
    "multinomial",
    "normal",
    "uniform",
    "randint",
    "randperm",
    "native_dropout",
)


@dataclass(frozen=True)
class Refusal:
    """An operation that has no exact rule, and why."""

    operation: str
    reason: str
    source: Source

    def sentence(self) -> str:
        """One line for the user."""
        place = f"module {self.source.module}" if self.source.module else "the model's forward"
        line = f" ({self.source.line})" if self.source.line else ""
        return f"{self.operation} in {place}{line}: {self.reason}"


@dataclass(frozen=True)
class Step:
    """One operation of the program and its rule."""

    call: Call
    rule: Rule


@dataclass(frozen=True)
class Program:
    """Operations in order, each with its rule; constants and what they are made of beside them."""

    steps: tuple[Step, ...]
    constants: tuple[fx.Node, ...]
    """Nodes that do not depend on the sequence, evaluated once for each row count."""
    parameters: dict[str, Tensor]
    infos: dict[str, ValueInfo | tuple[ValueInfo, ...]]
    sequences: str
    output: str
    symbol: Any
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    def single_infos(self) -> list[ValueInfo]:
        """Shapes of all values that depend on the sequence, several outputs one by one."""
        infos: list[ValueInfo] = []
        for info in self.infos.values():
            infos.extend(info if isinstance(info, tuple) else (info,))
        return [info for info in infos if info.batch is not None]

    def require_supported(self) -> None:
        """Raise UnsupportedModelError that names every operation without a rule."""
        if self.refusals:
            lines = "\n  ".join(refusal.sentence() for refusal in self.refusals)
            raise UnsupportedModelError(
                f"{len(self.refusals)} operation(s) of this model have no exact DeepLIFT rule:\n  {lines}"
            )


@dataclass
class _Analysis:
    captured: CapturedGraph
    symbol: Any = None
    infos: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: list[fx.Node] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def lower(captured: CapturedGraph) -> Program:
    """Program of a captured graph; operations that the output does not need are left out."""
    analysis = _Analysis(captured, symbol=_batch_symbol(captured.sequences))
    needed = _needed(captured.output)
    analysis.infos[captured.sequences.name] = _info(captured.sequences, None, analysis)
    for node in captured.graph.nodes:
        if node not in needed or node.op != "call_function":
            continue
        if any(parent.name in analysis.infos for parent in node.all_input_nodes) and _is_value(node):
            _add_step(node, analysis)
        else:
            analysis.constants.append(node)
            _refuse_random(node, analysis)
    if captured.output.name not in analysis.infos and not analysis.refusals:
        raise UnsupportedModelError(
            "The target does not depend on the sequence, so there is nothing to explain."
        )
    return Program(
        tuple(analysis.steps),
        tuple(analysis.constants),
        captured.constants,
        analysis.infos,
        captured.sequences.name,
        captured.output.name,
        analysis.symbol,
        tuple(analysis.refusals),
        tuple(analysis.notes),
    )


def _needed(output: fx.Node) -> set[fx.Node]:
    needed, queue = {output}, [output]
    while queue:
        for parent in queue.pop().all_input_nodes:
            if parent not in needed:
                needed.add(parent)
                queue.append(parent)
    return needed


def _is_value(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, (Tensor, tuple, list))


def _batch_symbol(sequences: fx.Node) -> Any:
    size = sequences.meta["val"].shape[0]
    if isinstance(size, int):
        raise UnsupportedModelError(
            "The model fixes the batch size; use x.shape[0] in its forward instead of a number."
        )
    return size.node.expr


def _add_step(node: fx.Node, analysis: _Analysis) -> None:
    args, kwargs = _arguments(node.args, analysis), _arguments(node.kwargs, analysis)
    inputs = tuple(dict.fromkeys(ref for ref in refs_in((args, kwargs)) if ref.name in analysis.infos))
    source = source_of(node, analysis.captured.root)
    try:
        info = _info(node, [analysis.infos[ref.name] for ref in inputs], analysis)
    except _LostBatchError as lost:
        _refuse(node, str(lost), source, analysis)
        info = ValueInfo((1,), BatchAxis())
    analysis.infos[node.name] = info
    infos = tuple(_first(analysis.infos[ref.name]) for ref in inputs)
    call = Call(node.name, node.target, args, kwargs, inputs, infos, info, source)
    rule = _rule(call, analysis)
    if rule is not None:
        analysis.steps.append(Step(call, rule))


def _rule(call: Call, analysis: _Analysis) -> Rule | None:
    if call.op is operator.getitem:
        return GET_ITEM
    if str(call.op) == "aten.dropout.default":
        if call.args[2]:
            analysis.notes.append(f"functional dropout at {call.source.line} is switched off")
        return RULES[torch.ops.aten.alias.default]
    rule = RULES.get(call.op)
    reason = "no exact DeepLIFT rule exists for it in dlgenome" if rule is None else rule.refusal(call)
    if reason is None:
        return rule
    _refuse(call, reason, call.source, analysis)
    return None


def _refuse(node: Any, reason: str, source: Source, analysis: _Analysis) -> None:
    operation = node.op if isinstance(node, Call) else node.target
    refusal = Refusal(str(operation), reason, source)
    if not any(r.source == source and r.operation == refusal.operation for r in analysis.refusals):
        analysis.refusals.append(refusal)


def _refuse_random(node: fx.Node, analysis: _Analysis) -> None:
    name = str(node.target).split(".")
    if len(name) > 1 and name[1].removesuffix("_like") in RANDOM:
        _refuse(
            node,
            "it draws random numbers at prediction time",
            source_of(node, analysis.captured.root),
            analysis,
        )


def _arguments(argument: Any, analysis: _Analysis) -> Any:
    if isinstance(argument, fx.Node):
        return Ref(argument.name)
    if isinstance(argument, (list, tuple)):
        return type(argument)(_arguments(part, analysis) for part in argument)
    if isinstance(argument, dict):
        return {key: _arguments(part, analysis) for key, part in argument.items()}
    return argument


class _LostBatchError(Exception):
    """A sequence-dependent value in which the rows of the batch are mixed."""


def _info(node: fx.Node, parents: list[Any] | None, analysis: _Analysis) -> Any:
    value = node.meta["val"]
    if isinstance(value, (tuple, list)):
        return tuple(_value_info(v, node, parents, analysis) for v in value if isinstance(v, Tensor))
    return _value_info(value, node, parents, analysis)


def _first(info: ValueInfo | tuple[ValueInfo, ...]) -> ValueInfo:
    return info[0] if isinstance(info, tuple) else info


def _value_info(value: Tensor, node: fx.Node, parents: list[Any] | None, analysis: _Analysis) -> ValueInfo:
    """Shape with the batch axis found from the symbolic sizes; its layout inside that axis is inherited."""
    if value.numel() == 0 and not any(isinstance(size, torch.SymInt) for size in value.shape):
        return ValueInfo(tuple(value.shape), None)
    growing = [axis for axis, size in enumerate(value.shape) if isinstance(size, torch.SymInt)]
    if len(growing) != 1:
        raise _LostBatchError(
            "it mixes the rows of the batch, so one sequence's score would depend on its neighbours"
        )
    axis = growing[0]
    size: Any = value.shape[axis]
    multiple = size.node.expr / analysis.symbol
    if not multiple.is_integer:
        raise _LostBatchError(
            f"it makes an axis of size {value.shape[axis]}, which is no multiple of the batch"
        )
    dims = tuple(int(multiple) if a == axis else int(size) for a, size in enumerate(value.shape))
    return ValueInfo(dims, _batch_axis(axis, dims, node, parents))


VIEWS = ("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default")


def _batch_axis(axis: int, dims: tuple[int, ...], node: fx.Node, parents: list[Any] | None) -> BatchAxis:
    if dims[axis] == 1:
        return BatchAxis(axis)
    parent = next((info for info in map(_first, parents or []) if info.batch is not None), None)
    if parent is None or parent.batch is None:
        raise _LostBatchError("the place of the batch cannot be followed through it")
    if str(node.target) in VIEWS:
        before = math.prod(parent.dims[: parent.batch.axis]) * parent.batch.outer
        outer, rest = divmod(before, math.prod(dims[:axis]))
        if rest or dims[axis] % max(outer, 1):
            raise _LostBatchError("it reshapes across the batch")
        return BatchAxis(axis, outer, dims[axis] // outer)
    if parent.dims[parent.batch.axis] != dims[axis]:
        raise _LostBatchError("the place of the batch cannot be followed through it")
    return BatchAxis(axis, parent.batch.outer, parent.batch.inner)
