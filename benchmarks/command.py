"""The whole command on simulated regions: how long it takes, on what, and how much memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.processes import BenchmarkError, clean_environment
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.types import Region
from dlgenome_sim.files import write_fasta, write_narrow_peak
from dlgenome_sim.genome import SPACING, random_codes, simulate_genome
from dlgenome_sim.models import demo_network, save

PEAKS_A_CONTIG = 1000
MANY_CONTIGS = {f"chr{number}": 1_000_000 for number in range(1, 11)}
CHANNELS = 4
"""Of the smallest network: so small that whatever is not the network shows."""
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit that the system counts peak memory in."""


@dataclass(frozen=True)
class Inputs:
    """Files of a run, with as many regions as were ever wanted."""

    genome: Path
    regions: Path
    weights: Path
    model_flags: tuple[str, ...] = ("--architecture", "bpnet", "-t", "counts")


@dataclass(frozen=True)
class Run:
    """What a finished command cost."""

    regions: int
    seconds: float
    """From its start to its end, the imports of Python included."""
    parts: Mapping[str, float]
    """The seconds of run.json, those within scoring and beside it among them; start-up is in none."""
    peak_memory_bytes: int
    """Of the whole process."""
    recorded_peak_bytes: int
    """What run.json says; taken while the run still goes on."""
    file_bytes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of its files by how their names end."""


def end_to_end(regions: int, n_filters: int, n_layers: int, flags: Sequence[str], threads: int) -> Run:
    """Time the command on simulated regions of 2114 bases, BPNet and its counts."""
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        inputs = write_inputs(Path(name), regions, n_filters, n_layers)
        return run(inputs, regions, flags, threads)


def memory(sizes: Sequence[int], length: int, threads: int) -> list[Run]:
    """The command on growing numbers of windows of ``length`` bases, with two references and a tiny network.

    Steps are small, so that the queues between reader, network and writer are full in the shortest run, too.
    """
    flags = ("--n-references", "2", "--batch-size", "256", "--window", str(length))
    with TemporaryDirectory(prefix="dlgenome-bench-") as name:
        inputs = write_many_regions(Path(name), max(sizes), length)
        return [run(inputs, size, flags, threads) for size in sizes]


def write_many_regions(folder: Path, regions: int, length: int) -> Inputs:
    """Summits anywhere on a random genome of ten million bases, in no order; windows overlap by chance."""
    architecture = ("--architecture", "dlgenome_sim.models:demo_network")
    arguments = ("--architecture-args", json.dumps({"channels": CHANNELS}), "-t", "index:0")
    paths = (folder / "genome.fa", folder / "peaks.narrowPeak", folder / "tiny.safetensors")
    inputs = Inputs(*paths, (*architecture, *arguments))
    generator = np.random.default_rng(0)
    write_fasta(inputs.genome, {name: random_codes(bases, generator) for name, bases in MANY_CONTIGS.items()})
    write_narrow_peak(inputs.regions, _random_peaks(regions, length, generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(demo_network(CHANNELS), inputs.weights)
    return inputs


def _random_peaks(number: int, length: int, generator: np.random.Generator) -> Iterator[Region]:
    names = list(MANY_CONTIGS)
    for row in range(number):
        chrom = names[int(generator.integers(len(names)))]
        summit = int(generator.integers(length, MANY_CONTIGS[chrom] - length))
        signal = float(generator.random())
        yield Region(
            chrom, summit - length // 2, summit + length // 2, f"peak{row + 1}", signal=signal, summit=summit
        )


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
    command += ["-m", str(inputs.weights), *inputs.model_flags]
    command += ["-g", str(inputs.genome), "-r", str(peaks), "--threads", str(threads), *flags]
    seconds, peak = _watch(command, threads)
    facts = json.loads(Path(f"{prefix}.run.json").read_text())
    if facts["regions"]["scored"] != regions:
        raise BenchmarkError(f"{facts['regions']['scored']} of {regions} regions were scored.")
    written = {
        path.suffix: path.stat().st_size for path in prefix.parent.glob(f"{prefix.name}.*") if path.is_file()
    }
    return Run(regions, seconds, facts["seconds"], peak, facts["peak_memory_bytes"], written)


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
