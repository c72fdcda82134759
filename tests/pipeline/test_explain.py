"""Batches explained by folds, on strands and with rounds of references, against plain runs of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.contributions import Contributions
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import Program, lower
from dlgenome.encoding import one_hot, reverse_complement
from dlgenome.folds import fold_mean
from dlgenome.pipeline.explain import Batch, Explainer, Rounds, Strands, join_folds, orient
from dlgenome.references.shuffled import ShuffledReferences
from dlgenome.types import Codes, Region, RegionScores, Window

LENGTH, REFERENCES, TARGETS = 40, 3, ("first", "second")
FORWARD = Strands()


class Network(nn.Module):
    """Two numbers of a sequence, with another answer for its other strand."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv, self.head = nn.Conv1d(4, 6, 7), nn.Linear(6 * (LENGTH - 6), 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.conv(x)).flatten(1))
        return found


class BothStrands(Network):
    """The same, averaged over the strands by the network itself."""

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) + super().forward(x.flip(1, 2))) / 2


@cache
def program_of(symmetric: bool, seed: int) -> Program:
    network = BothStrands(seed) if symmetric else Network(seed)
    return lower(capture(network.eval(), (4, LENGTH)))


def engine(
    seed: int = 0, *, symmetric: bool = False, n_references: int = REFERENCES, sequences: int = 4
) -> DeepLift:
    """The engine of one fold; ``sequences`` a step."""
    return DeepLift(
        program_of(symmetric, seed),
        targets=2,
        n_references=n_references,
        batch_size=sequences * n_references,
        keep_pairs=True,
    )


def references(n_references: int = REFERENCES) -> ShuffledReferences:
    return ShuffledReferences("dinucleotide-shuffle", n_references, 5, dinucleotides=True)


def explainer(engines: Sequence[DeepLift], **options: Any) -> Explainer:
    settings: dict[str, Any] = {
        "strands": Strands(),
        "rounds": Rounds(),
        "draw": references().draw_batch,
        "reference_se": False,
    }
    return Explainer(engines, TARGETS, **{**settings, **options})


def batch_of(codes: Codes, minus: Sequence[int] = (), strands: Strands = FORWARD) -> Batch:
    """A batch of these sequences; those in ``minus`` are on the minus strand."""
    windows = [
        Window(
            Region("chr1", 0, LENGTH, strand="-" if row in minus else "+", input_row=row),
            "chr1",
            0,
            LENGTH,
            LENGTH // 2,
        )
        for row in range(len(codes))
    ]
    oriented = orient(codes, windows, strands)
    return Batch(windows, codes, oriented, references().draw_batch(oriented, np.arange(len(codes))))


@pytest.fixture(scope="module")
def codes() -> Codes:
    found: Codes = np.random.default_rng(1).integers(0, 4, (4, LENGTH)).astype(np.uint8)
    found[2, 10:13] = 4
    return found


def single(found: list[list[dict[str, RegionScores]]], name: str = "first") -> list[RegionScores]:
    """The scores of the only fold."""
    assert all(len(folds) == 1 for folds in found)
    return [folds[0][name] for folds in found]


def assert_equal(scores: RegionScores, expected: Contributions, row: int) -> None:
    """To the bit, every number of it."""
    assert scores.hypothetical is not None
    np.testing.assert_array_equal(scores.hypothetical, expected.hypothetical[row])
    np.testing.assert_array_equal(scores.projected, expected.projected[row])
    for name in ("prediction", "reference_prediction", "contribution_sum", "mean_abs_delta"):
        assert getattr(scores, name) == getattr(expected, name)[row], name


def test_one_fold_on_one_strand_is_the_plain_run(codes: Codes) -> None:
    batch = batch_of(codes)
    found = explainer([engine()]).explain(batch)
    plain = engine().explain(codes, batch.references)
    for index, name in enumerate(TARGETS):
        for row, scores in enumerate(single(found, name)):
            assert_equal(scores, plain[index], row)
            assert scores.n_references == REFERENCES
            assert not scores.extras


def test_folds_are_explained_as_each_alone_and_joined_by_their_mean(codes: Codes) -> None:
    batch = batch_of(codes)
    together = explainer([engine(seed) for seed in range(3)])
    found = together.explain(batch)
    for row, folds in enumerate(found):
        for seed, fold in enumerate(folds):
            plain = engine(seed).explain(codes, batch.references)
            for index, name in enumerate(TARGETS):
                assert_equal(fold[name], plain[index], row)
        joined = join_folds(folds, with_sd=True)
        for name in TARGETS:
            mean = fold_mean([fold[name] for fold in folds], with_sd=True)
            np.testing.assert_array_equal(joined[name].projected, mean.projected)
            np.testing.assert_array_equal(joined[name].extras["fold_sd"], mean.extras["fold_sd"])
    assert join_folds(found[0][:1], with_sd=False) is found[0][0]


