"""From captured graph to program: what is constant, where the batch is, which rule each operation gets.

Everything here happens before any data moves; the findings are what `dlgenome inspect` prints, and
operations without an exact rule are refused here.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from dlgenome.attribution.advice import instead_of, operation_name
from dlgenome.attribution.capture import CapturedGraph, source_of
from dlgenome.attribution.fusion import Roots, is_number, is_pointwise
from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Call, Ref, Rule, Source, refs_in
from dlgenome.attribution.rules.gradient import GRADIENT, HELD
from dlgenome.attribution.tracking import (
    LostBatchError,
    batch_symbol,
    first_info,
    runs_along_batch,
    value_info,
)
from dlgenome.errors import UnsupportedModelError


class GetItem(Rule):
    """Picks one of several outputs."""

    title = "identity"

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output asked for."""
        return args[0][args[1]]


GET_ITEM = GetItem()
BRANCHES = (
    "it branches on a value of the sequence that is not the one it changes; write it with relu, clamp, "
    "maximum or a product"
)

_NO_HELP = "--no-strict cannot help, for it has no gradient, or none that keeps the rows of the batch apart"


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
    approximations: tuple[Refusal, ...] = ()
    """Operations that got their gradient instead of an exact rule."""
    notes: tuple[str, ...] = ()

    def single_infos(self) -> list[ValueInfo]:
        """Shapes of all values that depend on the sequence, several outputs one by one."""
        infos: list[ValueInfo] = []
        for info in self.infos.values():
            infos.extend(info if isinstance(info, tuple) else (info,))
        return [info for info in infos if info.batch is not None]

    def readers(self) -> Counter[str]:
        """How many operations read each value; the output is read once more."""
        found = Counter(ref.name for step in self.steps for ref in step.call.inputs)
        found[self.output] += 1
        return found

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
    symbol: Any
    rules: Mapping[Any, Rule]
    strict: bool
    infos: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    constants: list[fx.Node] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    approximations: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    roots: Roots = field(default_factory=Roots)
    pending: dict[str, str] = field(default_factory=dict)
    """Values that only a fused operation, or a gradient in a rule's place, may read, and why."""


def lower(captured: CapturedGraph, rules: Mapping[Any, Rule] = RULES, *, strict: bool = True) -> Program:
    """Program of a captured graph; operations that the output does not need are left out.

    An operation without an exact rule is refused; with ``strict`` off it gets its gradient where it has one.
    """
    analysis = _Analysis(captured, batch_symbol(captured), rules, strict)
    needed = _needed(captured.output)
    analysis.infos[captured.sequences.name] = value_info(captured.sequences, [], analysis.symbol)
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
    return _program(analysis)


def _program(analysis: _Analysis) -> Program:
    captured = analysis.captured
    steps = _reachable(analysis.steps, captured.output.name)
    kept = {captured.sequences.name, *(step.call.name for step in steps)}
    return Program(
        steps,
        tuple(analysis.constants),
        captured.constants,
        {name: info for name, info in analysis.infos.items() if name in kept},
        captured.sequences.name,
        captured.output.name,
        analysis.symbol,
        tuple(analysis.refusals),
        tuple(analysis.approximations),
        (*captured.notes, *analysis.notes),
    )


def _reachable(steps: list[Step], output: str) -> tuple[Step, ...]:
    """Steps that the output needs; fusing leaves some that nothing reads."""
    needed, kept = {output}, []
    for step in reversed(steps):
        if step.call.name in needed:
            needed.update(ref.name for ref in step.call.inputs)
            kept.append(step)
    return tuple(reversed(kept))


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


def _add_step(node: fx.Node, analysis: _Analysis) -> None:
    call = _call(node, analysis)
    if call is None:
        return
    analysis.roots.add(call)
    rule = _own_rule(call, analysis)
    reason = _reason(call, rule, analysis)
    if reason is None:
        assert rule is not None
        analysis.steps.append(Step(call, rule))
    elif analysis.roots.of(call.name) != call.name:
        _fuse_or_wait(node, call, reason, analysis)
    elif analysis.strict:
        _refuse(call, reason, call.source, analysis.refusals)
    else:
        _approximate(node, call, rule, reason, analysis)


