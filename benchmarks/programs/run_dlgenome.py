"""dlgenome as `dlgenome attribute` runs it: base codes in, scores on the host out."""

from __future__ import annotations

from importlib.metadata import version
from itertools import accumulate
from math import ceil

import numpy as np
import torch

from benchmarks.task import Prepared, Scores, Task
from dlgenome.allocator import keep_freed_memory
from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import allow_tf32, automatic_batch_size
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.attribution.readout import Readout
from dlgenome.model.outputs import find_outputs
from dlgenome.model.targets import TargetHead, parse_targets


def prepare(task: Task) -> Prepared:
    """The engine with the settings that the command chooses by itself."""
    keep_freed_memory()
    device = torch.device(task.device)
    if device.type == "cuda":
        allow_tf32(task.precision)
    head = TargetHead(task.network(), parse_targets(task.facts.targets))
    readouts = _readouts(head, task.facts.length)
    program = lower(capture(head, (4, task.facts.length), device=device, dtype=task.dtype))
    if task.precision == "bfloat16":
        program = with_narrow_products(program)
    sequences, references = task.codes()
    n_references = references.shape[1]
    automatic = automatic_batch_size(program, n_references, device, task.dtype)
    threads = task.threads if device.type == "cpu" else 1
    batch_size = task.batch_size or filled(automatic, len(sequences), n_references, threads)
    deep_lift = DeepLift(
        program,
        targets=readouts,
        n_references=n_references,
        batch_size=batch_size,
        device=device,
        dtype=task.dtype,
    )
    size = deep_lift.sequences_at_once

    def explain() -> Scores:
        steps = [
            deep_lift.explain(sequences[first : first + size], references[first : first + size])
            for first in range(0, len(sequences), size)
        ]
        return np.stack(
            [np.concatenate([one.hypothetical for one in made]) for made in zip(*steps, strict=True)]
        )

    return Prepared(explain, batch_size, {"dlgenome": version("dlgenome")})


def _readouts(head: TargetHead, length: int) -> list[Readout]:
    """Where the targets stand in the output of the head."""
    widths = head.widths(find_outputs(head.model, length))
    ends = list(accumulate(widths))
    return [
        Readout(end - width, end, "bpnet" if target.kind == "profile-bpnet" else "number")
        for target, width, end in zip(head.targets, widths, ends, strict=True)
    ]


def filled(automatic: int, sequences: int, n_references: int, threads: int) -> int:
    """The automatic size of a step, or what makes all steps of a turn full and as many for each thread.

    A long run is made of full steps on every thread. A turn is short: its last step would be padded and a
    thread would have none, and both would be timed as if they were work.
    """
    at_once = automatic // n_references
    if not at_once:
        return automatic
    steps = ceil(sequences / at_once / threads) * threads
    return ceil(sequences / steps) * n_references
