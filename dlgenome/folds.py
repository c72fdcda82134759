"""What several folds of a model say together: the mean of their scores, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import RegionScores

FOLD_SD = "fold_sd"
"""Name of the standard deviation among the extras of a region's scores."""


def fold_mean(folds: Sequence[RegionScores], with_sd: bool) -> RegionScores:
    """The mean of what the folds say about one window, every number of it.

    With ``with_sd`` its extras hold ``fold_sd``, the sample standard deviation (``ddof=1``) of the projected
    scores across folds. Other extras are averaged: folds share their references, so the mean of their
    standard errors is never below the standard error of the mean. ``n_references`` is the fewest of any fold.

    The folds are added in the order given, arrays as float32, so that folds scored in one run and folds
    joined afterwards give the same bits. Raises ValueError for no folds, for a deviation of fewer than two,
    and for folds that do not hold the same kinds of scores.
    """
    _check(folds, with_sd)
    extras = {name: _mean_array([fold.extras[name] for fold in folds]) for name in folds[0].extras}
    if with_sd:
        extras[FOLD_SD] = _deviation([fold.projected for fold in folds])
    hypothetical = [fold.hypothetical for fold in folds if fold.hypothetical is not None]
    return RegionScores(
        hypothetical=_mean_array(hypothetical) if hypothetical else None,
        projected=_mean_array([fold.projected for fold in folds]),
        prediction=_mean_number(folds, lambda fold: fold.prediction),
        reference_prediction=_mean_number(folds, lambda fold: fold.reference_prediction),
        contribution_sum=_mean_number(folds, lambda fold: fold.contribution_sum),
        mean_abs_delta=_mean_number(folds, lambda fold: fold.mean_abs_delta),
        n_references=min(fold.n_references for fold in folds),
        extras=extras,
    )


def _check(folds: Sequence[RegionScores], with_sd: bool) -> None:
    if len(folds) < (2 if with_sd else 1):
        raise ValueError(f"{len(folds)} folds have no {'standard deviation' if with_sd else 'mean'}")
    kinds = {(fold.hypothetical is None, tuple(sorted(fold.extras))) for fold in folds}
    if len(kinds) > 1:
        raise ValueError("the folds do not hold the same kinds of scores")
    if FOLD_SD in folds[0].extras:
        raise ValueError("a mean over folds cannot be one of the folds of another mean")


def _mean_array(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    total = arrays[0].astype(np.float32)
    for array in arrays[1:]:
        total += array
    total /= np.float32(len(arrays))
    return total


def _mean_number(folds: Sequence[RegionScores], number: Callable[[RegionScores], float]) -> float:
    total = float(number(folds[0]))
    for fold in folds[1:]:
        total += float(number(fold))
    return total / len(folds)


def _deviation(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    deviation: NDArray[np.float64] = np.std(np.stack(arrays), axis=0, ddof=1, dtype=np.float64)
    return deviation.astype(np.float32)
