"""A function of tensors of fixed shapes, recorded once and replayed: a GPU is told all its kernels at once.

A step of a small network is a few hundred kernels of some microseconds each; telling a GPU of them one by one
takes longer than running them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from dlgenome.errors import first_line

Result = TypeVar("Result")
logger = logging.getLogger(__name__)
_WARM_UPS = 2
"""Runs before the recording, in which libraries choose their algorithms and take their memory."""


class Recorder(Protocol):
    """Whatever can record work that reads and writes tensors where they lie."""

    def record(
        self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
    ) -> tuple[Result, Callable[[], None]]:
        """What the function makes of the inputs, and a replay.

        That runs it once more on what lies where the inputs are, and puts the result in the same place.
        """


class CudaRecorder:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def record(
        self, function: Callable[..., Result], inputs: tuple[Tensor, ...]
    ) -> tuple[Result, Callable[[], None]]:
        """The same of the kernels of a function; RuntimeError where it does what cannot be recorded."""
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    function(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = function(*inputs)
        return result, graph.replay


class Recorded(Generic[Result]):
    """A function of tensors whose shapes never change, recorded when it is first called.

    What it returns lies where the next call will put its own. A function that cannot be recorded (one that
    reads a number from the device on its way, say) is called as it is, with a warning.
    """

    def __init__(self, function: Callable[..., Result], recorder: Recorder, name: str) -> None:
        self._function, self._recorder, self._name = function, recorder, name
        self._inputs: tuple[Tensor, ...] = ()
        self._recording: tuple[Result, Callable[[], None]] | None = None
        self._refused = False

    @property
    def standing(self) -> Result | None:
        """What every call returns, where the function is recorded."""
        return None if self._recording is None else self._recording[0]

    def __call__(self, *inputs: Tensor) -> Result:
        """What the function makes of the inputs."""
        if self._recording is None and not self._refused:
            self._record(inputs)
        if self._recording is None:
            return self._function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        result, replay = self._recording
        replay()
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(given.clone() for given in inputs)
        begun = time.monotonic()
        try:
            self._recording = self._recorder.record(self._function, self._inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as problem:
            self._refused = True
            reason = first_line(problem) or type(problem).__name__
            logger.warning("--compile: %s runs unrecorded, for %s.", self._name, reason)
            return
        logger.info("Recorded %s in %.1f s.", self._name, time.monotonic() - begun)
