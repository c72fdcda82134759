"""The operations of a step fused by torch's compiler: many passes over memory become a few (Triton) kernels.

A step is traced as the operations that it runs, whatever Python did between them. Nothing depends on it: what
cannot be traced or compiled, or gives other numbers, runs as it is.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from dlgenome.attribution.averages import StepSums
from dlgenome.attribution.engine import Forwarded
from dlgenome.attribution.recording import Recorder
from dlgenome.errors import first_line

Result = TypeVar("Result")
Compiler = Callable[[torch.fx.GraphModule], Callable[..., Any]]
logger = logging.getLogger(__name__)
for _results in (Forwarded, StepSums):  # so that torch finds the tensors in them
    torch.export.register_dataclass(_results)
_ALLOWED = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Difference from the function itself, over its largest number, by the lowest precision of a step.

Far more than rounding makes of it, and far less than of a step that was traced wrongly.
"""


class FusingRecorder:
    """Records what is left of a function once it is fused."""

    def __init__(self, inside: Recorder) -> None:
        self._inside = inside

    def record(
        self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
    ) -> tuple[Result, Callable[[], None]]:
        """What the function returns, and a replay."""
        return self._inside.record(fused(function, inputs), inputs)


def compiled_graph(graph: torch.fx.GraphModule) -> Callable[..., Any]:
    """A traced function, compiled for its shapes; what was compiled before is taken from torch's cache."""
    run: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
    return run


def fused(
    function: Callable[..., Result], inputs: tuple[Tensor, ...], compiler: Compiler | None = None
) -> Callable[..., Result]:
    """The function compiled for inputs of these shapes, or, with a warning, the function itself.

    What it makes is compared on the inputs and on the same with their rows in reverse.
    """
    begun = time.monotonic()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = _traced(function, inputs, compiler or compiled_graph)
            reversed_inputs = tuple(given.flip(0) for given in inputs)
            agree = all(_agree(function(*given), found(*given)) for given in (inputs, reversed_inputs))
    except torch.OutOfMemoryError:
        raise
    # whatever a compiler stumbles over, a missing one or a full disk, does not keep the step from running
    except Exception as problem:
        logger.warning(
            "--compile: a step runs unfused, for %s.", first_line(problem) or type(problem).__name__
        )
        return function
    if not agree:
        logger.warning("--compile: a step runs unfused, for compiled it gives other numbers.")
        return function
    logger.info("Compiled a step in %.1f s.", time.monotonic() - begun)
    return found


def _traced(
    function: Callable[..., Result], inputs: tuple[Tensor, ...], compiler: Compiler
) -> Callable[..., Result]:
    leaves, structure = tree_flatten(function(*inputs))
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def flat(*given: Tensor) -> list[Tensor]:
        made = tree_flatten(function(*given))[0]
        return [made[place] for place in places]

    run = compiler(make_fx(flat)(*inputs))

    def found(*given: Tensor) -> Result:
        with torch.no_grad():
            made = run(*given)
        filled = list(leaves)
        for place, value in zip(places, made, strict=True):
            filled[place] = value
        result: Result = tree_unflatten(filled, structure)
        return result

    return found


def _agree(expected: Any, found: Any) -> bool:
    ones, others = (
        [leaf for leaf in tree_flatten(made)[0] if isinstance(leaf, Tensor)] for made in (expected, found)
    )
    # the last numbers of a step are in float64 whatever they were made of
    allowed = max((_ALLOWED.get(one.dtype, 0.0) for one in ones), default=0.0)
    return all(_close(one, other, allowed) for one, other in zip(ones, others, strict=True))


def _close(expected: Tensor, found: Tensor, allowed: float) -> bool:
    if expected.shape != found.shape or expected.dtype is not found.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(expected, found)
    scale = expected.abs().max() if expected.numel() else expected.new_zeros(())
    off = (expected - found).abs().max() if expected.numel() else scale
    return bool(off <= allowed * scale)
