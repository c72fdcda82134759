"""tangermeme's deep_lift_shap with the arguments that it has by itself: one-hot tensors in and out.

It explains one output a call, so that several targets are several calls.
"""

from __future__ import annotations

import inspect
import warnings
from importlib.metadata import version

import numpy as np
from tangermeme.deep_lift_shap import deep_lift_shap

from benchmarks.task import Prepared, Scores, Task


def prepare(task: Task) -> Prepared:
    """The network and the one-hot sequences and references in memory, in the precision of the task."""
    task.as_torch_comes()
    networks = task.parts()
    sequences, references = task.one_hot()
    default = inspect.signature(deep_lift_shap).parameters["batch_size"].default
    batch_size = task.batch_size or int(default)
    if len(networks) > 1:  # the scores of a profile with fixed weights add up to no difference of a function
        warnings.filterwarnings("ignore", message="Convergence deltas", category=RuntimeWarning)

    def explain() -> Scores:
        made = [
            deep_lift_shap(
                network,
                sequences,
                references=references,
                batch_size=batch_size,
                device=task.device,
                hypothetical=True,
            )
            for network in networks
        ]
        return np.stack([scores.detach().numpy() for scores in made])

    return Prepared(explain, batch_size, {"tangermeme": version("tangermeme")})
