"""Which operation of a model fixes the batch size: torch.export says only that one does."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.overrides import TorchFunctionMode, resolve_name

log = logging.getLogger(__name__)


def with_open_batch(example: Tensor) -> Tensor:
    """A stand-in for tracing, of which only the batch size is left open; else the length would be, too."""
    sizes = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (example.dim() - 1)]
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return mode.from_tensor(example, symbolic_context=StatelessSymbolicContext(sizes))


def find_fixing(module: nn.Module, example: Tensor) -> tuple[str, list[tuple[str, int]]]:
    """The first operation that makes the batch size a number, or needs one, and the frames that call it.

    Its name is empty where the model runs to its end without one.
    """
    watch = _Watch(with_open_batch(example))
    try:
        with watch:
            module(watch.sequences)
    except Exception as error:
        log.debug("looking for what fixes the batch size stopped: %s", error)
    return watch.name, watch.frames


class _Watch(TorchFunctionMode):
    """Looks at the batch size after every operation, and for the one that stops without a number."""

    def __init__(self, sequences: Tensor) -> None:
        super().__init__()
        self.sequences = sequences
        self.name = ""
        self.frames: list[tuple[str, int]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        stopped = True
        try:
            made = func(*args, **(kwargs or {}))
            stopped = False
            return made
        finally:
            fixed = self.sequences.shape[0].node.expr.is_number  # type: ignore[attr-defined]
            if not self.name and (fixed or stopped):
                self.name = resolve_name(func) or getattr(func, "__name__", "")
                self.frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_stack()]
