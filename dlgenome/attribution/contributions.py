"""Scores averaged over references, and how rounds, strands and errors come out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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
    pair_projected: NDArray[np.floating] | None = None
    """(sequences, references, length): contribution of the base that is there against each single reference;
    kept only where its standard error is asked for."""
    squared_deviations: NDArray[np.float64] | None = None
    """(sequences, length): sum over references of the squared deviation of these from their mean."""


def joined_sequences(parts: Sequence[Contributions]) -> Contributions:
    """Scores of several lots of sequences as those of all of them."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    return Contributions(**{field.name: joined(field.name) for field in fields(Contributions)})


def summarised(scores: Contributions) -> Contributions:
    """The squared deviations in place of the contributions against single references, where they were kept.

    Strands are joined before, for the error of their mean depends on how the two vary together.
    """
    if scores.pair_projected is None:
        return scores
    pairs = scores.pair_projected.astype(np.float64)
    squares = np.square(pairs - pairs.mean(1, keepdims=True)).sum(1)
    return replace(scores, pair_projected=None, squared_deviations=squares)


def join_rounds(rounds: Sequence[Contributions]) -> Contributions:
    """The same sequences against several rounds of references, as if all had been one round.

    Rounds are :func:`summarised`, and all of one size.
    """
    if len(rounds) == 1:
        return rounds[0]

    def mean(name: str) -> NDArray[Any]:
        values: NDArray[Any] = sum(getattr(part, name) for part in rounds) / len(rounds)
        return values

    return Contributions(
        **{name: mean(name) for name in _MEANS},
        pair_sums=np.concatenate([part.pair_sums for part in rounds], axis=1),
        squared_deviations=_joined_deviations(rounds),
    )


def _joined_deviations(rounds: Sequence[Contributions]) -> NDArray[np.float64] | None:
    """Squared deviations within rounds, and those of the rounds from the mean of all."""
    if rounds[0].squared_deviations is None:
        return None
    within = [part.squared_deviations for part in rounds if part.squared_deviations is not None]
    means = np.stack([part.projected.sum(1, dtype=np.float64) for part in rounds])
    between = np.square(means - means.mean(0)).sum(0) * rounds[0].pair_sums.shape[1]
    squares: NDArray[np.float64] = np.sum(within, axis=0) + between
    return squares


def join_strands(forward: Contributions, backward: Contributions) -> Contributions:
    """Mean over both strands, both in the orientation of the first, and so for every single reference."""
    pairs = None
    if forward.pair_projected is not None and backward.pair_projected is not None:
        pairs = (forward.pair_projected + backward.pair_projected) / 2
    return Contributions(
        **{name: (getattr(forward, name) + getattr(backward, name)) / 2 for name in _MEANS},
        pair_sums=(forward.pair_sums + backward.pair_sums) / 2,
        pair_projected=pairs,
    )


def flipped(scores: Contributions) -> Contributions:
    """Scores of reverse complements in the orientation of the sequences: positions and bases reversed."""
    return replace(
        scores,
        hypothetical=np.ascontiguousarray(scores.hypothetical[:, ::-1, ::-1]),
        projected=np.ascontiguousarray(scores.projected[:, ::-1, ::-1]),
        pair_projected=_reversed(scores.pair_projected),
        squared_deviations=_reversed(scores.squared_deviations),
    )


def _reversed(values: NDArray[Any] | None) -> NDArray[Any] | None:
    return None if values is None else np.ascontiguousarray(values[..., ::-1])


def total_standard_error(scores: Contributions) -> NDArray[np.float64]:
    """(sequences,): standard error over references of the sum of contributions; infinite for one."""
    count = scores.pair_sums.shape[1]
    if count < 2:
        return np.full(len(scores.pair_sums), np.inf)
    error: NDArray[np.float64] = scores.pair_sums.std(axis=1, ddof=1) / np.sqrt(count)
    return error


def base_standard_error(scores: Contributions) -> NDArray[np.float64]:
    """(sequences, length): standard error over references of the contribution of the base that is there.

    ``scores`` are :func:`summarised`; infinite for one reference.
    """
    assert scores.squared_deviations is not None, "contributions against single references were not kept"
    count = scores.pair_sums.shape[1]
    if count < 2:
        return np.full(scores.squared_deviations.shape, np.inf)
    error: NDArray[np.float64] = np.sqrt(scores.squared_deviations / (count - 1) / count)
    return error
