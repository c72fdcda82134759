"""The same program with operations put together that are faster as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.precise import precise_steps
from dlgenome.attribution.rules.base import Ref
from dlgenome.attribution.rules.elementwise import Relu
from dlgenome.attribution.rules.linear import Add
from dlgenome.attribution.rules.residual import RESIDUAL_RELU


def put_together(program: Program) -> Program:
    """The program with ``a + relu(b)`` as one operation wherever nothing else reads the ReLU.

    Not among the last operations, which are few numbers in float64.
    """
    precise = precise_steps(program)
    makers = {step.call.name: step for step in program.steps}
    readers = Counter(ref.name for step in program.steps for ref in step.call.inputs)
    readers[program.output] += 1
    steps: list[Step] = []
    gone: set[str] = set()
    for step in program.steps:
        relu = None if step.call.name in precise else _added_relu(step, makers, readers)
        steps.append(step if relu is None else _residual(step, relu))
        if relu is not None:
            gone.add(relu.call.name)
    infos = {name: info for name, info in program.infos.items() if name not in gone}
    return replace(program, steps=tuple(s for s in steps if s.call.name not in gone), infos=infos)


def _added_relu(step: Step, makers: dict[str, Step], readers: Counter[str]) -> Step | None:
    """The ReLU that the operation adds to another value of the same shape, or None."""
    call, rule = step.call, step.rule
    plain = type(rule) is Add and rule.sign == 1 and call.kwargs.get("alpha", 1) == 1
    if not plain or len(call.inputs) != 2 or len({*call.input_infos, call.output}) != 1:
        return None
    for term, other in zip(call.inputs, reversed(call.inputs), strict=True):
        made = makers.get(term.name)
        if made is not None and type(made.rule) is Relu and readers[term.name] == 1:
            return made if made.call.inputs != (other,) else None
    return None


def _residual(step: Step, relu: Step) -> Step:
    call = step.call
    (other,) = (ref for ref in call.inputs if ref.name != relu.call.name)
    inputs: tuple[Ref, Ref] = (other, relu.call.inputs[0])
    infos = (call.output, relu.call.input_infos[0])
    fused = replace(call, op="add(relu)", args=inputs, kwargs={}, inputs=inputs, input_infos=infos)
    return Step(fused, RESIDUAL_RELU)
