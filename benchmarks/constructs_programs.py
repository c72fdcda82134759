"""Attributions of one network by each program, called as its own documentation says.

Imported in the environments of all programs; each function needs its own program only.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Codes = NDArray[np.uint8]
Attributions = NDArray[np.floating]
"""(sequences, 4, length), averaged over the references."""


def by_dlgenome(network: nn.Module, sequences: Codes, references: Codes, dtype: torch.dtype) -> Attributions:
    """The engine as `dlgenome attribute` uses it."""
    from dlgenome.attribution.capture import capture
    from dlgenome.attribution.deeplift import DeepLift
    from dlgenome.attribution.lowering import lower
    from dlgenome.model.targets import TargetHead, parse_targets

    head = TargetHead(network, parse_targets(["index:0"]))
    program = lower(capture(head, (4, sequences.shape[1]), dtype=dtype))
    program.require_supported()
    pairs = references.shape[0] * references.shape[1]
    deep_lift = DeepLift(program, targets=1, n_references=references.shape[1], batch_size=pairs, dtype=dtype)
    return deep_lift.explain(sequences, references)[0].projected


def by_tangermeme(
    network: nn.Module, sequences: Codes, references: Codes, dtype: torch.dtype
) -> Attributions:
    """`deep_lift_shap` with the references given, all else as it comes."""
    from tangermeme.deep_lift_shap import deep_lift_shap

    scores: Tensor = deep_lift_shap(
        network, one_hot(sequences, dtype), references=one_hot(references, dtype), device="cpu"
    )
    return scores.detach().numpy()


def by_captum(network: nn.Module, sequences: Codes, references: Codes, dtype: torch.dtype) -> Attributions:
    """`DeepLiftShap`, once for each sequence, since it has one set of baselines for all of a call."""
    from captum.attr import DeepLiftShap

    explainer = DeepLiftShap(network)
    scores: list[Tensor] = [
        explainer.attribute(sequence[None], baselines=own, target=0)
        for sequence, own in zip(one_hot(sequences, dtype), one_hot(references, dtype), strict=True)
    ]
    return torch.cat(scores).detach().numpy()


def by_shap(
    network: nn.Module, sequences: Codes, references: Codes, dtype: torch.dtype, **options: bool
) -> Attributions:
    """`DeepExplainer`, once for each sequence with its references as background; additivity is checked."""
    import shap

    scores: list[Attributions] = [
        shap.DeepExplainer(network, own).shap_values(sequence[None], **options)[..., 0]
        for sequence, own in zip(one_hot(sequences, dtype), one_hot(references, dtype), strict=True)
    ]
    return np.concatenate(scores)


Program = Callable[[nn.Module, Codes, Codes, torch.dtype], Attributions]
PROGRAMS: dict[str, Program] = {
    "dlgenome": by_dlgenome,
    "tangermeme": by_tangermeme,
    "captum": by_captum,
    "shap": by_shap,
}
UNCHECKED: dict[str, Program] = {"shap": partial(by_shap, check_additivity=False)}
"""What a program that refuses can be made to say all the same."""


def versions(program: str) -> dict[str, str]:
    """Version of the program and of the torch that it runs on."""
    return {program: version(program), "torch": torch.__version__}


def one_hot(codes: Codes, dtype: torch.dtype) -> Tensor:
    """(..., 4, length) of base codes (..., length)."""
    return torch.eye(4, dtype=dtype)[torch.from_numpy(codes).long()].movedim(-1, -2).contiguous()


def is_refusal(error: BaseException, program: str) -> bool:
    """Whether the program itself stopped on purpose.

    That is: the innermost frame is in the program's own package, at a ``raise`` or ``assert`` statement. An
    error that comes out of torch, or out of a look-up that nobody thought would fail, is a crash.
    """
    steps = list(traceback.walk_tb(error.__traceback__))
    if not steps:
        return False
    frame, line = steps[-1]
    own = str(frame.f_globals.get("__name__", "")).split(".")[0] == program
    return own and line in _lines_that_stop(Path(frame.f_code.co_filename))


def _lines_that_stop(file: Path) -> set[int]:
    """Lines of ``raise`` and ``assert`` statements."""
    statements = (
        node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, (ast.Raise, ast.Assert))
    )
    return {line for each in statements for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)}
