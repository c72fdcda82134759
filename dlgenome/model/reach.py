"""Which bases an output looks at, measured: a base that is not a number marks all that it reaches.

A convolution, a pool, a sum or an activation makes NaN of NaN whatever the weights are. So the bases from the
left end up to some place are marked, and the place is moved until the output notices, then the same from the
right. The result is the receptive field by structure, with nothing to derive from kernel sizes and dilations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlgenome.model.outputs import flatten_outputs


@dataclass(frozen=True)
class Reach:
    """What one output sees of the input."""

    field: int
    """Bases from the first to the last that the output (its middle position) depends on, both included."""
    window: tuple[int, int] | None = None
    """Bases that the positions of the output stand for, 0-based half-open; None without positions."""
    bin_size: int | None = None
    """Bases per position; None without positions."""


def measure_reach(module: nn.Module, input_length: int) -> tuple[Reach | None, ...]:
    """The reach of every output; None where the module does not pass on what is not a number."""
    probe = _Probe(module, input_length)
    shapes = [tuple(output.shape) for output in probe.outputs(0, 0)]
    return tuple(_reach_or_none(probe, index, shape) for index, shape in enumerate(shapes))


def _reach_or_none(probe: _Probe, index: int, shape: tuple[int, ...]) -> Reach | None:
    try:
        return _reach(probe, index, shape)
    except (RuntimeError, ValueError, IndexError):  # an operation refuses what is not a number
        return None


class _Probe:
    """Runs the module on sequences with marked bases."""

    def __init__(self, module: nn.Module, input_length: int) -> None:
        self.module, self.length = module, input_length

    def outputs(self, start: int, end: int) -> tuple[Tensor, ...]:
        """Outputs of one sequence whose bases start..end are marked."""
        sequence = torch.zeros(1, 4, self.length)
        sequence[:, 0] = 1
        sequence[:, :, start:end] = torch.nan
        with torch.no_grad():
            return flatten_outputs(self.module(sequence))

    def extent(self, notices: Callable[[Tensor], Tensor], index: int) -> tuple[int, int] | None:
        """First and last base, half-open, that the chosen part of an output depends on."""

        def seen(start: int, end: int) -> bool:
            return bool(notices(self.outputs(start, end)[index]).isnan().any())

        length = self.length
        if not seen(0, length):
            return None
        start, end = self._with_gradient(notices, index)
        first = _first(lambda place: seen(0, place), start + 1) - 1
        return first, length + 1 - _first(lambda size: seen(length - size, length), length - end + 1)

    def _with_gradient(self, notices: Callable[[Tensor], Tensor], index: int) -> tuple[int, int]:
        """Bases, half-open, between which the gradient is not zero: the extent or, rarely, a part of it."""
        codes = torch.randint(4, (1, self.length), generator=torch.Generator().manual_seed(0))
        sequence = nn.functional.one_hot(codes, 4).transpose(1, 2).to(torch.float32).requires_grad_()
        try:
            output = flatten_outputs(self.module(sequence))[index]
            (gradient,) = torch.autograd.grad(notices(output).sum(), sequence, allow_unused=True)
        except RuntimeError:  # there is an operation without a gradient
            gradient = None
        found = torch.zeros(0) if gradient is None else gradient[0].abs().sum(dim=0).nonzero()
        return (int(found[0]), int(found[-1]) + 1) if len(found) else (self.length - 1, 1)


def _first(holds: Callable[[int], bool], highest: int) -> int:
    """The smallest number in 1..highest for which ``holds``, which is false below and true from there on."""
    low, high = 1, highest
    if highest > 1 and not holds(highest - 1):
        return highest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _reach(probe: _Probe, index: int, shape: tuple[int, ...]) -> Reach | None:
    if len(shape) < 3 or shape[-1] == 1:
        extent = probe.extent(lambda output: output, index)
        return extent and Reach(extent[1] - extent[0])
    positions = shape[-1]
    middle = positions // 2
    extent = probe.extent(lambda output: output[..., middle], index)
    if extent is None:
        return None
    bin_size = _bin_size(probe, index, extent[0], positions)
    field = extent[1] - extent[0]
    cut = extent[0] == 0 or extent[1] == probe.length  # by an end of the input, so it is not centred
    if cut or bin_size is None or bin_size * positions > probe.length:
        return Reach(field)
    start = (extent[0] + extent[1] - bin_size) // 2 - middle * bin_size
    if start < 0 or start + positions * bin_size > probe.length:
        return Reach(field, None, bin_size)
    return Reach(field, (start, start + positions * bin_size), bin_size)


def _bin_size(probe: _Probe, index: int, first: int, positions: int) -> int | None:
    """Bases by which the fields of neighbouring positions are apart, from ``first`` of the middle one on."""
    step = probe.length // 8
    marked = [
        int(probe.outputs(0, end)[index].isnan().flatten(0, -2).any(dim=0).sum())
        for end in (first + 1, first + 1 + step)
    ]
    if marked[1] == marked[0] or marked[1] == positions:
        return None
    return round(step / (marked[1] - marked[0]))
