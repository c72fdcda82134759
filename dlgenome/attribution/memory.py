"""Which values of a program are kept for the way back, which are done with, and which may be written over.

A value may be written over where nothing reads it any more and no other value lies in its memory: a view
would change with it. Memory that was just used is still in the cache, new memory is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from dlgenome.attribution.lowering import Program, Step
from dlgenome.attribution.rules.base import Ref


@dataclass(frozen=True)
class MemoryPlan:
    """Values and operations by their names."""

    kept: frozenset[str]
    """Values that some rule needs on the way back."""
    done: dict[int, list[str]]
    """For each operation, by its number, the values that no later one reads."""
    over: frozenset[str]
    """Operations that may put their output where their first input is."""
    spare: frozenset[str]
    """Operations that are the last, on the way back, to read the one value that they kept."""


def plan_memory(program: Program, *, keep_all: bool = False) -> MemoryPlan:
    """The plan of a program; with ``keep_all`` every value is kept, and none written over."""
    names = {program.sequences, *(step.call.name for step in program.steps)}
    needed = {ref.name for step in program.steps for ref in step.rule.kept(step.call)}
    kept = frozenset(names if keep_all else needed)
    last = _last_uses(program)
    done: dict[int, list[str]] = {}
    for name, index in last.items():
        if name != program.output:
            done.setdefault(index, []).append(name)
    unshared = _unshared(program)
    over = {
        step.call.name
        for index, step in enumerate(program.steps)
        if (first := _first_input(step)) in unshared - kept and last[first] == index
    }
    return MemoryPlan(kept, done, frozenset(over), frozenset() if keep_all else _spare(program, unshared))


def _last_uses(program: Program) -> dict[str, int]:
    """The number of the last operation that reads each value; of the one that makes it, where none does."""
    last = {program.sequences: 0}
    for index, step in enumerate(program.steps):
        last.update({ref.name: index for ref in step.call.inputs})
        last[step.call.name] = index
    return last


def _unshared(program: Program) -> frozenset[str]:
    """Values whose memory no other value lies in."""
    own = {step.call.name for step in program.steps if step.rule.owns_output}
    viewed = {ref.name for step in program.steps if not step.rule.owns_output for ref in step.call.inputs}
    return frozenset(own - viewed - {program.output})


def _first_input(step: Step) -> str:
    """Name of the first argument where it depends on the sequence and occurs but once; else nothing."""
    first, *others = step.call.args or (None,)
    return first.name if isinstance(first, Ref) and step.call.depends(first) and first not in others else ""


def _spare(program: Program, unshared: frozenset[str]) -> frozenset[str]:
    seen: set[str] = set()
    spare = set()
    for step in program.steps:
        names = [ref.name for ref in step.rule.kept(step.call)]
        if len(names) == 1 and names[0] in unshared - seen:
            spare.add(step.call.name)
        seen.update(names)
    return frozenset(spare)
