"""The whole command on simulated regions: how long it takes, on what, and how much memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.processes import BenchmarkError, clean_environment
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome_sim.files import write_fasta, write_narrow_peak
from dlgenome_sim.genome import SPACING, simulate_genome
from dlgenome_sim.models import save

PEAKS_A_CONTIG = 1000
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit that the system counts peak memory in."""


@dataclass(frozen=True)
class Inputs:
    """Files of a run, with as many regions as were ever wanted."""

    genome: Path
    regions: Path
    weights: Path


@dataclass(frozen=True)
class Run:
    """What a finished command cost."""

    regions: int
    seconds: float
    """From its start to its end, the imports of Python included."""
    parts: Mapping[str, float]
    """The seconds of run.json; what is left is start-up and whatever run.json does not count."""
    peak_memory_bytes: int
    """Of the whole process."""
    recorded_peak_bytes: int
    """What run.json says; taken while the run still goes on."""


def end_to_end(regions: int, n_filters: int, n_layers: int, flags: Sequence[str], threads: int) -> Run:
    """Time the command on simulated regions of 2114 bases, BPNet and its counts."""
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        inputs = write_inputs(Path(name), regions, n_filters, n_layers)
        return run(inputs, regions, flags, threads)


def memory(regions: int, factor: int, threads: int) -> tuple[Run, Run]:
    """The command on some regions and on ``factor`` times as many, genome and small network the same."""
    flags = ("--n-references", "2")
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        inputs = write_inputs(Path(name), regions * factor, n_filters=4, n_layers=1)
        return run(inputs, regions, flags, threads), run(inputs, regions * factor, flags, threads)


def write_inputs(folder: Path, regions: int, n_filters: int, n_layers: int) -> Inputs:
    """Simulate a genome with at least ``regions`` peaks and a BPNet with torch's own initial weights."""
    inputs = Inputs(folder / "genome.fa", folder / "peaks.narrowPeak", folder / "bpnet.safetensors")
    peaks = min(regions, PEAKS_A_CONTIG)
    lengths = {f"chr{index + 1}": (peaks + 2) * SPACING for index in range(-(-regions // peaks))}
    simulated = simulate_genome(lengths)
    write_fasta(inputs.genome, simulated.contigs)
    write_narrow_peak(inputs.regions, simulated.peaks[:regions])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(BPNet(n_filters=n_filters, n_layers=n_layers), inputs.weights)
    return inputs


def run(inputs: Inputs, regions: int, flags: Sequence[str], threads: int) -> Run:
    """Run `dlgenome attribute` on the first regions; BenchmarkError where it fails."""
    prefix = inputs.genome.with_name(f"run-{regions}")
    peaks = _first_rows(inputs.regions, regions)
    command = [sys.executable, "-m", "dlgenome_cli.main", "attribute", "--quiet", "-o", str(prefix)]
    command += ["-m", str(inputs.weights), "--architecture", "bpnet", "-t", "counts"]
    command += ["-g", str(inputs.genome), "-r", str(peaks), "--threads", str(threads), *flags]
    seconds, peak = _watch(command, threads)
    facts = json.loads(Path(f"{prefix}.run.json").read_text())
    if facts["regions"]["scored"] != regions:
        raise BenchmarkError(f"{facts['regions']['scored']} of {regions} regions were scored.")
    return Run(regions, seconds, facts["seconds"], peak, facts["peak_memory_bytes"])


def _first_rows(path: Path, rows: int) -> Path:
    first = path.with_name(f"first-{rows}.narrowPeak")
    with path.open() as stream, first.open("w") as kept:
        kept.writelines(line for _, line in zip(range(rows), stream, strict=False))
    return first


def _watch(command: list[str], threads: int) -> tuple[float, int]:
    """Seconds and peak bytes of a command.

    The count of a child starts at the peak of its parent, so a figure below ours would not be the child's.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=clean_environment(threads), stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"`{' '.join(command)}` stopped with status {process.returncode}.")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if usage.ru_maxrss <= own:
        raise BenchmarkError("The command took less memory than the benchmark itself: its peak is unknown.")
    return seconds, usage.ru_maxrss * _UNIT
