"""Contribution scores of sequences against their references, a fixed number of pairs a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.averages import StepSums, averages, step_sums
from dlgenome.attribution.contributions import Contributions, joined_sequences
from dlgenome.attribution.engine import Forwarded
from dlgenome.attribution.layout import step_shape
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.parallel import Lanes
from dlgenome.attribution.readout import Readout, numbers
from dlgenome.attribution.recording import Recorded, Recorder
from dlgenome.errors import Interrupted

Array = NDArray[np.generic]


class DeepLift:
    """A program ready to explain sequences of one length, ``batch_size`` sequence-reference pairs a step.

    Every step has the same shape, the last one padded, so a sequence's scores are the same bits wherever in
    the run it stands, and however many steps run side by side. With fewer pairs a step than references a
    sequence takes several steps. ``keep_pairs`` also gives the contributions against every single reference;
    ``recorder`` records the steps of a GPU, unless those are kept.
    """

    def __init__(
        self,
        program: Program,
        *,
        targets: int | Sequence[Readout],
        n_references: int,
        batch_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        method: Method = DEEPLIFT,
        keep_pairs: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.readouts = numbers(targets) if isinstance(targets, int) else tuple(targets)
        self.n_references, self.keep_pairs = n_references, keep_pairs
        self.step = step_shape(batch_size, n_references)
        self.engine = method.engine(program, self.step)
        self.device, self.dtype = torch.device(device), dtype
        self._lanes = Lanes(self.device)
        self._abandoned = threading.Event()
        self._bases = torch.eye(5, 4, device=self.device, dtype=dtype)
        self._forward_rows: Callable[[Tensor], Forwarded] = self._forwarded
        self._run_step: Callable[[Forwarded, Tensor, int], list[StepSums]] = self._step
        # lanes would record, and overwrite, one another's steps
        if recorder is not None and not keep_pairs and self._lanes.count == 1:
            self._record(recorder)

    @property
    def sequences_at_once(self) -> int:
        """Sequences that :meth:`explain` is best given together."""
        return self.step.sequences * self._lanes.count

    def explain(self, codes: NDArray[np.uint8], references: Array) -> list[Contributions]:
        """Scores of any number of sequences, one entry a target.

        ``codes`` is (sequences, length) base codes; ``references`` base codes (sequences, references, length)
        or numbers (sequences, references, bases, length).
        """
        if self.n_references <= self.step.references:
            size = self.step.sequences
            groups = [slice(first, first + size) for first in range(0, len(codes), size)]
            found = self._lanes.map(
                lambda group: self._explain_group(codes[group], references[group]), groups
            )
        else:
            taken = self.sequences_at_once
            pieces = [slice(first, first + taken) for first in range(0, len(codes), taken)]
            found = [self._explain_in_steps(codes[piece], references[piece]) for piece in pieces]
        return [joined_sequences(parts) for parts in zip(*found, strict=True)]

    def abandon(self) -> None:
        """Let :meth:`explain`, in whatever threads it runs, raise Interrupted before the next step."""
        self._abandoned.set()

    def _explain_group(self, codes: NDArray[np.uint8], references: Array) -> list[Contributions]:
        """Sequences that one step explains whole, from the first to the last of it in one lane."""
        own = self._forward(codes)
        return self._averages(own, len(codes), [self._sums(own, references)])

    def _explain_in_steps(self, codes: NDArray[np.uint8], references: Array) -> list[Contributions]:
        """Sequences that take several steps each, all of which the lanes share."""
        size = self.step.sequences
        groups = [slice(first, first + size) for first in range(0, len(codes), size)]
        forwarded = self._lanes.map(lambda group: self._forward(codes[group]), groups)
        firsts = range(0, self.n_references, self.step.references)
        steps = [
            (own, references[group, first : first + self.step.references])
            for group, own in zip(groups, forwarded, strict=True)
            for first in firsts
        ]
        sums = self._lanes.map(lambda step: self._sums(*step), steps)
        found = [
            self._averages(own, len(codes[group]), sums[place : place + len(firsts)])
            for group, own, place in zip(groups, forwarded, range(0, len(sums), len(firsts)), strict=True)
        ]
        return [joined_sequences(parts) for parts in zip(*found, strict=True)]

    def _record(self, recorder: Recorder) -> None:
        """Replace both halves of a step by recordings; one for each number of references that steps have.

        A recorded step reads what the forward half has left, which stays where it is from call to call.
        """
        forward = Recorded(self._forwarded, recorder, "the forward pass of the sequences")
        steps: dict[object, Recorded[list[StepSums]]] = {}

        def run_step(sequences: Forwarded, rows: Tensor, valid: int) -> list[StepSums]:
            if sequences is not forward.standing:
                return self._step(sequences, rows, valid)
            kind = valid, rows.dtype, rows.shape
            if kind not in steps:
                name = f"a step of {self.step.pairs} pairs"
                steps[kind] = Recorded(lambda pairs: self._step(sequences, pairs, valid), recorder, name)
            return [one.copied() for one in steps[kind](rows)]

        self._forward_rows, self._run_step = forward, run_step

    def _forward(self, codes: NDArray[np.uint8]) -> Forwarded:
        return self._forward_rows(self._on_device(_pad(codes, self.step.sequences)))

    def _sums(self, sequences: Forwarded, references: Array) -> list[StepSums]:
        """What one step adds to the scores of its sequences, for every target."""
        if self._abandoned.is_set():
            raise Interrupted("Nobody waits for these scores any more")
        full = _pad(references, self.step.sequences).swapaxes(0, 1)
        full = _pad(full, self.step.references).swapaxes(0, 1)
        rows = self._on_device(full.reshape(self.step.pairs, *full.shape[2:]))
        return self._run_step(sequences, rows, references.shape[1])

    @torch.no_grad()
    def _forwarded(self, rows: Tensor) -> Forwarded:
        return self.engine.forward_sequences(self._one_hot(rows))

    @torch.no_grad()
    def _step(self, sequences: Forwarded, rows: Tensor, valid: int) -> list[StepSums]:
        pairs = self._one_hot(rows)
        result = self.engine.run_pairs(sequences, pairs, self.readouts)
        return [
            step_sums(result, target, sequences.rows, pairs, self.step, valid, self.keep_pairs)
            for target in range(len(self.readouts))
        ]

    def _averages(
        self, sequences: Forwarded, count: int, sums: Sequence[list[StepSums]]
    ) -> list[Contributions]:
        return [
            averages([step[target] for step in sums], sequences.rows, count, self.n_references)
            for target in range(len(self.readouts))
        ]

    def _on_device(self, values: Array) -> Tensor:
        """The same numbers; on their way to a GPU they wait for nothing."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _one_hot(self, tensor: Tensor) -> Tensor:
        """Rows of (bases, length) whose bases lie next to each other in memory, of codes or of numbers."""
        if tensor.dtype is torch.uint8:
            return self._bases[tensor.int()].transpose(1, 2)
        return tensor.to(self.dtype).transpose(1, 2).contiguous().transpose(1, 2)


def _pad(values: Array, size: int) -> Array:
    """Values with the first row repeated until there are ``size``."""
    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[:1], missing, axis=0)]) if missing else values