def test_both_strands_are_the_mean_with_the_references_turned_too(codes: Codes) -> None:
    batch = batch_of(codes)
    found = single(explainer([engine()], strands=Strands(both=True)).explain(batch))
    forward = engine().explain(codes, batch.references)[0]
    turned = np.stack([[reverse_complement(one) for one in row] for row in batch.references])
    backward = engine().explain(np.stack([reverse_complement(row) for row in codes]), turned)[0]
    for row, scores in enumerate(found):
        for name in ("hypothetical", "projected"):
            ours = getattr(forward, name)[row]
            theirs = getattr(backward, name)[row][::-1, ::-1]
            np.testing.assert_array_equal(getattr(scores, name), (ours + theirs) / 2, err_msg=name)
        assert scores.prediction == (forward.prediction[row] + backward.prediction[row]) / 2
        delta = scores.prediction - scores.reference_prediction
        assert scores.contribution_sum == pytest.approx(delta, abs=1e-5)


def test_references_in_numbers_are_turned_as_those_in_codes(codes: Codes) -> None:
    batch = batch_of(codes)
    numbers = Batch(batch.windows, codes, batch.oriented, one_hot(batch.references).astype(np.float32))
    both = explainer([engine()], strands=Strands(both=True))
    for coded, numeric in zip(single(both.explain(batch)), single(both.explain(numbers)), strict=True):
        np.testing.assert_array_equal(coded.projected, numeric.projected)


def test_a_model_that_averages_its_strands_has_the_same_scores_with_and_without(codes: Codes) -> None:
    batch = batch_of(codes)
    plain = single(explainer([engine(symmetric=True)]).explain(batch))
    both = single(explainer([engine(symmetric=True)], strands=Strands(both=True)).explain(batch))
    asymmetric = single(explainer([engine()]).explain(batch))
    asymmetric_both = single(explainer([engine()], strands=Strands(both=True)).explain(batch))
    largest = max(np.abs(scores.projected).max() for scores in plain)
    for row, scores in enumerate(plain):
        np.testing.assert_allclose(both[row].projected, scores.projected, atol=1e-5 * largest)
        gap = np.abs(asymmetric_both[row].projected - asymmetric[row].projected).max()
        assert gap > 0.05 * largest


@pytest.mark.parametrize("both", [False, True])
def test_minus_strand_regions_are_scored_as_their_reverse_complement(codes: Codes, both: bool) -> None:
    strands = Strands(both=both, follow_region=True)
    batch = batch_of(codes, minus=(1, 2), strands=strands)
    turned = codes.copy()
    for row in (1, 2):
        turned[row] = reverse_complement(codes[row])
    np.testing.assert_array_equal(batch.oriented, turned)
    found = single(explainer([engine()], strands=strands, reference_se=True).explain(batch))
    plain = explainer([engine()], strands=Strands(both=both), reference_se=True).explain(batch_of(turned))
    for row, (scores, expected) in enumerate(zip(found, single(plain), strict=True)):
        way = (slice(None, None, -1),) * 2 if row in (1, 2) else (slice(None),) * 2
        assert scores.hypothetical is not None
        assert expected.hypothetical is not None
        np.testing.assert_array_equal(scores.hypothetical, expected.hypothetical[way])
        np.testing.assert_array_equal(scores.projected, expected.projected[way])
        np.testing.assert_array_equal(scores.extras["reference_se"], expected.extras["reference_se"][way])
        assert scores.prediction == expected.prediction
        # Scores stand at the bases of the genome, whichever strand was explained.
        assert not scores.projected[one_hot(codes[row]) == 0].any()
        assert not scores.extras["reference_se"][one_hot(codes[row]) == 0].any()


def test_without_stranded_the_strand_of_a_region_is_not_looked_at(codes: Codes) -> None:
    plain = single(explainer([engine()]).explain(batch_of(codes)))
    minus = single(explainer([engine()]).explain(batch_of(codes, minus=(0, 1, 2, 3))))
    for one, other in zip(plain, minus, strict=True):
        np.testing.assert_array_equal(one.projected, other.projected)


@pytest.mark.parametrize("both", [False, True])
def test_standard_error_is_that_over_runs_with_one_reference_each(codes: Codes, both: bool) -> None:
    batch = batch_of(codes)
    options: dict[str, Any] = {"strands": Strands(both=both), "reference_se": True}
    found = single(explainer([engine()], **options).explain(batch))
    runs = []
    for index in range(REFERENCES):
        one = Batch(batch.windows, codes, codes, batch.references[:, [index]])
        runs.append(single(explainer([engine(n_references=1)], strands=Strands(both=both)).explain(one)))
    for row, scores in enumerate(found):
        singles = np.stack([run[row].projected for run in runs]).astype(np.float64)
        expected = singles.std(axis=0, ddof=1) / np.sqrt(REFERENCES)
        error = scores.extras["reference_se"]
        assert error.dtype == np.float32
        np.testing.assert_allclose(error, expected, atol=1e-5 * expected.max())


