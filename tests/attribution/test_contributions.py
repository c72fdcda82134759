"""Rounds, strands and standard errors against numpy on the single references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from dlgenome.attribution.contributions import (
    Contributions,
    base_standard_error,
    flipped,
    join_rounds,
    join_strands,
    summarised,
    total_standard_error,
)
from dlgenome.attribution.deeplift import DeepLift

SEQUENCES, REFERENCES, LENGTH = 3, 6, 20
MEANS = ("hypothetical", "prediction", "reference_prediction", "contribution_sum", "mean_abs_delta")


def from_pairs(pairs: NDArray[np.float64], seed: int = 0) -> Contributions:
    """Contributions whose base that is there has these scores against each single reference."""
    generator = np.random.default_rng(seed)
    count, _, length = pairs.shape
    bases = np.eye(4)[:, generator.integers(0, 4, (count, length))].swapaxes(0, 1)
    numbers = generator.normal(size=(4, count))
    return Contributions(
        hypothetical=generator.normal(size=(count, 4, length)),
        projected=bases * pairs.mean(1)[:, np.newaxis],
        prediction=numbers[0],
        reference_prediction=numbers[1],
        contribution_sum=pairs.mean(1).sum(1),
        mean_abs_delta=numbers[3],
        pair_sums=pairs.sum(2),
        pair_projected=pairs,
    )


def numpy_error(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error of the mean over axis 1."""
    return np.asarray(pairs.std(axis=1, ddof=1) / np.sqrt(pairs.shape[1]))


@pytest.fixture
def pairs() -> NDArray[np.float64]:
    generator = np.random.default_rng(7)
    scale = np.exp(generator.normal(size=(SEQUENCES, 1, LENGTH)) * 3)
    return np.asarray(generator.normal(size=(SEQUENCES, REFERENCES, LENGTH)) * scale + 2)


def test_errors_are_those_of_numpy(pairs: NDArray[np.float64]) -> None:
    scores = from_pairs(pairs)
    np.testing.assert_allclose(base_standard_error(summarised(scores)), numpy_error(pairs), rtol=1e-12)
    np.testing.assert_allclose(total_standard_error(scores), numpy_error(pairs.sum(2)), rtol=1e-12)


def test_one_reference_tells_nothing_of_the_error(pairs: NDArray[np.float64]) -> None:
    scores = summarised(from_pairs(pairs[:, :1]))
    assert np.isinf(total_standard_error(scores)).all()
    assert np.isinf(base_standard_error(scores)).all()


def test_scores_that_all_references_agree_on_have_no_error() -> None:
    """The mean of squares less the square of the mean would leave 3e-4 of the score in float32."""
    pairs = np.tile(np.float32(1234.567), (SEQUENCES, REFERENCES, LENGTH)).astype(np.float32)
    scores = from_pairs(pairs.astype(np.float64))
    single = replace(scores, pair_projected=pairs)
    assert not base_standard_error(summarised(single)).any()


