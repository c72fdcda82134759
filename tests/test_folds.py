"""The mean over folds agrees with a sum written out by hand, to the last bit."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from dlgenome.folds import fold_mean
from dlgenome.types import RegionScores


@pytest.fixture
def folds() -> list[RegionScores]:
    generator = np.random.default_rng(1)
    scores = []
    for _ in range(5):
        hypothetical = generator.normal(size=(4, 12)).astype(np.float32)
        projected = hypothetical * np.eye(4, dtype=np.float32)[:, generator.integers(0, 4, 12)]
        prediction, reference, total, scale = generator.normal(size=4).tolist()
        extras = {"reference_se": generator.random((4, 12), dtype=np.float32)}
        scores.append(RegionScores(hypothetical, projected, prediction, reference, total, scale, 20, extras))
    return scores


def test_mean_is_the_float32_sum_in_fold_order_divided_by_the_folds(folds: list[RegionScores]) -> None:
    mean = fold_mean(folds, with_sd=False)
    for name in ("hypothetical", "projected"):
        total = getattr(folds[0], name).copy()
        for fold in folds[1:]:
            total += getattr(fold, name)
        total /= 5
        assert getattr(mean, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(mean, name), total)
    assert list(mean.extras) == ["reference_se"]


def test_numbers_are_averaged_as_float64(folds: list[RegionScores]) -> None:
    mean = fold_mean(folds, with_sd=False)
    for name in ("prediction", "reference_prediction", "contribution_sum", "mean_abs_delta"):
        total = getattr(folds[0], name)
        for fold in folds[1:]:
            total += getattr(fold, name)
        assert getattr(mean, name) == total / 5
    assert mean.n_references == 20


def test_deviation_is_the_sample_deviation_of_the_projected_scores(folds: list[RegionScores]) -> None:
    deviation = fold_mean(folds, with_sd=True).extras["fold_sd"]
    assert deviation.dtype == np.float32
    for base in range(4):
        for position in range(12):
            values = [float(fold.projected[base, position]) for fold in folds]
            assert deviation[base, position] == pytest.approx(statistics.stdev(values), rel=1e-6)


def test_one_fold_is_its_own_mean_and_is_not_changed(folds: list[RegionScores]) -> None:
    before = folds[0].projected.copy()
    mean = fold_mean(folds[:1], with_sd=False)
    np.testing.assert_array_equal(mean.projected, before)
    fold_mean(folds, with_sd=True)
    np.testing.assert_array_equal(folds[0].projected, before)
    assert mean.projected is not folds[0].projected


def test_folds_without_hypothetical_scores_or_a_scale_keep_saying_so(folds: list[RegionScores]) -> None:
    bare = [replace(fold, hypothetical=None, mean_abs_delta=math.nan) for fold in folds]
    mean = fold_mean(bare, with_sd=False)
    assert mean.hypothetical is None
    assert math.isnan(mean.mean_abs_delta)


def test_other_extras_are_averaged_and_fewest_references_count(folds: list[RegionScores]) -> None:
    mean = fold_mean([replace(folds[0], n_references=40), folds[1]], with_sd=True)
    expected = (folds[0].extras["reference_se"] + folds[1].extras["reference_se"]) / np.float32(2)
    np.testing.assert_array_equal(mean.extras["reference_se"], expected)
    assert mean.n_references == 20


def test_folds_that_cannot_be_joined_are_refused(folds: list[RegionScores]) -> None:
    with pytest.raises(ValueError, match="0 folds have no mean"):
        fold_mean([], with_sd=False)
    with pytest.raises(ValueError, match="1 folds have no standard deviation"):
        fold_mean(folds[:1], with_sd=True)
    with pytest.raises(ValueError, match="same kinds"):
        fold_mean([folds[0], replace(folds[1], hypothetical=None)], with_sd=False)
    with pytest.raises(ValueError, match="cannot be one of the folds"):
        fold_mean([fold_mean(folds, with_sd=True)] * 2, with_sd=False)
