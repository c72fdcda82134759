"""The same program with operations put together that are faster as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from operator import getitem

from torch import Tensor

from dlgenome.attribution.cropping import cropped
from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.precise import precise_steps
from dlgenome.attribution.rules.base import Ref, Rule, aten
from dlgenome.attribution.rules.batch_norm import BatchNorm, batch_norm_factor
from dlgenome.attribution.rules.convolution import AnyConvolution, Convolution, SamePadding
from dlgenome.attribution.rules.dense import Dense
from dlgenome.attribution.rules.elementwise import Relu
from dlgenome.attribution.rules.linear import Add
from dlgenome.attribution.rules.pooling import POOL, PooledRelu
from dlgenome.attribution.rules.residual import RESIDUAL_RELU
from dlgenome.attribution.towers import with_towers

_WEIGHTED = (Convolution, SamePadding, AnyConvolution, Dense)
"""Rules of operations with weights (outputs, ...) and a bias as their second and third arguments."""


def put_together(program: Program) -> Program:
    """The program with fewer passes over memory; the same but for rounding.

    A batch normalisation of what a convolution or a dense layer makes becomes part of their weights, and
    ``a + relu(b)`` and maxima over windows of ``relu(a)`` one operation each, wherever nothing else reads
    what lies between. Not among the last operations, which are few numbers in float64. Positions that the
    output does not depend on are cut off, and towers of residual layers become one operation each.
    """
    own = _with_relus_inside(_with_normalised_weights(program))
    return with_towers(cropped(own))


def _with_normalised_weights(program: Program) -> Program:
    precise, makers, readers = precise_steps(program), _makers(program), program.readers()
    steps, gone, parameters = list[Step](), set[str](), dict(program.parameters)
    for step in program.steps:
        norm = _alone(step, makers, readers, BatchNorm) if step.call.op is getitem else None
        weighted = None if norm is None else _alone(norm, makers, readers, *_WEIGHTED)
        folded = None
        if norm is not None and weighted is not None and weighted.call.name not in precise:
            folded = _folded(weighted, norm, parameters)
        if norm is None or weighted is None or folded is None:
            steps.append(step)
            continue
        names = [f"{step.call.name}/{part}" for part in ("weight", "bias")]
        parameters.update(zip(names, folded, strict=True))
        args = (weighted.call.args[0], *map(Ref, names), *weighted.call.args[3:])
        call = replace(weighted.call, name=step.call.name, args=args, info=step.call.info)
        steps.append(Step(call, weighted.rule))
        gone |= {norm.call.name, weighted.call.name}
    return _without(replace(program, steps=tuple(steps), parameters=parameters), gone)


def _alone(step: Step, makers: Mapping[str, Step], readers: Counter[str], *rules: type[Rule]) -> Step | None:
    """What makes the first argument of a step, where it has one of these rules and no other reader."""
    first = step.call.args[0]
    made = makers.get(first.name) if isinstance(first, Ref) else None
    return made if made is not None and type(made.rule) in rules and readers[first.name] == 1 else None


def _folded(weighted: Step, norm: Step, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Weights and bias that normalise what they make; None where they are no parameters of the model."""
    args = weighted.call.args
    channels_last = type(weighted.rule) is Dense and len(weighted.call.output.dims) != 2
    transposed = type(weighted.rule) is AnyConvolution and args[6]
    if weighted.call.kwargs or channels_last or transposed:
        return None
    named = [args[1], args[2] if len(args) > 2 else None, *norm.call.args[1:5]]
    if any(one is not None and getattr(one, "name", None) not in parameters for one in named):
        return None
    weight, bias, scale, shift, mean, variance = (
        None if one is None else parameters[one.name].double() for one in named
    )
    if weight is None or mean is None or variance is None:
        return None
    factor = batch_norm_factor(scale, variance, norm.call.args[6])
    moved = ((0 if bias is None else bias) - mean) * factor + (0 if shift is None else shift)
    kind = parameters[args[1].name].dtype
    return (weight * factor.view(-1, *[1] * (weight.dim() - 1))).to(kind), moved.to(kind)


def _makers(program: Program) -> dict[str, Step]:
    return {step.call.name: step for step in program.steps}


def _without(program: Program, gone: set[str]) -> Program:
    """The program without operations that nothing reads any more."""
    infos = {name: info for name, info in program.infos.items() if name not in gone}
    return replace(program, steps=tuple(s for s in program.steps if s.call.name not in gone), infos=infos)


def _with_relus_inside(program: Program) -> Program:
    precise, makers, readers = precise_steps(program), _makers(program), program.readers()
    steps: list[Step] = []
    gone: set[str] = set()
    for step in program.steps:
        made, relu = step, None
        if step.call.name in precise:
            pass
        elif (relu := _added_relu(step, makers, readers)) is not None:
            made = _residual(step, relu)
        elif (relu := _pooled_relu(step, makers, readers)) is not None:
            made = _pool(step, relu)
        steps.append(made)
        if relu is not None:
            gone.add(relu.call.name)
    return _without(replace(program, steps=tuple(steps)), gone)


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


def _pooled_relu(step: Step, makers: Mapping[str, Step], readers: Counter[str]) -> Step | None:
    """The ReLU of what is pooled over positions, or None."""
    if step.rule is not POOL or step.call.op is not aten.max_pool1d.default:
        return None
    return _alone(step, makers, readers, Relu)


def _pool(step: Step, relu: Step) -> Step:
    pool, below = step.call, relu.call
    args = (below.args[0], *pool.args[1:])
    call = replace(pool, op="max_pool1d(relu)", args=args, inputs=below.inputs, input_infos=below.input_infos)
    return Step(call, PooledRelu(below, pool))