def test_what_was_not_kept_stays_out(pairs: NDArray[np.float64]) -> None:
    scores = replace(from_pairs(pairs), pair_projected=None)
    assert summarised(scores) is scores
    assert flipped(scores).pair_projected is None
    assert join_strands(scores, flipped(scores)).pair_projected is None
    joined = join_rounds([scores, scores])
    assert joined.squared_deviations is None
    np.testing.assert_allclose(total_standard_error(joined), numpy_error(np.tile(pairs.sum(2), 2)))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_joined_are_one_round_of_all_references(rounds: int, pairs: NDArray[np.float64]) -> None:
    size = REFERENCES // rounds
    parts = [from_pairs(pairs[:, first : first + size], seed=first) for first in range(0, REFERENCES, size)]
    # The bases are those of the sequence, so they are the same in every round.
    bases = (parts[0].projected != 0).astype(float)
    parts = [
        replace(part, projected=bases * part.pair_projected.mean(1)[:, np.newaxis])
        for part in parts
        if part.pair_projected is not None
    ]
    joined = join_rounds([summarised(part) for part in parts])
    for name in MEANS:
        expected = np.mean([getattr(part, name) for part in parts], axis=0)
        np.testing.assert_allclose(getattr(joined, name), expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(joined.projected.sum(1), pairs.mean(1), rtol=1e-12)
    np.testing.assert_array_equal(joined.pair_sums, pairs.sum(2))
    np.testing.assert_allclose(base_standard_error(joined), numpy_error(pairs), rtol=1e-12)


def test_strands_are_averaged_for_every_single_reference(pairs: NDArray[np.float64]) -> None:
    """A base that is pushed up on one strand and down on the other by the same reference has no error."""
    forward, backward = from_pairs(pairs), from_pairs(10 - pairs, seed=1)
    joined = join_strands(forward, backward)
    for name in ("projected", *MEANS):
        expected = (getattr(forward, name) + getattr(backward, name)) / 2
        np.testing.assert_array_equal(getattr(joined, name), expected, err_msg=name)
    assert base_standard_error(summarised(joined)).max() < 1e-12 * np.abs(pairs).max()
    assert total_standard_error(joined).max() < 1e-12 * np.abs(pairs.sum(2)).max()
    other = from_pairs(pairs[:, ::-1] ** 2, seed=2)
    expected = numpy_error((pairs + pairs[:, ::-1] ** 2) / 2)
    found = base_standard_error(summarised(join_strands(forward, other)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_flipping_reverses_positions_and_bases_and_twice_is_nothing(pairs: NDArray[np.float64]) -> None:
    scores = from_pairs(pairs)
    turned = flipped(scores)
    for sequence in range(SEQUENCES):
        for base in range(4):
            for position in range(LENGTH):
                place = (sequence, 3 - base, LENGTH - 1 - position)
                assert turned.hypothetical[sequence, base, position] == scores.hypothetical[place]
                assert turned.projected[sequence, base, position] == scores.projected[place]
    assert turned.pair_projected is not None
    np.testing.assert_array_equal(turned.pair_projected, pairs[:, :, ::-1])
    np.testing.assert_array_equal(turned.pair_sums, scores.pair_sums)
    errors = base_standard_error(flipped(summarised(scores)))
    np.testing.assert_allclose(errors, numpy_error(pairs)[:, ::-1], rtol=1e-12)
    for name, values in vars(flipped(turned)).items():
        if values is not None:
            np.testing.assert_array_equal(values, getattr(scores, name), err_msg=name)


@pytest.mark.parametrize("batch_size", [4, 6, 18])
def test_errors_of_a_network_are_those_of_runs_with_one_reference(
    batch_size: int,
    explainer: Callable[..., DeepLift],
    random_codes: Callable[..., NDArray[np.uint8]],
) -> None:
    """Also where a sequence takes several steps, the last of them padded."""
    codes, references = random_codes(1, SEQUENCES, LENGTH), random_codes(2, SEQUENCES, REFERENCES, LENGTH)
    network = nn.Sequential(nn.Conv1d(4, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * (LENGTH - 4), 1))
    single = explainer(network, LENGTH, n_references=1, batch_size=SEQUENCES)
    kept: Any = explainer(network, LENGTH, n_references=REFERENCES, batch_size=batch_size)
    kept.keep_pairs = True
    runs = [single.explain(codes, references[:, [index]])[0] for index in range(REFERENCES)]
    expected = np.stack([run.projected.sum(1) for run in runs], axis=1).astype(np.float64)
    for first in range(0, SEQUENCES, kept.sequences_at_once):
        rows = slice(first, first + kept.sequences_at_once)
        (found,) = kept.explain(codes[rows], references[rows])
        largest = numpy_error(expected).max()
        errors = base_standard_error(summarised(found))
        np.testing.assert_allclose(errors, numpy_error(expected[rows]), atol=1e-6 * largest)
        totals = numpy_error(expected[rows].sum(2))
        np.testing.assert_allclose(total_standard_error(found), totals, rtol=1e-5)
