"""Finds operations that together are a function of one value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from dlgenome.attribution.rules.base import Call, Ref, refs_in
from dlgenome.attribution.rules.fused import FusedElementwise, Part
from dlgenome.attribution.tracking import first_info


class Roots:
    """For every value, the one value that it is an elementwise function of: itself, or an earlier one."""

    def __init__(self) -> None:
        self._root: dict[str, str] = {}
        self._parts: dict[str, Part] = {}

    def add(self, call: Call) -> None:
        """Record one operation."""
        self._root[call.name] = call.name
        if not is_pointwise(call):
            return
        roots = {self.of(ref.name) for ref in call.inputs}
        dims = {info.dims for info in call.input_infos} | {first_info(call.info).dims}
        if len(roots) == 1 and len(dims) == 1:
            self._root[call.name] = roots.pop()
            self._parts[call.name] = Part(call.name, call.op, call.args, call.kwargs)

    def of(self, name: str) -> str:
        """The root of a value."""
        return self._root.get(name, name)

    def fuse(self, call: Call, root_info: Any) -> tuple[Call, FusedElementwise]:
        """One operation from the root of ``call`` to its result, and the rule of that operation."""
        root = self.of(call.name)
        parts = self._between(call.name, root)
        rule = FusedElementwise(root, parts)
        names = [part.op for part in parts]
        others = tuple(Ref(name) for name in rule.other_names)
        shown = "fused(" + ", ".join(dict.fromkeys(_short(name) for name in names)) + ")"
        fused = Call(
            call.name, shown, (Ref(root), *others), {}, (Ref(root),), (root_info,), call.info, call.source
        )
        return fused, rule

    def _between(self, name: str, root: str) -> tuple[Part, ...]:
        needed, queue = {name}, [name]
        while queue:
            part = self._parts[queue.pop()]
            for ref in refs_in((part.args, part.kwargs)):
                if ref.name in self._parts and ref.name != root and ref.name not in needed:
                    needed.add(ref.name)
                    queue.append(ref.name)
        return tuple(part for key, part in self._parts.items() if key in needed)


def is_pointwise(call: Call) -> bool:
    """A cast is one number from one number, too, though torch does not say so."""
    if not isinstance(call.op, torch._ops.OpOverload):
        return False
    return torch.Tag.pointwise in call.op.tags or call.op is torch.ops.aten._to_copy.default


def _short(operation: Any) -> str:
    return str(operation).removeprefix("aten.").split(".")[0]


def is_number(node: fx.Node) -> bool:
    """Whether a node makes floating-point values, not yes-or-no or whole ones."""
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.is_floating_point()
