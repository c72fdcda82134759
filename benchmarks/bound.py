"""The convolution bound: the arithmetic of a network at the best rate that convolutions reach here.

Forward for R references and the sequence, and back for each of the R: 2R + 1 times the multiplications and
additions of one row forward, and nothing else. Several targets go forward together and back one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Case
from dlgenome.attribution.parallel import Lanes

ROWS, CALL = 8, 4e9
"""Rows of one call on one core, fewer where they are more operations: short rows are slow one by one."""
GPU_ROWS = 512
"""Rows of one call on a GPU, which has to be filled."""
STRETCHES, SECONDS = 6, 0.01
"""The best of so many stretches of about so many seconds is the rate: other work passes by in between."""


@dataclass(frozen=True)
class Convolution:
    """Sizes of a convolution of stride 1 without dilation."""

    channels: int
    filters: int
    width: int
    length: int
    """Positions that come out."""

    @property
    def operations(self) -> int:
        """Multiplications and additions for one row."""
        return 2 * self.channels * self.filters * self.width * self.length

    @property
    def rows(self) -> int:
        """Rows of one call on one core."""
        return min(ROWS, max(1, int(CALL / self.operations)))


PLAIN = Convolution(64, 64, 3, 2114)
"""Measured for every case, beside its own largest convolution."""


def operations(case: Case, n_references: int) -> int:
    """Multiplications and additions that explain one sequence: those of 2R + 1 rows forward for one target.

    Of convolutions, dense layers and matrix products; the rest is small and not counted.
    """
    with torch.device("meta"):
        network = case.build().eval()
        forward = _of_a_row(network, case.length)
        back = sum(_of_a_row(part, case.length) for part in case.parts(network))
    return (n_references + 1) * forward + n_references * back


def _of_a_row(network: nn.Module, length: int) -> int:
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 4, length))
    return int(counter.get_total_flops())


def largest_convolution(case: Case) -> Convolution:
    """The one with most multiplications, as if it were not dilated."""
    found: list[Convolution] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv1d)
        channels, filters = layer.in_channels // layer.groups, layer.out_channels
        found.append(Convolution(channels, filters, layer.kernel_size[0], output.shape[-1]))

    with torch.device("meta"):
        network = case.build().eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv1d):
                layer.register_forward_hook(note)
        network(torch.empty(1, 4, case.length))
    return max(found, key=lambda each: each.operations)


def best_rate(case: Case, dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the fastest of four: two convolutions, each on single cores and on all together.

    For the process that calls it, with its number of threads and its allocator. A GPU has one way only.
    """
    ways: tuple[Way, ...] = (on_single_cores, together) if device.type == "cpu" else (together,)
    return max(
        rate(convolution, way, dtype, device)
        for convolution in {PLAIN, largest_convolution(case)}
        for way in ways
    )


Run = Callable[[int], object]
"""Calls the convolution so many times, on every core."""
Way = Callable[[Convolution, torch.dtype, torch.device], Run]
CPU = torch.device("cpu")


def rate(convolution: Convolution, way: Way, dtype: torch.dtype, device: torch.device = CPU) -> float:
    """Operations a second of one convolution computed one way."""
    run = way(convolution, dtype, device)
    run(1)
    calls = ceil(SECONDS / _seconds(run, 1))
    fastest = min(_seconds(run, calls) for _ in range(STRETCHES))
    return calls * _rows_a_call(convolution, device) * convolution.operations / fastest


def _rows_a_call(convolution: Convolution, device: torch.device) -> int:
    """Of all cores, or of a GPU."""
    return convolution.rows * Lanes(device).count if device.type == "cpu" else GPU_ROWS


def on_single_cores(convolution: Convolution, dtype: torch.dtype, device: torch.device) -> Run:
    """Every core convolves rows of its own, one thread each."""
    lanes, weight = Lanes(device), _weight(convolution, dtype, device)
    all_rows = [_rows(convolution, dtype, convolution.rows, device) for _ in range(lanes.count)]

    def run(calls: int) -> None:
        lanes.map(lambda rows: _convolve(rows, weight, calls), all_rows)

    return run


def together(convolution: Convolution, dtype: torch.dtype, device: torch.device) -> Run:
    """All threads, or a GPU, work on one call."""
    rows = _rows(convolution, dtype, _rows_a_call(convolution, device), device)
    return partial(_convolve, rows, _weight(convolution, dtype, device))


@torch.no_grad()
def _convolve(rows: Tensor, weight: Tensor, calls: int) -> None:
    for _ in range(calls):
        F.conv2d(rows, weight)
    if rows.is_cuda:
        torch.cuda.synchronize(rows.device)


def _rows(convolution: Convolution, dtype: torch.dtype, count: int, device: torch.device) -> Tensor:
    positions = convolution.length + convolution.width - 1
    rows = torch.randn(count, convolution.channels, 1, positions, dtype=dtype, device=device)
    return rows.contiguous(memory_format=torch.channels_last)


def _weight(convolution: Convolution, dtype: torch.dtype, device: torch.device) -> Tensor:
    shape = (convolution.filters, convolution.channels, 1, convolution.width)
    weight = torch.randn(shape, dtype=dtype, device=device)
    return weight.contiguous(memory_format=torch.channels_last)


def _seconds(run: Run, calls: int) -> float:
    begun = time.perf_counter()
    run(calls)
    return time.perf_counter() - begun