def _call(node: fx.Node, analysis: _Analysis) -> Call | None:
    """The operation with shapes and batch axes; None, and a refusal, where the batch is lost."""
    args, kwargs = _arguments(node.args, analysis), _arguments(node.kwargs, analysis)
    inputs = tuple(dict.fromkeys(ref for ref in refs_in((args, kwargs)) if ref.name in analysis.infos))
    source = source_of(node, analysis.captured.root)
    try:
        info = value_info(node, [analysis.infos[ref.name] for ref in inputs], analysis.symbol)
    except LostBatchError as lost:
        _refuse(node, str(lost), source, analysis.refusals)
        analysis.infos[node.name] = ValueInfo((1,), BatchAxis())
        return None
    analysis.infos[node.name] = info
    infos = tuple(first_info(analysis.infos[ref.name]) for ref in inputs)
    return Call(node.name, node.target, args, kwargs, inputs, infos, info, source)


def _own_rule(call: Call, analysis: _Analysis) -> Rule | None:
    if call.op is operator.getitem:
        return GET_ITEM
    if str(call.op) == "aten.dropout.default":
        if call.args[2]:
            analysis.notes.append(f"functional dropout at {call.source.line} is switched off")
        return RULES[torch.ops.aten.alias.default]
    return analysis.rules.get(call.op)


def _reason(call: Call, rule: Rule | None, analysis: _Analysis) -> str | None:
    """Why the operation cannot be explained by a rule of its own, or None."""
    waiting = next((analysis.pending[ref.name] for ref in call.inputs if ref.name in analysis.pending), None)
    if waiting is not None:
        return waiting
    if rule is None:
        return f"no exact DeepLIFT rule exists for it in dlgenome; {instead_of(operation_name(call.op))}"
    return rule.refusal(call)


def _fuse_or_wait(node: fx.Node, call: Call, reason: str, analysis: _Analysis) -> None:
    """A function of one value gets one secant; a comparison waits for the operation that reads it."""
    if not is_number(node):
        _hold(call, analysis)
        return
    root = first_info(analysis.infos[analysis.roots.of(call.name)])
    analysis.steps.append(Step(*analysis.roots.fuse(call, root)))


def _hold(call: Call, analysis: _Analysis) -> None:
    """A yes-or-no value waits for what reads it; where gradients stand in, that may be anything."""
    analysis.pending[call.name] = BRANCHES
    if not analysis.strict:
        analysis.steps.append(Step(call, HELD))


def _approximate(node: fx.Node, call: Call, rule: Rule | None, reason: str, analysis: _Analysis) -> None:
    """The gradient in the place of a rule, or a refusal that says why it cannot be."""
    exact_but_for_inputs = rule is not None and rule.refusal(call) is None
    apart = exact_but_for_inputs or (
        not runs_along_batch(call) if rule is None else rule.gradient_may_stand_in
    )
    if is_number(node) and apart:
        _refuse(call, reason, call.source, analysis.approximations)
        analysis.steps.append(Step(call, GRADIENT))
    elif not is_number(node) and (is_pointwise(call) or exact_but_for_inputs):
        _hold(call, analysis)
    else:
        _refuse(call, f"{reason}; {_NO_HELP}", call.source, analysis.refusals)


def _refuse(node: Any, reason: str, source: Source, found: list[Refusal]) -> None:
    operation = node.op if isinstance(node, Call) else node.target
    refusal = Refusal(operation_name(operation), reason, source)
    if not any(other.source == source and other.operation == refusal.operation for other in found):
        found.append(refusal)


def _refuse_random(node: fx.Node, analysis: _Analysis) -> None:
    if _is_random(node):
        source = source_of(node, analysis.captured.root)
        _refuse(node, "it draws random numbers at prediction time", source, analysis.refusals)


def _is_random(node: fx.Node) -> bool:
    """Whether torch says that an operation draws numbers; dropout does where it is switched on."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    drawn = torch.Tag.nondeterministic_seeded in node.target.tags
    return drawn and ("dropout" not in str(node.target) or bool(node.args[2]))


def _arguments(argument: Any, analysis: _Analysis) -> Any:
    if isinstance(argument, fx.Node):
        return Ref(argument.name)
    if isinstance(argument, (list, tuple)):
        return type(argument)(_arguments(part, analysis) for part in argument)
    if isinstance(argument, dict):
        return {key: _arguments(part, analysis) for key, part in argument.items()}
    return argument
