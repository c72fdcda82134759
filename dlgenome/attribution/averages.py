"""From the multipliers of pairs to scores averaged over references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.contributions import Contributions
from dlgenome.attribution.engine import PairMultipliers
from dlgenome.attribution.layout import StepShape, unflatten


@dataclass(frozen=True)
class StepSums:
    """What one step adds to the scores of its sequences for one target."""

    multiplier: Tensor
    """(sequences, bases, length): multipliers summed over the references of the step."""
    reference_share: Tensor
    """(sequences, length): those of the bases of the references, summed."""
    pair_sums: Tensor
    """(sequences, references): sum of the contributions against each reference."""
    predictions: Tensor
    """(sequences, references)."""
    reference_predictions: Tensor
    pair_projected: Tensor | None
    """(sequences, references, length), on the host, where every single reference is asked for."""

    def copied(self) -> StepSums:
        """The same numbers in memory of their own."""
        values: list[Any] = [getattr(self, field.name) for field in fields(self)]
        own: list[Any] = [None if value is None else value.clone() for value in values]
        return StepSums(*own)


def step_sums(
    result: PairMultipliers,
    target: int,
    sequences: Tensor,
    pairs: Tensor,
    step: StepShape,
    valid: int,
    keep_pairs: bool,
) -> StepSums:
    """Sums over the first ``valid`` references of a step; the others only fill it up."""
    sizes = (step.sequences, step.references)
    multipliers = unflatten(result.multipliers[target], 0, sizes)[:, :valid]
    shares = (multipliers * unflatten(pairs, 0, sizes)[:, :valid]).sum(2)
    x = sequences.unsqueeze(1)
    own = (multipliers * x).sum(2) - shares * x.sum(2)
    return StepSums(
        multiplier=multipliers.sum(1),
        reference_share=shares.sum(1),
        pair_sums=own.sum(2),
        predictions=result.pair_predictions[:, :valid, target],
        reference_predictions=result.reference_predictions[:, :valid, target],
        pair_projected=own.cpu() if keep_pairs else None,
    )


def averages(steps: Sequence[StepSums], sequences: Tensor, count: int, n_references: int) -> Contributions:
    """Averages over the references of all steps, for the first ``count`` sequences, on the host.

    Steps are added up in their order, so the bits do not depend on which of them was done first.
    """
    multiplier, share = steps[0].multiplier, steps[0].reference_share
    for step in steps[1:]:
        multiplier, share = multiplier + step.multiplier, share + step.reference_share
    hypothetical = ((multiplier - share.unsqueeze(1)) / n_references)[:count]
    projected = hypothetical * sequences[:count]
    predictions = torch.cat([step.predictions for step in steps], 1)[:count].cpu().double()
    references = torch.cat([step.reference_predictions for step in steps], 1)[:count].cpu().double()
    pairs = [step.pair_projected for step in steps if step.pair_projected is not None]
    return Contributions(
        hypothetical=hypothetical.contiguous().cpu().numpy(),
        projected=projected.contiguous().cpu().numpy(),
        prediction=_mean_of_equal(predictions).numpy(),
        reference_prediction=references.mean(1).numpy(),
        contribution_sum=projected.cpu().sum((1, 2), dtype=torch.float64).numpy(),
        mean_abs_delta=(predictions - references).abs().mean(1).numpy(),
        pair_sums=torch.cat([step.pair_sums for step in steps], 1)[:count].cpu().double().numpy(),
        pair_projected=torch.cat(pairs, 1)[:count].numpy() if pairs else None,
    )


def _mean_of_equal(values: Tensor) -> Tensor:
    """Mean over references; the value itself where all are equal, which adding and dividing would blur."""
    equal = (values == values[:, :1]).all(1)
    return torch.where(equal, values[:, 0], values.mean(1))
