"""Scores averaged over references, and how rounds, strands and errors come out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MEANS = (
    "hypothetical",
    "projected",
    "prediction",
    "reference_prediction",
    "contribution_sum",
    "mean_abs_delta",
)


@dataclass(frozen=True)
class Contributions:
    """Scores of some sequences for one target, averaged over references, on the host."""

    hypothetical: NDArray[np.floating]
    """(sequences, bases, length)."""
    projected: NDArray[np.floating]
    """(sequences, bases, length): hypothetical at the base that is there, zero elsewhere."""
    prediction: NDArray[np.float64]
    reference_prediction: NDArray[np.float64]
    contribution_sum: NDArray[np.float64]
    mean_abs_delta: NDArray[np.float64]
    pair_sums: NDArray[np.float64]
    """(sequences, references): sum of the contributions against each single reference."""
    projected_squares: NDArray[np.float64]
    """(sequences, length): sum over references of the squared contribution of the base that is there."""


def join_rounds(rounds: Sequence[Contributions]) -> Contributions:
    """The same sequences against several rounds of references, as if all had been one round."""
    if len(rounds) == 1:
        return rounds[0]

    def mean(name: str) -> NDArray[Any]:
        values: NDArray[Any] = sum(getattr(part, name) for part in rounds) / len(rounds)
        return values

    return Contributions(
        **{name: mean(name) for name in _MEANS},
        pair_sums=np.concatenate([part.pair_sums for part in rounds], axis=1),
        projected_squares=sum((part.projected_squares for part in rounds[1:]), rounds[0].projected_squares),
    )


def join_strands(forward: Contributions, backward: Contributions) -> Contributions:
    """Mean over both strands, both in the orientation of the first; squares and pair sums likewise."""
    return Contributions(
        **{name: (getattr(forward, name) + getattr(backward, name)) / 2 for name in _MEANS},
        pair_sums=(forward.pair_sums + backward.pair_sums) / 2,
        projected_squares=(forward.projected_squares + backward.projected_squares) / 2,
    )


def flipped(scores: Contributions) -> Contributions:
    """Scores of reverse complements in the orientation of the sequences: positions and bases reversed."""
    return replace(
        scores,
        hypothetical=np.ascontiguousarray(scores.hypothetical[:, ::-1, ::-1]),
        projected=np.ascontiguousarray(scores.projected[:, ::-1, ::-1]),
        projected_squares=np.ascontiguousarray(scores.projected_squares[:, ::-1]),
    )


def total_standard_error(scores: Contributions) -> NDArray[np.float64]:
    """(sequences,): standard error over references of the sum of contributions; infinite for one."""
    count = scores.pair_sums.shape[1]
    if count < 2:
        return np.full(len(scores.pair_sums), np.inf)
    error: NDArray[np.float64] = scores.pair_sums.std(axis=1, ddof=1) / np.sqrt(count)
    return error


def base_standard_error(scores: Contributions) -> NDArray[np.float64]:
    """(sequences, length): standard error over references of the contribution of the base that is there."""
    count = scores.pair_sums.shape[1]
    mean = scores.projected.sum(1, dtype=np.float64)
    variance = (scores.projected_squares - count * mean**2) / max(count - 1, 1)
    error: NDArray[np.float64] = np.sqrt(np.clip(variance, 0, None) / count)
    return error