def single_totals(seed: int, codes: Codes, count: int, both: bool) -> NDArray[np.float64]:
    """(targets, references): the totals of one sequence in runs with one reference each."""
    drawn = references(count).draw_batch(codes, np.array([0]))[0]
    many = np.repeat(codes, count, axis=0)
    alone = explainer([engine(seed, n_references=1, sequences=count)], strands=Strands(both=both))
    found = alone.explain(Batch(batch_of(many).windows, many, many, drawn[:, np.newaxis]))
    return np.array([[scores.contribution_sum for scores in single(found, name)] for name in TARGETS])


def all_at_once(seed: int, codes: Codes, count: int, both: bool) -> RegionScores:
    """Scores of one sequence in a run with so many references."""
    drawn = references(count).draw_batch(codes, np.array([0]))
    plain = explainer([engine(seed, n_references=count, sequences=1)], strands=Strands(both=both))
    return single(plain.explain(Batch(batch_of(codes).windows, codes, codes, drawn)))[0]


@pytest.mark.parametrize("both", [False, True])
def test_rounds_stop_where_the_total_of_every_fold_and_target_is_known(codes: Codes, both: bool) -> None:
    folds, most = (0, 1), 5
    errors = {}
    for row in range(len(codes)):
        totals = np.stack([single_totals(seed, codes[[row]], most * REFERENCES, both) for seed in folds])
        for rounds in range(1, most + 1):
            count = rounds * REFERENCES
            errors[row, rounds] = (totals[..., :count].std(axis=-1, ddof=1) / np.sqrt(count)).max()
    wanted = float(np.median(list(errors.values())))
    expected = [
        next((rounds for rounds in range(1, most + 1) if errors[row, rounds] <= wanted), most)
        for row in range(len(codes))
    ]
    assert len(set(expected)) > 1, "the test needs regions that differ"
    adaptive = explainer(
        [engine(seed) for seed in folds], strands=Strands(both=both), rounds=Rounds(wanted, 1, most)
    )
    found = adaptive.explain(batch_of(codes))
    for row, (window, rounds) in enumerate(zip(found, expected, strict=True)):
        assert [fold["first"].n_references for fold in window] == [rounds * REFERENCES] * 2
        plain = all_at_once(0, codes[[row]], rounds * REFERENCES, both)
        largest = np.abs(plain.projected).max()
        np.testing.assert_allclose(window[0]["first"].projected, plain.projected, atol=2e-6 * largest)
        assert window[0]["first"].prediction == pytest.approx(plain.prediction, rel=1e-5)
        assert window[0]["first"].mean_abs_delta == pytest.approx(plain.mean_abs_delta, rel=1e-5)


def drawn_references(codes: Codes, rounds: Rounds, draw: Callable[..., Any] | None = None) -> list[int]:
    options = {} if draw is None else {"draw": draw}
    found = explainer([engine()], rounds=rounds, **options).explain(batch_of(codes))
    return [scores.n_references for scores in single(found)]


def test_there_are_no_fewer_and_no_more_rounds_than_said(codes: Codes) -> None:
    assert drawn_references(codes, Rounds(1e9, 1, 9)) == [REFERENCES] * 4
    assert drawn_references(codes, Rounds(1e9, 3, 9)) == [3 * REFERENCES] * 4
    assert drawn_references(codes, Rounds(1e-9, 1, 4)) == [4 * REFERENCES] * 4
    assert drawn_references(codes, Rounds(None, 1, 4)) == [REFERENCES] * 4


def test_later_rounds_take_later_references_of_the_regions_that_need_them(codes: Codes) -> None:
    asked: list[tuple[int, list[int]]] = []

    def draw(sequences: Codes, rows: NDArray[np.int64], first: int) -> Codes:
        asked.append((first, rows.tolist()))
        return references().draw_batch(sequences, rows, first)

    counts = drawn_references(codes, Rounds(0.02, 2, 6), draw)
    assert [first for first, _ in asked] == [REFERENCES * (1 + index) for index in range(len(asked))]
    for first, rows in asked:
        assert rows == [row for row, count in enumerate(counts) if count > first]
    assert all(set(later) <= set(earlier) for (_, earlier), (_, later) in pairwise(asked))


def test_adaptive_scores_do_not_depend_on_the_other_regions(codes: Codes) -> None:
    adaptive = explainer([engine()], rounds=Rounds(0.03, 1, 6), reference_se=True)
    together = single(adaptive.explain(batch_of(codes)))
    assert len({scores.n_references for scores in together}) > 1
    order = [3, 1, 0, 2]
    turned = single(adaptive.explain(batch_of(codes[order])))
    alone = [single(adaptive.explain(batch_of(codes[[row]])))[0] for row in range(4)]
    for place, row in enumerate(order):
        for other in (turned[place], alone[row]):
            assert other.n_references == together[row].n_references
            np.testing.assert_array_equal(other.projected, together[row].projected)
            np.testing.assert_array_equal(other.extras["reference_se"], together[row].extras["reference_se"])
    small = explainer([engine(sequences=1)], rounds=Rounds(0.03, 1, 6))
    for row in range(4):
        one = single(small.explain(batch_of(codes[[row]])))[0]
        assert one.n_references == together[row].n_references
        np.testing.assert_allclose(one.projected, together[row].projected, atol=1e-6)
