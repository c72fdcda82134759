"""What a rule is: an operation's forward pass, and how multipliers go back through it.

Notation: ``f(x)`` is a value of the sequence and ``f(r)`` the same value of the reference, ``x - r`` their
difference. A multiplier m of an input says how much of the output difference each unit of input difference
carries; a rule is exact when ``sum m (x - r)`` over its inputs equals the multiplied output difference
(DeepLIFT, Shrikumar et al. 2017, arXiv 1704.02685, section 3.1, summation to delta).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlgenome.attribution.layout import BatchAxis, StepShape, ValueInfo


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that another node of the graph produces."""

    name: str


@dataclass(frozen=True)
class Source:
    """Where in the user's model an operation comes from."""

    module: str
    """Dotted path of the module, empty at the top."""
    line: str
    """``file.py, line 12``, empty where the capture recorded none."""


@dataclass(frozen=True)
class Call:
    """One operation of the captured graph with everything known about it before any data moves."""

    name: str
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Ref, ...]
    """The inputs that depend on the sequence, in order of appearance."""
    input_infos: tuple[ValueInfo, ...]
    info: ValueInfo | tuple[ValueInfo, ...]
    source: Source

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """Argument by position or keyword, as it stands in the graph."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(keyword, default)

    def depends(self, argument: Any) -> bool:
        """Whether an argument depends on the sequence."""
        return isinstance(argument, Ref) and argument in self.inputs

    @property
    def output(self) -> ValueInfo:
        """The value this operation produces (the first of several)."""
        return self.info[0] if isinstance(self.info, tuple) else self.info

    def input_batch(self, index: int) -> BatchAxis:
        """Where the batch is in a sequence-dependent input."""
        batch = self.input_infos[index].batch
        assert batch is not None, "a sequence-dependent value always has a batch axis"
        return batch

    @property
    def batch(self) -> BatchAxis:
        """Where the batch is in the output."""
        assert self.output.batch is not None, "a sequence-dependent value always has a batch axis"
        return self.output.batch


@dataclass(frozen=True)
class Backward:
    """What a rule may look at on the way back."""

    step: StepShape
    sequences: tuple[Tensor, ...]
    """Forward values of the sequences, as :attr:`Rule.keeps` asked for."""
    references: tuple[Tensor, ...]
    """The same of the references."""
    args: tuple[Any, ...]
    """Arguments with constants filled in for the pair rows; sequence-dependent ones stay Refs."""
    kwargs: dict[str, Any]
    spare: bool = False
    """Whether :attr:`references` may be written over: nothing reads them any more."""

    def sequence(self, index: int, batch: BatchAxis) -> Tensor:
        """Kept value of the sequences, with an axis of size 1 where the references are."""
        return self.step.sequence_part(self.sequences[index], batch)

    def reference(self, index: int, batch: BatchAxis) -> Tensor:
        """Kept value of the references."""
        return self.step.pair_part(self.references[index], batch)


@dataclass(frozen=True)
class Kept:
    """Forward values by name that rules may look at on the way back."""

    sequences: Mapping[str, Any]
    references: Mapping[str, Any]

    def saved(
        self,
        step: StepShape,
        refs: Sequence[Ref],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        spare: bool = False,
    ) -> Backward:
        """Those of these names, for one rule."""
        x, r = (tuple(kept[ref.name] for ref in refs) for kept in (self.sequences, self.references))
        return Backward(step, x, r, args, kwargs, spare)


Multipliers = Sequence[Tensor | None]


class Rule:
    """How one family of operations is run and how multipliers pass back through it."""

    title: ClassVar[str] = ""
    """What `dlgenome inspect` shows."""
    keeps: ClassVar[str] = "nothing"
    """Forward values that :meth:`backward` needs: "nothing" or "inputs"."""
    fresh: ClassVar[bool] = False
    """Whether :meth:`backward` returns dense tensors that nothing else holds and that may be added to.

    The multiplier that it was given may be among them; it is added to only where nothing holds that, either.
    """
    owns_output: ClassVar[bool] = False
    """Whether :meth:`forward` returns memory of its own, in which no input lies."""
    steady: ClassVar[bool] = False
    """Whether it calls no function, such as exp, that may give other bits at another place in memory."""
    linear: ClassVar[bool] = False
    """Whether the multiplier does not depend on the values: true of every linear operation."""
    gradient_may_stand_in: ClassVar[bool] = False
    """Whether a refused call may get its gradient instead: true where a refusal never concerns the batch."""

    def refusal(self, call: Call) -> str | None:
        """Why this particular call has no exact rule, or None."""
        return None

    def bound(self, call: Call, args: tuple[Any, ...]) -> Rule:
        """This rule for one call, with what depends on constants alone worked out; by default itself.

        ``args`` have constants filled in; those that depend on the sequence stay Refs.
        """
        return self

    def kept(self, call: Call) -> tuple[Ref, ...]:
        """The inputs whose forward values :meth:`backward` needs; by default as :attr:`keeps` says."""
        return call.inputs if self.keeps == "inputs" else ()

    def forward(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Output for all rows; by default the operation itself."""
        return call.op(*args, **kwargs)

    def forward_over(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As :meth:`forward`, where the memory of the first input may be used for the output."""
        return self.forward(call, args, kwargs)

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multipliers of ``call.inputs``, on the pair rows; ``multiplier`` is that of the output."""
        raise NotImplementedError(type(self).__name__)

    def backward_onto(self, call: Call, multiplier: Any, saved: Backward, total: Tensor) -> bool:
        """Add the multiplier of the only input to ``total``, in its place; False where that is not done."""
        return False


def unbroadcast(multiplier: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Multiplier summed over the axes along which a value of ``shape`` was broadcast."""
    if tuple(multiplier.shape) == shape:
        return multiplier
    extra = multiplier.dim() - len(shape)
    axes = [
        axis
        for axis in range(multiplier.dim())
        if axis < extra or (shape[axis - extra] == 1 and multiplier.shape[axis] != 1)
    ]
    return multiplier.sum(axes, keepdim=True).reshape(shape) if axes else multiplier.reshape(shape)


def refs_in(arguments: Any) -> Iterator[Ref]:
    """Every Ref in a nested structure of arguments, in order."""
    if isinstance(arguments, Ref):
        yield arguments
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from refs_in(argument)
    elif isinstance(arguments, dict):
        yield from refs_in(list(arguments.values()))


def fill(arguments: Any, values: dict[str, Any]) -> Any:
    """Arguments with every Ref that ``values`` knows replaced by its value."""
    if isinstance(arguments, Ref):
        return values.get(arguments.name, arguments)
    if isinstance(arguments, (list, tuple)):
        return type(arguments)(fill(argument, values) for argument in arguments)
    if isinstance(arguments, dict):
        return {key: fill(argument, values) for key, argument in arguments.items()}
    return arguments


def same_axis(axis: int, other: int, dimensions: int) -> bool:
    """Whether two axis numbers, one of them perhaps negative, name the same axis."""
    return axis % max(dimensions, 1) == other % max(dimensions, 1)


aten = torch.ops.aten
