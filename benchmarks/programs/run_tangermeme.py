"""tangermeme's deep_lift_shap with the arguments that it has by itself: one-hot tensors in and out."""

from __future__ import annotations

import inspect
from importlib.metadata import version

from tangermeme.deep_lift_shap import deep_lift_shap

from benchmarks.task import Prepared, Scores, Task


def prepare(task: Task) -> Prepared:
    """The network and the one-hot sequences and references in memory, in the precision of the task."""
    network = task.network().to(task.dtype)
    sequences, references = task.one_hot()
    default = inspect.signature(deep_lift_shap).parameters["batch_size"].default
    batch_size = task.batch_size or int(default)

    def explain() -> Scores:
        scores: Scores = (
            deep_lift_shap(
                network,
                sequences,
                references=references,
                batch_size=batch_size,
                device="cpu",
                hypothetical=True,
            )
            .detach()
            .numpy()
        )
        return scores

    return Prepared(explain, batch_size, {"tangermeme": version("tangermeme")})
