"""How well contributions add up to the difference that they explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def completeness_error(
    contribution_sum: NDArray[np.float64],
    prediction: NDArray[np.float64],
    reference_prediction: NDArray[np.float64],
    mean_abs_delta: NDArray[np.float64],
) -> NDArray[np.float64]:
    """|sum of contributions - (f(x) - mean f(ref))| / mean of |f(x) - f(ref)|, for each region.

    The denominator is floored at 1e-6 of its median over the run. NaN where ``mean_abs_delta`` is NaN,
    which is how methods without a completeness property say so.
    """
    known = mean_abs_delta[~np.isnan(mean_abs_delta)]
    floor = 1e-6 * float(np.median(known)) if len(known) else np.nan
    missed = np.abs(contribution_sum - (prediction - reference_prediction))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = missed / np.maximum(mean_abs_delta, floor)
    # A run in which the output never moves has a scale of zero, and missing nothing is then no error.
    error[(missed == 0) & ~np.isnan(mean_abs_delta)] = 0.0
    return error


@dataclass(frozen=True)
class CompletenessSummary:
    """How well the contributions of a run add up; all NaN for methods without a completeness property."""

    median: float
    percentile_99: float
    maximum: float
    worst_row: int
    """Row of the maximum, or -1."""


def summarize_completeness(delta_error: NDArray[np.float64]) -> CompletenessSummary:
    """Median, 99th percentile and maximum of the completeness errors that are numbers."""
    known = delta_error[~np.isnan(delta_error)]
    if not len(known):
        return CompletenessSummary(np.nan, np.nan, np.nan, -1)
    return CompletenessSummary(
        median=float(np.percentile(known, 50, method="higher")),
        percentile_99=float(np.percentile(known, 99, method="higher")),
        maximum=float(known.max()),
        worst_row=int(np.nanargmax(delta_error)),
    )
