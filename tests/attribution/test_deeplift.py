"""Scores of sequences: what they mean, and that neither batch size, order nor padding changes them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import Program, lower
from dlgenome.errors import Interrupted

LENGTH, REFERENCES = 60, 20


class Mixed(nn.Module):
    """Convolutions, an overlapping pool, batch norm, GELU, a gate, means and dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 11, 7), nn.Conv1d(11, 13, 3, dilation=2)
        self.norm = nn.BatchNorm1d(13)
        self.dense, self.head = nn.Linear(13 * 7, 24), nn.Linear(24, 2)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.3)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool1d(F.gelu(self.first(x)), 3, 2)
        x = self.norm(self.second(x))
        x = torch.tanh(x) * torch.sigmoid(x)
        x = torch.cat([F.adaptive_max_pool1d(x, 6), x.mean(-1, keepdim=True)], -1)
        return self.head(F.gelu(self.dense(x.flatten(1))))


class Functions(nn.Module):
    """Functions that torch computes by two formulas, in vectors and one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(4, 9, 5), nn.Linear(9, 2)
        nn.init.normal_(self.first.weight)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        x = F.mish(x) + F.silu(x) * F.softplus(x, 2.0) + F.gelu(x, approximate="tanh") + F.selu(x)
        x = x + torch.log1p(F.softplus(x)) + (torch.sigmoid(x) + 0.1) ** 1.7
        return self.head(x.mean(-1))


def relu_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 12, 9, padding=4), nn.ReLU(), nn.Conv1d(12, 12, 3, padding=2, dilation=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 2),
    )  # fmt: skip


def dense_network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4 * LENGTH, 33), nn.ReLU(), nn.Linear(33, 17), nn.GELU(), nn.Linear(17, 2)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mixed": Mixed,
    "functions": Functions,
    "relu": relu_network,
    "dense": dense_network,
}


def scores_of(explainer: Any, codes: NDArray[np.uint8], references: Any) -> list[dict[str, Any]]:
    """Every number of every sequence, step after step, one entry a target."""
    taken = explainer.sequences_at_once
    steps = [
        explainer.explain(codes[first : first + taken], references[first : first + taken])
        for first in range(0, len(codes), taken)
    ]
    names = [name for name, values in vars(steps[0][0]).items() if values is not None]
    return [
        {name: np.concatenate([getattr(step[target], name) for step in steps]) for name in names}
        for target in range(len(explainer.readouts))
    ]


def assert_same_bits(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@cache
def program_of(name: str) -> Program:
    torch.manual_seed(1)
    return lower(capture(NETWORKS[name]().eval(), (4, LENGTH)))


def make(name: str, batch_size: int = 64) -> DeepLift:
    program = program_of(name)
    return DeepLift(program, targets=2, n_references=REFERENCES, batch_size=batch_size, keep_pairs=True)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_size_changes_scores_by_rounding_only(name: str, random_codes: Any) -> None:
    codes, references = random_codes(1, 5, LENGTH), random_codes(2, 5, REFERENCES, LENGTH)
    expected = None
    for batch_size in (1, 7, 20, 64):
        scores = scores_of(make(name, batch_size=batch_size), codes, references)
        expected = expected or scores
        for one, other in zip(expected, scores, strict=True):
            for key in ("hypothetical", "projected", "prediction", "reference_prediction"):
                assert np.abs(one[key] - other[key]).max() <= 1e-6 * np.abs(one[key]).max(), key


def check_order_and_second_run(name: str, batch_size: int, random_codes: Any) -> None:
    codes, references = random_codes(3, 7, LENGTH), random_codes(4, 7, REFERENCES, LENGTH)
    deeplift = make(name, batch_size=batch_size)
    scores = scores_of(deeplift, codes, references)
    assert_same_bits(scores, scores_of(deeplift, codes, references))
    assert_same_bits(scores, scores_of(make(name, batch_size=batch_size), codes, references))
    order = np.array([4, 0, 6, 5, 1, 3, 2])
    shuffled = scores_of(deeplift, codes[order], references[order])
    assert_same_bits([{key: value[order] for key, value in one.items()} for one in scores], shuffled)


@pytest.mark.parametrize("name", NETWORKS)
def test_order_place_in_the_batch_and_a_second_run_change_no_bit(name: str, random_codes: Any) -> None:
    check_order_and_second_run(name, 64, random_codes)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_same_holds_of_passes_for_large_values(
    name: str, batch_size: int, random_codes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlgenome.attribution.kernels.MIN_ELEMENTS", 1)
    check_order_and_second_run(name, batch_size, random_codes)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_holds_with_fewer_pairs_a_step_than_references(name: str, random_codes: Any) -> None:
    check_order_and_second_run(name, 7, random_codes)


@pytest.mark.parametrize("name", NETWORKS)
def test_neighbours_and_padding_of_the_last_step_change_no_bit(name: str, random_codes: Any) -> None:
    codes, references = random_codes(5, 3, LENGTH), random_codes(6, 3, REFERENCES, LENGTH)
    deeplift = make(name)
    assert deeplift.step.sequences == 3
    together = deeplift.explain(codes, references)
    for row in range(3):
        alone = deeplift.explain(codes[row : row + 1], references[row : row + 1])
        for one, other in zip(alone, together, strict=True):
            assert len(one.prediction) == 1
            np.testing.assert_array_equal(one.hypothetical[0], other.hypothetical[row])
            assert one.prediction[0] == other.prediction[row]
            assert one.mean_abs_delta[0] == other.mean_abs_delta[row]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_number_of_threads_changes_no_bit(name: str, batch_size: int, random_codes: Any) -> None:
    codes, references = random_codes(9, 7, LENGTH), random_codes(10, 7, REFERENCES, LENGTH)
    before, scores = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            deeplift = make(name, batch_size=batch_size)
            assert deeplift.sequences_at_once == threads * deeplift.step.sequences
            scores.append(deeplift.explain(codes, references))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, *others = ([vars(target) for target in found] for found in scores)
    for other in others:
        assert_same_bits(one, other)


def one_hot(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.swapaxes(np.eye(5, 4, dtype=np.float32)[codes], -1, -2)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_references_given_as_numbers_score_as_those_given_as_codes(
    batch_size: int, random_codes: Any
) -> None:
    codes, references = random_codes(7, 3, LENGTH), random_codes(8, 3, REFERENCES, LENGTH)
    deeplift = make("mixed", batch_size=batch_size)
    assert_same_bits(scores_of(deeplift, codes, references), scores_of(deeplift, codes, one_hot(references)))


def test_scores_are_averages_of_single_pairs(explainer: Any, random_codes: Any) -> None:
    codes, references = random_codes(9, 2, LENGTH), random_codes(10, 2, 5, LENGTH)
    settings = {"dtype": torch.float64, "targets": 2}
    network = Mixed().eval()
    together = explainer(network, LENGTH, n_references=5, batch_size=3, **settings)
    single = explainer(network, LENGTH, n_references=1, batch_size=1, **settings)
    pairs = [
        [single.explain(codes[i : i + 1], references[i : i + 1, j : j + 1]) for j in range(5)] for i in (0, 1)
    ]
    got = scores_of(together, codes, references)
    for target in (0, 1):
        for i in (0, 1):
            hypothetical = np.mean([pair[target].hypothetical[0] for pair in pairs[i]], axis=0)
            delta = [
                float(pair[target].prediction[0] - pair[target].reference_prediction[0]) for pair in pairs[i]
            ]
            np.testing.assert_allclose(got[target]["hypothetical"][i], hypothetical, atol=1e-14)
            np.testing.assert_allclose(got[target]["mean_abs_delta"][i], np.abs(delta).mean(), rtol=1e-12)
            np.testing.assert_allclose(got[target]["contribution_sum"][i], np.mean(delta), rtol=1e-11)


def test_hypothetical_contribution_is_that_of_the_base_that_might_have_been(
    explainer: Any, random_codes: Any
) -> None:
    """Base k against a reference base j scores m[k] - m[j]; written out for every position and base."""
    torch.manual_seed(2)
    weights = torch.randn(4, LENGTH, dtype=torch.float64)

    class Weighted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * weights.to(x.dtype)).sum((1, 2))[:, None]

    codes, references = random_codes(11, 2, LENGTH), random_codes(12, 2, 3, LENGTH)
    codes[0, 5], references[1, 2, 7] = 4, 4
    (got,) = explainer(Weighted(), LENGTH, n_references=3, batch_size=6, dtype=torch.float64).explain(
        codes, references
    )
    with_unknown = np.vstack([weights.numpy(), np.zeros(LENGTH)])
    for row, base, position in np.ndindex(2, 4, LENGTH):
        against = np.mean([with_unknown[references[row, k, position], position] for k in range(3)])
        expected = with_unknown[base, position] - against
        assert abs(got.hypothetical[row, base, position] - expected) < 1e-12
        there = expected if codes[row, position] == base else 0.0
        assert abs(got.projected[row, base, position] - there) < 1e-12
    assert (got.projected[0, :, 5] == 0).all()


def test_steps_that_nobody_waits_for_are_not_begun(random_codes: Any) -> None:
    deeplift = make(next(iter(NETWORKS)))
    deeplift.abandon()
    with pytest.raises(Interrupted):
        deeplift.explain(random_codes(1, 3, LENGTH), random_codes(2, 3, REFERENCES, LENGTH))


def test_memory_of_a_step_does_not_grow(random_codes: Any) -> None:
    deeplift = make("mixed")

    def held() -> int:
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is Tensor]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    codes, references = random_codes(13, 3, LENGTH), random_codes(14, 3, REFERENCES, LENGTH)
    deeplift.explain(codes, references)
    after_one = held()
    for _ in range(10):
        deeplift.explain(codes, references)
    assert held() == after_one
