"""captum's DeepLiftShap, once for each sequence: all of a call share one set of baselines.

It has no hypothetical contributions; its own hook for other attributions is given what makes them.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import torch
from captum.attr import DeepLift, DeepLiftShap
from torch import Tensor

from benchmarks.task import Prepared, Scores, Task

Inputs = tuple[Tensor, ...]


def prepare(task: Task) -> Prepared:
    """The network and the one-hot sequences and references in memory, in the precision of the task.

    DeepLiftShap refuses a single baseline and names DeepLift for it.
    """
    task.as_torch_comes()
    sequences, references = (given.to(task.device) for given in task.one_hot())
    n_references = references.shape[1]
    if task.batch_size not in (None, n_references):
        raise ValueError(
            f"captum takes all {n_references} references of a sequence in one step, no other number."
        )
    kind = DeepLift if n_references == 1 else DeepLiftShap
    explainers = [kind(network.to(task.device)) for network in task.parts()]

    def explain() -> Scores:
        return np.stack([_explained(explainer, sequences, references) for explainer in explainers])

    return Prepared(explain, n_references, {"captum": version("captum")})


def _explained(explainer: DeepLift | DeepLiftShap, sequences: Tensor, references: Tensor) -> Scores:
    """(sequences, 4, length) of one target."""
    parts: list[Tensor] = [
        explainer.attribute(
            sequence[None], baselines=own, target=0, custom_attribution_func=hypothetical
        ).detach()
        for sequence, own in zip(sequences, references, strict=True)
    ]
    scores: Scores = torch.cat(parts).cpu().numpy()
    return scores


def hypothetical(multipliers: Inputs, _: Inputs, baselines: Inputs) -> Inputs:
    """Of each pair, (pairs, 4, length): every base in turn put in the place of the reference's."""
    [multiplier], [baseline] = multipliers, baselines
    return (multiplier - (multiplier * baseline).sum(dim=1, keepdim=True),)
