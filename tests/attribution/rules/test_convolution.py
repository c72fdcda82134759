"""Convolution rules against loops over output positions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.rules import convolution
from dlgenome.attribution.rules.base import Call, Ref, Source, aten


@dataclass(frozen=True)
class Case:
    """A convolution: sizes of the input, kernel and groups, and its geometry axis by axis."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = True
    outputs: int = 4

    @property
    def op(self) -> Any:
        named = isinstance(self.padding, str)
        if len(self.size) == 1:
            return aten.conv1d.padding if named else aten.conv1d.default
        return aten.conv2d.padding if named else aten.conv2d.default


CASES = [
    Case((9,), (3,), (1,), (0,), (1,)),
    Case((9,), (3,), (1,), (1,), (1,), bias=False),
    Case((9,), (4,), (1,), (2,), (1,)),
    Case((9,), (1,), (1,), (0,), (1,)),
    Case((12,), (3,), (1,), (4,), (4,)),
    Case((6,), (3,), (1,), (8,), (4,)),
    Case((6,), (2,), (1,), (3,), (1,)),
    Case((6,), (3,), (1,), (5,), (2,), groups=2),
    Case((10,), (3,), (2,), (1,), (1,)),
    Case((11,), (3,), (3,), (0,), (1,)),
    Case((11,), (2,), (3,), (3,), (2,)),
    Case((11,), (3,), (2,), (2,), (2,), groups=2),
    Case((8,), (3,), (1,), (1,), (1,), groups=4),
    Case((3,), (9,), (1,), (5,), (1,)),
    Case((9,), (3,), (1,), "same", (1,)),
    Case((9,), (4,), (1,), "same", (1,)),
    Case((9,), (2,), (1,), "same", (3,), groups=2),
    Case((9,), (4,), (1,), "same", (3,), bias=False),
    Case((9,), (4,), (2,), "valid", (1,)),
    Case((9,), (1,), (1,), "same", (1,)),
    Case((5, 6), (3, 2), (1, 1), (1, 0), (1, 1)),
    Case((5, 6), (2, 3), (2, 1), (0, 2), (1, 2), groups=2),
    Case((5, 6), (2, 2), (1, 1), (3, 0), (1, 1)),
    Case((4, 5), (4, 3), (1, 1), "same", (1, 1)),
    Case((4, 5), (2, 3), (1, 1), "same", (2, 1), groups=4, bias=False),
    Case((5, 5), (2, 3), (2, 1), "valid", (1, 2)),
    Case((20,), (17,), (1,), (3,), (1,), outputs=1),
    Case((18,), (18,), (1,), (0,), (1,), bias=False, outputs=2),
    Case((12,), (20,), (1,), "same", (1,), outputs=1),
    Case((12,), (16,), (1,), (20,), (1,), outputs=2),
    Case((19,), (17,), (2,), (0,), (1,), outputs=1),
    Case((34,), (17,), (1,), (0,), (2,), outputs=1),
    Case((17, 3), (17, 2), (1, 1), (0, 1), (1, 1), outputs=1),
    Case((2, 17), (1, 16), (1, 1), (0, 1), (1, 1), outputs=1),
    Case((2, 17), (1, 16), (1, 1), (1, 1), (1, 1), outputs=1),
]


