"""A model as a graph of ATen operations.

Module hooks see only modules: functional calls, gates and residuals pass them by and the scores come out
wrong in silence. So the model is captured once, with the batch size left open, and attribution works on the
operations. The user's module is copied first and never changed.
"""

from __future__ import annotations

import copy
import logging
import re
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind

from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Source
from dlgenome.errors import UnsupportedModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CapturedGraph:
    """Operations of a model from the one-hot sequences to a (batch, targets) tensor."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    """Parameters, buffers and lifted constants by placeholder name."""
    sequences: fx.Node
    output: fx.Node
    root: str
    """Dotted path that the capture put before the user's own module paths."""
    notes: tuple[str, ...] = ()
    """What was changed on the way, for the user to know."""


def capture(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    root: str = "",
) -> CapturedGraph:
    """Graph of ``module`` called on a (batch, *input_shape) tensor, in prediction mode.

    Raises UnsupportedModelError where the module cannot be traced with an open batch size.
    """
    frozen = copy.deepcopy(module).eval().requires_grad_(False).to(device=device, dtype=dtype)
    example = torch.zeros(3, *input_shape, device=device, dtype=dtype)
    example[:, 0] = 1
    exported, notes = _export(frozen, example)
    return _read(exported, root, notes)


def _export(module: nn.Module, example: Tensor) -> tuple[ExportedProgram, tuple[str, ...]]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        previous = logging.getLogger("torch").level
        logging.getLogger("torch").setLevel(logging.CRITICAL)
        try:
            exported: ExportedProgram = torch.export.export(
                module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},)
            )
            notes = _switch_off_dropout(exported)
            return exported.run_decompositions(_decompositions()), notes
        except Exception as error:
            raise UnsupportedModelError(_explain(error)) from error
        finally:
            logging.getLogger("torch").setLevel(previous)


def _switch_off_dropout(exported: ExportedProgram) -> tuple[str, ...]:
    """Functional dropout that ignores prediction mode made to heed it; one note each."""
    aten, notes = torch.ops.aten, []
    kinds = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
    for node in exported.graph.nodes:
        if node.target in [kind.default for kind in kinds] and node.args[2]:
            node.args = (*node.args[:2], False)
            notes.append(f"functional dropout at {source_of(node, '').line} is switched off")
    return tuple(notes)


def _decompositions() -> dict[Any, Any]:
    """The default table less every operation that has a rule of its own.

    The default one turns softplus, celu, mish, prelu, threshold and others into ``where`` on conditions that
    depend on the sequence, for which no exact rule exists.
    """
    table = dict(default_decompositions())
    for operation in RULES:
        table.pop(operation, None)
    return table


def _explain(error: Exception) -> str:
    text = str(error)
    kind = type(error).__name__
    where = re.findall(r'File "([^"]+)", line (\d+), in', text)
    where += [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in where if _is_users(file)]
    place = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    if "DataDependent" in kind or "data-dependent" in text:
        reason = "it branches on the values of the sequence; write the branch with torch.where or remove it"
    elif "specialized" in text or "Constraint" in kind or "marked" in text:
        reason = "it fixes the batch size; use x.shape[0] instead of a number"
    else:
        first = next((line.strip() for line in text.splitlines() if line.strip()), kind)
        reason = f"torch.export stops with {kind}: {first[:300]}"
    return f"The model cannot be captured as a graph{place}: {reason}."


def _is_users(file: str) -> bool:
    """Whether a frame may be the user's: neither torch's, nor the standard library's, nor ours."""
    foreign = (Path(__file__).parent, Path(traceback.__file__).parent)
    return "/torch/" not in file and "/sympy/" not in file and Path(file).parent not in foreign


def _read(exported: ExportedProgram, root: str, notes: tuple[str, ...]) -> CapturedGraph:
    constants: dict[str, Tensor] = {}
    sequences: fx.Node | None = None
    by_name = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    stored = {**exported.state_dict, **exported.constants}
    for spec in exported.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.USER_INPUT:
            sequences = by_name[name]
        elif spec.target is not None and isinstance(stored.get(spec.target), Tensor):
            constants[name] = stored[spec.target].detach()
    output = exported.graph_signature.user_outputs[0]
    nodes = {node.name: node for node in exported.graph.nodes}
    if sequences is None or not isinstance(output, str):
        raise UnsupportedModelError(
            "The model's output does not depend on the sequence, so there is nothing to explain."
        )
    return CapturedGraph(exported.graph, constants, sequences, nodes[output], root, notes)


def source_of(node: fx.Node, root: str) -> Source:
    """Module path and source line of a node, in the user's own words."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    path = paths[-1] if paths else ""
    if root and (path == root or path.startswith(root + ".")):
        path = path[len(root) :].lstrip(".")
    return Source(path, _line(str(node.meta.get("stack_trace") or "")))


def _line(trace: str) -> str:
    frames = re.findall(r'File "([^"]+)", line (\d+)', trace)
    own = [frame for frame in frames if "/torch/" not in frame[0]]
    file, line = (own or frames or [("", "")])[-1]
    return f"{file}, line {line}" if file else ""
