"""The values that a program puts side by side as its output, one for each head that some target needs.

On the way back of one target nothing comes through the heads of the others, so they are not gone through.
"""

from __future__ import annotations

from dlgenome.attribution.layout import BatchAxis, ValueInfo
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.rules.base import aten

Head = tuple[str, int, int]
"""Name of a value, and the columns of the output that it fills: first and last, the last not included."""


def heads(program: Program) -> tuple[Head, ...]:
    """The heads; empty where the output is not made of several different values side by side."""
    call = next((step.call for step in program.steps if step.call.name == program.output), None)
    if call is None or call.op is not aten.cat.default or call.argument(1, "dim", 0) != 1:
        return ()
    found: list[Head] = []
    start = 0
    for ref in call.args[0]:
        info = program.infos.get(ref.name)
        if not isinstance(info, ValueInfo) or info.batch != BatchAxis() or len(info.dims) != 2:
            return ()
        found.append((ref.name, start, start + info.dims[1]))
        start += info.dims[1]
    return tuple(found) if len({name for name, _, _ in found}) == len(found) else ()
