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
    *,
    floor: float | None = None,
) -> NDArray[np.float64]:
    """|sum of contributions - (f(x) - mean f(ref))| / mean of |f(x) - f(ref)|, for each region.

    ``floor`` is that of the whole run where these are a part of its regions. NaN where ``mean_abs_delta`` is
    NaN, which is how methods without a completeness property say so.
    """
    if floor is None:
        floor = completeness_floor(mean_abs_delta)
    missed = np.abs(contribution_sum - (prediction - reference_prediction))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = missed / np.maximum(mean_abs_delta, floor)
    # A run in which the output never moves has a scale of zero, and missing nothing is then no error.
    error[(missed == 0) & ~np.isnan(mean_abs_delta)] = 0.0
    return error


def completeness_floor(mean_abs_delta: NDArray[np.float64]) -> float:
    """The smallest denominator of a run's completeness errors: 1e-6 of the median of all its regions."""
    known = mean_abs_delta[~np.isnan(mean_abs_delta)]
    return 1e-6 * float(np.median(known, overwrite_input=True)) if len(known) else np.nan


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
    worst_row = int(np.nanargmax(delta_error))
    maximum = float(known.max())
    median, percentile_99 = np.percentile(known, (50, 99), method="higher", overwrite_input=True)
    return CompletenessSummary(float(median), float(percentile_99), maximum, worst_row)