def convolve(value: Any, weight: Any, bias: Any, case: Case) -> Any:
    """Convolution as a sum over channels and kernel positions for every output number."""
    axes, reach = len(case.size), [d * (k - 1) for d, k in zip(case.dilation, case.kernel, strict=True)]
    if case.padding == "same":
        sides = [(r // 2, r - r // 2) for r in reach]
    else:
        sides = [(0, 0)] * axes if isinstance(case.padding, str) else [(p, p) for p in case.padding]
    padded = np.pad(value, [(0, 0), (0, 0), *sides])
    sizes = [(padded.shape[2 + a] - reach[a] - 1) // case.stride[a] + 1 for a in range(axes)]
    out = np.zeros((value.shape[0], len(weight), *sizes))
    outputs_per_group, inputs_per_group = len(weight) // case.groups, weight.shape[1]
    for channel, *place in np.ndindex(out.shape[1:]):
        start = channel // outputs_per_group * inputs_per_group
        sources = range(start, start + inputs_per_group)
        for offset in itertools.product(*map(range, case.kernel)):
            at = [p * s + o * d for p, s, o, d in zip(place, case.stride, offset, case.dilation, strict=True)]
            out[:, channel, *place] += padded[:, sources, *at] @ weight[channel, :, *offset]
        out[:, channel, *place] += 0 if bias is None else bias[channel]
    return out


GENERAL = {aten.convolution.default: (), aten._convolution.default: (False, False, True, True)}
"""The general operations, and what the second takes for the processor after the arguments of both."""


@pytest.mark.parametrize("operation", list(convolution.RULES), ids=str)
def test_every_convolution_has_a_case(operation: Any) -> None:
    assert operation in {case.op for case in CASES} | {*GENERAL}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution_rule_equals_the_transposed_matrix(case: Case, bench: Any) -> None:
    generator = np.random.default_rng(4)
    weight = generator.normal(size=(case.outputs, 4 // case.groups, *case.kernel))
    bias = generator.normal(size=case.outputs) if case.bias else None
    tensors = [None if w is None else torch.from_numpy(w) for w in (weight, bias)]
    padding = case.padding if isinstance(case.padding, str) else list(case.padding)
    rest = (*tensors, list(case.stride), padding, list(case.dilation), case.groups)
    run = bench.run(case.op, [bench.draw(1, 4, *case.size)], lambda refs, rows: (refs[0], *rest))
    bench.check_linear(run, lambda value: convolve(value, weight, bias, case))


@pytest.mark.parametrize("operation", [aten.conv1d.default, aten.conv1d.padding], ids=str)
def test_convolution_with_arguments_left_out_uses_the_defaults(operation: Any, bench: Any) -> None:
    weight = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 3, 4)))
    case = Case((7,), (4,), (1,), (0,), (1,))
    run = bench.run(operation, [bench.draw(1, 3, 7)], lambda refs, rows: (refs[0], weight))
    bench.check_linear(run, lambda value: convolve(value, weight.numpy(), None, case))


@pytest.mark.parametrize("operation", list(convolution.RULES), ids=str)
def test_weights_that_depend_on_the_sequence_are_refused(operation: Any) -> None:
    value, weight = Ref("x"), Ref("w")
    infos = (ValueInfo((1, 4, 9), BatchAxis()), ValueInfo((1, 4, 3), BatchAxis()))
    call = Call("y", operation, (value, weight), {}, (value, weight), infos, infos[0], Source("", ""))
    assert convolution.RULES[operation].refusal(call) == "its weights depend on the sequence"


@pytest.mark.parametrize("operation", GENERAL, ids=str)
@pytest.mark.parametrize("case", [CASES[4], CASES[8], CASES[11], CASES[21]], ids=str)
def test_general_convolution_equals_the_transposed_matrix(operation: Any, case: Case, bench: Any) -> None:
    generator = np.random.default_rng(4)
    weight, bias = generator.normal(size=(4, 4 // case.groups, *case.kernel)), generator.normal(size=4)
    geometry = (list(case.stride), list(case.padding), list(case.dilation), False, [0] * len(case.size))
    rest = (torch.from_numpy(weight), torch.from_numpy(bias), *geometry, case.groups, *GENERAL[operation])
    run = bench.run(operation, [bench.draw(1, 4, *case.size)], lambda refs, rows: (refs[0], *rest))
    bench.check_linear(run, lambda value: convolve(value, weight, bias, case))


@pytest.mark.parametrize("operation", GENERAL, ids=str)
def test_transposed_convolution_equals_the_transposed_matrix(operation: Any, bench: Any) -> None:
    """Each input number adds the kernel, times itself, to the output at stride times its place."""
    weight = np.random.default_rng(8).normal(size=(3, 2, 4))

    def definition(value: Any) -> Any:
        out = np.zeros((1, 2, (value.shape[2] - 1) * 2 + 4 + 1))
        for source, channel, place, offset in itertools.product(range(3), range(2), range(5), range(4)):
            out[0, channel, 2 * place + offset] += value[0, source, place] * weight[source, channel, offset]
        return out[:, :, 1:-1]

    rest = (torch.from_numpy(weight), None, [2], [1], [1], True, [1], 1, *GENERAL[operation])
    run = bench.run(operation, [bench.draw(1, 3, 5)], lambda refs, rows: (refs[0], *rest))
    bench.check_linear(run, definition)


def test_convolution_over_three_axes_is_linear(bench: Any) -> None:
    weight = np.random.default_rng(9).normal(size=(2, 2, 2, 2, 2))
    case = Case((3, 2, 3), (2, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    rest = (torch.from_numpy(weight), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1)
    run = bench.run(
        aten.convolution.default, [bench.draw(1, 2, 3, 2, 3)], lambda refs, rows: (refs[0], *rest)
    )
    bench.check_linear(run, lambda value: convolve(value, weight, None, case))
