"""A model as a graph of ATen operations.

Module hooks see only modules: functional calls, gates and residuals pass them by and the scores come out
wrong in silence. So the model is captured once, with the batch size left open, and attribution works on the
operations. The user's module is copied first and never changed.
"""

from __future__ import annotations

import copy
import linecache
import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind
from torch.fx.experimental.proxy_tensor import make_fx

from dlgenome.attribution import torchscript
from dlgenome.attribution.decompositions import OWN
from dlgenome.attribution.fixed_batch import find_fixing, with_open_batch
from dlgenome.attribution.registry import RULES
from dlgenome.attribution.rules.base import Rule, Source
from dlgenome.errors import UnsupportedModelError
from dlgenome.quiet import quiet_torch

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
    rules: Mapping[Any, Rule] = RULES,
) -> CapturedGraph:
    """Graph of ``module`` called on a (batch, *input_shape) tensor, in prediction mode.

    Operations that have a rule stay whole.

    Raises UnsupportedModelError where the module cannot be traced with an open batch size.
    """
    frozen = copy.deepcopy(module).eval()
    for parameter in frozen.parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(False)
    frozen.to(device=device, dtype=dtype)
    example = torch.zeros(3, *input_shape, device=device, dtype=dtype)
    example[:, 0] = 1
    with quiet_torch(), torch.no_grad():
        try:
            script = torchscript.is_torchscript(frozen)
            plain = torchscript.converted(frozen, example) if script else frozen
            exported, notes = _export(plain, example, rules)
            return _read(exported, root, (torchscript.NOTE, *notes) if script else notes)
        except UnsupportedModelError:
            raise
        except Exception as error:
            if _is_final(error):
                raise UnsupportedModelError(_explain(error, frozen, example)) from error
            refused = error
        try:
            return _trace(frozen, example, _decompositions(rules), root)
        except Exception as error:
            log.debug("tracing stopped, too: %s", error)
            clearer = error if _is_final(error) else refused
            raise UnsupportedModelError(_explain(clearer, frozen, example)) from clearer


def _export(
    module: nn.Module, example: Tensor, rules: Mapping[Any, Rule]
) -> tuple[ExportedProgram, tuple[str, ...]]:
    exported: ExportedProgram = torch.export.export(module, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    notes = _switch_off_dropout(exported)
    # Taking operations apart traces the model once more, and most models have nothing to take apart.
    if not _is_whole(exported, rules):
        exported = exported.run_decompositions(_decompositions(rules))
    return exported, notes


def _is_whole(exported: ExportedProgram, rules: Mapping[Any, Rule]) -> bool:
    """Whether every operation on the sequence has a rule as it is, and none writes into a value.

    Operations under torch.autocast or torch.enable_grad stand in a graph of their own, called as one.
    """
    names = set(exported.graph_signature.user_inputs)
    dependent = {node for node in exported.graph.nodes if node.name in names}
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        is_operation = isinstance(node.target, torch._ops.OpOverload)
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return False
        if is_operation and node.target._schema.is_mutable:
            return False
        if not dependent.isdisjoint(node.all_input_nodes) and isinstance(node.meta.get("val"), _VALUES):
            dependent.add(node)
            dropout = node.target is torch.ops.aten.dropout.default  # switched off by now
            if is_operation and not dropout and node.target not in rules:
                return False
    return True


_VALUES = (Tensor, tuple, list)
"""What is not about sizes."""


def _trace(module: nn.Module, example: Tensor, table: dict[Any, Any], root: str) -> CapturedGraph:
    """The graph of one call, where torch.export gives up (odd TorchScript, calls it does not know).

    Python branches are frozen as they went; module paths and source lines are lost.
    """
    # TorchScript's optimiser would write the sizes of the example into the graph.
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        traced = make_fx(
            torch.func.functionalize(lambda sequences: module(sequences)),
            tracing_mode="symbolic",
            decomposition_table=table,
            _allow_non_fake_inputs=True,
        )(with_open_batch(example))
    nodes = list(traced.graph.nodes)
    constants = {node.name: getattr(traced, node.target).detach() for node in nodes if node.op == "get_attr"}
    sequences = next(node for node in nodes if node.op == "placeholder")
    (output,) = next(node for node in nodes if node.op == "output").args
    note = (
        "torch.export cannot capture this model; it was traced instead (experimental), without source lines"
    )
    return CapturedGraph(traced.graph, constants, sequences, output, root, (note,))


def _switch_off_dropout(exported: ExportedProgram) -> tuple[str, ...]:
    """Functional dropout that ignores prediction mode made to heed it; one note each."""
    aten, notes = torch.ops.aten, []
    kinds = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
    places: dict[Any, tuple[int, Any]] = {kind.default: (2, False) for kind in kinds}
    places[aten.scaled_dot_product_attention.default] = (4, 0.0)
    for node in exported.graph.nodes:
        place, off = places.get(node.target, (0, None))
        if off is not None and len(node.args) > place and node.args[place]:
            node.update_arg(place, off)
            notes.append(f"functional dropout at {source_of(node, '').line} is switched off")
    return tuple(notes)


def _decompositions(rules: Mapping[Any, Rule]) -> dict[Any, Any]:
    """The default table and our own, less every operation that has a rule.

    The default one turns softplus, celu, mish, prelu, threshold and others into ``where`` on conditions that
    depend on the sequence, for which no exact rule exists.
    """
    table = dict(default_decompositions())
    table.update(OWN)
    for operation in rules:
        table.pop(operation, None)
    return table


def _branches(error: Exception) -> bool:
    return "DataDependent" in type(error).__name__ or "data-dependent" in str(error)


def _fixes_batch(error: Exception) -> bool:
    text = str(error)
    return "specialized" in text or "Constraint" in type(error).__name__ or "marked" in text


def _is_final(error: Exception) -> bool:
    """Whether tracing could only hide the problem: it freezes branches and sizes as the example has them."""
    return _branches(error) or _fixes_batch(error)


def _explain(error: Exception, module: nn.Module, example: Tensor) -> str:
    text = str(error)
    kind = type(error).__name__
    where = [(file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+), in', text)]
    where += [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if _branches(error):
        reason = "it branches on the values of the sequence; write the branch with torch.where or remove it"
        if ".item(" in _code(where):
            reason = "it makes a number of Python of a value of the sequence with .item(); keep it a tensor"
    elif _fixes_batch(error):
        name, where = find_fixing(module, example)
        place = f" in {name}" if name else ""
        reason = f"it fixes the batch size{place}; use x.shape[0] instead of a number"
        reason += ", and operations that take any number of rows" if name else ""
    else:
        first = next((line.strip() for line in text.splitlines() if line.strip()), kind)
        reason = f"torch.export stops with {kind}: {first[:300]}"
    own = [frame for frame in where if _is_users(frame[0])]
    place = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    return f"The model cannot be captured as a graph{place}: {reason}."


def _code(where: list[tuple[str, int]]) -> str:
    """The user's innermost line."""
    own = [frame for frame in where if _is_users(frame[0])]
    return linecache.getline(*own[-1]) if own else ""


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
    """The innermost line outside torch; none where that is of a program that was made, as of TorchScript."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', trace)
    own = [frame for frame in frames if "/torch/" not in frame[0]]
    file, line = (own or frames or [("", "")])[-1]
    return "" if not file or file.startswith("<eval_") else f"{file}, line {line}"
