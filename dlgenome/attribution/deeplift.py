"""Contribution scores of sequences against their references, a fixed number of pairs a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.contributions import Contributions
from dlgenome.attribution.engine import PairMultipliers
from dlgenome.attribution.layout import StepShape, unflatten
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.methods import DEEPLIFT, Method
from dlgenome.attribution.readout import Readout, numbers

Array = NDArray[np.generic]


class DeepLift:
    """A program ready to explain sequences of one length, ``batch_size`` sequence-reference pairs a step.

    Every step has the same shape, the last one padded, so a sequence's scores are the same bits wherever in
    the run it stands. With fewer pairs a step than references a sequence takes several steps.
    ``keep_pairs`` also gives the contributions against every single reference.
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
    ) -> None:
        self.readouts = numbers(targets) if isinstance(targets, int) else tuple(targets)
        self.n_references, self.keep_pairs = n_references, keep_pairs
        per_step = min(batch_size, n_references)
        self.step = StepShape(max(1, batch_size // n_references), per_step)
        self.engine = method.engine(program, self.step)
        self.device, self.dtype = torch.device(device), dtype
        self._bases = torch.eye(5, 4, device=self.device, dtype=dtype)

    @property
    def sequences_per_step(self) -> int:
        """Sequences that :meth:`explain` takes at once."""
        return self.step.sequences

    @torch.no_grad()
    def explain(self, codes: NDArray[np.uint8], references: Array) -> list[Contributions]:
        """Scores of up to :attr:`sequences_per_step` sequences, one entry a target.

        ``codes`` is (sequences, length) base codes; ``references`` base codes (sequences, references, length)
        or numbers (sequences, references, bases, length).
        """
        count = len(codes)
        padded_codes, padded_references = (
            _pad(codes, self.step.sequences),
            _pad(references, self.step.sequences),
        )
        sequences = self._one_hot(padded_codes)
        totals = [_Totals(self.keep_pairs) for _ in self.readouts]
        for first in range(0, self.n_references, self.step.references):
            chunk = padded_references[:, first : first + self.step.references]
            self._add(sequences, chunk, totals)
        return [total.finish(sequences, count, self.n_references) for total in totals]

    def _add(self, sequences: Tensor, references: Array, totals: list[_Totals]) -> None:
        valid = references.shape[1]
        full = _pad(references.swapaxes(0, 1), self.step.references).swapaxes(0, 1)
        pairs = self._one_hot(full.reshape(self.step.pairs, *full.shape[2:]))
        rows = torch.cat([sequences.transpose(1, 2), pairs.transpose(1, 2)]).transpose(1, 2)
        result = self.engine.run(rows, self.readouts)
        for index, total in enumerate(totals):
            total.add(result, index, pairs, sequences, self.step, valid)

    def _one_hot(self, values: Array) -> Tensor:
        """Rows of (bases, length) whose bases lie next to each other in memory."""
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        if tensor.dtype is torch.uint8:
            return self._bases[tensor.int()].transpose(1, 2)
        return tensor.to(self.dtype).transpose(1, 2).contiguous().transpose(1, 2)


def _mean_of_equal(values: Tensor) -> Tensor:
    """Mean over references; the value itself where all are equal, which adding and dividing would blur."""
    equal = (values == values[:, :1]).all(1)
    return torch.where(equal, values[:, 0], values.mean(1))


def _pad(values: Array, size: int) -> Array:
    """Values with the first row repeated until there are ``size``."""
    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[:1], missing, axis=0)]) if missing else values


class _Totals:
    """Running sums over the references of the sequences of one step."""

    def __init__(self, keep_pairs: bool) -> None:
        self.multiplier: Tensor | None = None
        self.reference_share: Tensor | None = None
        self.pair_projected: list[Tensor] | None = [] if keep_pairs else None
        self.pair_sums: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.reference_predictions: list[Tensor] = []

    def add(
        self,
        result: PairMultipliers,
        target: int,
        pairs: Tensor,
        sequences: Tensor,
        step: StepShape,
        valid: int,
    ) -> None:
        """Add the pairs of one step, padding left out."""
        sizes = (step.sequences, step.references)
        multipliers = unflatten(result.multipliers[target], 0, sizes)[:, :valid]
        shares = (multipliers * unflatten(pairs, 0, sizes)[:, :valid]).sum(2)
        summed, shared = multipliers.sum(1), shares.sum(1)
        x = sequences.unsqueeze(1)
        own = (multipliers * x).sum(2) - shares * x.sum(2)
        if self.pair_projected is not None:
            self.pair_projected.append(own.cpu())
        self.pair_sums.append(own.sum(2))
        self.multiplier = summed if self.multiplier is None else self.multiplier + summed
        self.reference_share = shared if self.reference_share is None else self.reference_share + shared
        self.predictions.append(result.pair_predictions[:, :valid, target])
        self.reference_predictions.append(result.reference_predictions[:, :valid, target])

    def finish(self, sequences: Tensor, count: int, n_references: int) -> Contributions:
        """Averages over references, on the host."""
        assert self.multiplier is not None
        assert self.reference_share is not None
        hypothetical = ((self.multiplier - self.reference_share.unsqueeze(1)) / n_references)[:count]
        projected = hypothetical * sequences[:count]
        predictions = torch.cat(self.predictions, 1)[:count].cpu().double()
        references = torch.cat(self.reference_predictions, 1)[:count].cpu().double()
        pairs = None if self.pair_projected is None else torch.cat(self.pair_projected, 1)[:count].numpy()
        return Contributions(
            hypothetical=hypothetical.contiguous().cpu().numpy(),
            projected=projected.contiguous().cpu().numpy(),
            prediction=_mean_of_equal(predictions).numpy(),
            reference_prediction=references.mean(1).numpy(),
            contribution_sum=projected.cpu().sum((1, 2), dtype=torch.float64).numpy(),
            mean_abs_delta=(predictions - references).abs().mean(1).numpy(),
            pair_sums=torch.cat(self.pair_sums, 1)[:count].cpu().double().numpy(),
            pair_projected=pairs,
        )
