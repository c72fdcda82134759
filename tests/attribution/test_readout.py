"""Weights of every definition of a profile score against the same sums written out number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.contributions import Contributions
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.readout import Readout, ReadoutKind, numbers
from dlgenome.model.targets import TargetHead, check_targets, parse_targets

STEP = StepShape(2, 3)
KINDS: tuple[ReadoutKind, ...] = ("bpnet", "chrombpnet", "bpnetlite")
LENGTH, REFERENCES = 14, 4
Codes = NDArray[np.uint8]
Vector = list[float]


def softmax(logits: Vector) -> Vector:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def weights_by_hand(kind: str, x: Vector, r: Vector) -> Vector:
    """The weights of one pair, column by column."""
    weights = []
    for z_x, z_r, p_x, p_r in zip(x, r, softmax(x), softmax(r), strict=True):
        if kind == "bpnet":
            weights.append(p_x)
        elif kind == "chrombpnet":
            weights.append((p_x + p_r) / 2)
        else:
            weights.append((z_x * p_x - z_r * p_r) / (z_x - z_r))
    return weights


def difference_by_hand(kind: str, x: Vector, r: Vector) -> float:
    """What the contributions of one pair add up to."""
    if kind == "bpnetlite":
        return sum(z * p for z, p in zip(x, softmax(x), strict=True)) - sum(
            z * p for z, p in zip(r, softmax(r), strict=True)
        )
    return sum(w * (a - b) for w, a, b in zip(weights_by_hand(kind, x, r), x, r, strict=True))


@pytest.fixture
def output() -> Tensor:
    """Nine columns of every row of a step: two numbers, a profile of six columns, and one number."""
    return torch.from_numpy(np.random.default_rng(4).normal(size=(STEP.rows, 9)) * 2)


def test_a_number_has_the_weight_one_and_is_its_own_prediction(output: Tensor) -> None:
    for index, readout in enumerate(numbers(9)):
        weights = readout.weights(output[:2], output[2:], STEP)
        assert weights.tolist() == np.ones((2, 3, 1)).tolist()
        x, r = readout.predictions(output[:2], output[2:], weights, STEP)
        assert x.tolist() == [[value] * 3 for value in output[:2, index].tolist()]
        assert r.flatten().tolist() == output[2:, index].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_predictions_are_those_written_out_by_hand(kind: ReadoutKind, output: Tensor) -> None:
    readout = Readout(2, 8, kind)
    weights = readout.weights(output[:2], output[2:], STEP)
    x, r = readout.predictions(output[:2], output[2:], weights, STEP)
    rows = output[:, 2:8].tolist()
    for sequence in range(2):
        for reference in range(3):
            own, other = rows[sequence], rows[2 + 3 * sequence + reference]
            expected = weights_by_hand(kind, own, other)
            assert weights[sequence, reference].tolist() == pytest.approx(expected, rel=1e-12)
            difference = float(x[sequence, reference] - r[sequence, reference])
            assert difference == pytest.approx(difference_by_hand(kind, own, other), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_where_reference_and_sequence_agree_weights_are_numbers(kind: ReadoutKind, output: Tensor) -> None:
    same = output[:1].expand(STEP.rows, 9).clone()
    same[2:, 3] += 1e-9
    weights = Readout(2, 8, kind).weights(same[:2], same[2:], STEP)
    z = same[0, 2:8]
    p = z.softmax(0)
    expected = p + z * p * (1 - p) if kind == "bpnetlite" else p
    assert torch.allclose(weights, expected.expand(2, 3, 6), rtol=1e-6)


def test_secant_becomes_the_derivative_without_a_jump(output: Tensor) -> None:
    """With all other logits fixed, softmax at one place is a function of that logit alone."""
    for gap in (0.9e-6, 1.1e-6):
        rows = output[:1].expand(STEP.rows, 9).clone()
        rows[2:, 4] -= gap
        weights = Readout(2, 8, "bpnetlite").weights(rows[:2], rows[2:], STEP)[0, 0, 2]
        z = rows[0, 4]
        p = rows[0, 2:8].softmax(0)[2]
        assert float(weights) == pytest.approx(float(p + z * p * (1 - p)), rel=1e-5)


class Profiles(nn.Module):
    """A linear map from the sequence to a profile of two strands, one of one strand, and counts."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.two = nn.Parameter(torch.randn(2 * 5, 4 * LENGTH, generator=generator))
        self.one = nn.Parameter(torch.randn(7, 4 * LENGTH, generator=generator))
        self.counts = nn.Parameter(torch.randn(1, 4 * LENGTH, generator=generator))

    def forward(self, x: Tensor) -> Any:
        flat = x.flatten(1)
        two = (flat @ self.two.T).reshape(-1, 2, 5)
        return two, flat @ self.counts.T, torch.relu(flat @ self.one.T).unsqueeze(1)


def explain(
    module: nn.Module, texts: list[str], codes: Codes, references: Codes, **options: Any
) -> list[Contributions]:
    """The contributions of targets as `--target` names them."""
    dtype = options.pop("dtype", torch.float64)
    module = module.to(dtype)
    targets = parse_targets(texts)
    facts = check_targets(module.float(), targets, codes.shape[1])
    head = TargetHead(module.to(dtype), targets)
    readouts, start = [], 0
    for target, width in zip(targets, head.widths(facts), strict=True):
        kind: Any = target.kind.removeprefix("profile-") if target.kind.startswith("profile") else "number"
        readouts.append(Readout(start, start + width, kind))
        start += width
    program = lower(capture(head, (4, codes.shape[1]), dtype=dtype))
    deeplift = DeepLift(
        program,
        targets=readouts,
        n_references=references.shape[1],
        batch_size=references.size // codes.shape[1],
        dtype=dtype,
        **options,
    )
    return deeplift.explain(codes, references)


@pytest.fixture
def sequences(random_codes: Callable[..., Codes]) -> tuple[Codes, Codes]:
    return random_codes(5, 3, LENGTH), random_codes(6, 3, REFERENCES, LENGTH)


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_of_a_linear_profile_are_its_weighted_rows(
    kind: str, sequences: tuple[Codes, Codes]
) -> None:
    """Both strands lie under one softmax: the twin knows of ten positions only."""
    codes, references = sequences
    model = Profiles().double()
    rows = model.two.detach().numpy()
    rows = rows - rows.mean(0)
    (found,) = explain(model, [f"profile-{kind}"], codes, references)
    for index, (code, others) in enumerate(zip(codes, references, strict=True)):
        x = np.eye(4)[code].T.ravel()
        expected, differences = np.zeros((4, LENGTH)), []
        for other in others:
            r = np.eye(4)[other].T.ravel()
            weights = np.array(weights_by_hand(kind, (rows @ x).tolist(), (rows @ r).tolist()))
            multiplier = (weights @ rows).reshape(4, LENGTH)
            shares = (multiplier * r.reshape(4, LENGTH)).sum(0)
            expected += (multiplier - shares) / REFERENCES
            differences.append(difference_by_hand(kind, (rows @ x).tolist(), (rows @ r).tolist()))
        np.testing.assert_allclose(found.hypothetical[index], expected, atol=1e-12)
        np.testing.assert_allclose(found.pair_sums[index], differences, atol=1e-11)
        assert found.mean_abs_delta[index] == pytest.approx(np.abs(differences).mean())


@pytest.mark.parametrize("text", ["profile-bpnet", "profile-bpnetlite", "output:2/profile-bpnetlite"])
def test_scores_add_up_to_the_difference(text: str, sequences: tuple[Codes, Codes]) -> None:
    codes, references = sequences
    model = Profiles().double()
    (found,) = explain(model, [text], codes, references)
    np.testing.assert_allclose(
        found.contribution_sum, found.prediction - found.reference_prediction, rtol=1e-11
    )
    logits = model(torch.from_numpy(np.eye(4)[codes].swapaxes(1, 2).copy()))[2 if "2" in text else 0]
    z = logits.detach().flatten(1).numpy()
    z = z - z.mean(1, keepdims=True)
    p = np.array([softmax(row) for row in z.tolist()])
    np.testing.assert_allclose(found.prediction, (p * z).sum(1), rtol=1e-12)


def test_output_k_chooses_the_profile(sequences: tuple[Codes, Codes]) -> None:
    codes, references = sequences
    texts = ["profile-bpnet", "first=output:0/profile-bpnet", "output:2/profile-bpnet"]
    plain, first, third = explain(Profiles(), texts, codes, references)
    np.testing.assert_array_equal(plain.hypothetical, first.hypothetical)
    assert np.abs(plain.hypothetical - third.hypothetical).max() > 0.1
    (alone,) = explain(Profiles(), ["output:2/profile-bpnet"], codes, references)
    np.testing.assert_array_equal(alone.hypothetical, third.hypothetical)


def test_targets_of_one_pass_have_the_bits_that_each_has_alone(sequences: tuple[Codes, Codes]) -> None:
    codes, references = sequences
    texts = ["counts", "profile-chrombpnet", "profile-bpnetlite", "output:0/index:1@2-4"]
    together = explain(Profiles(), texts, codes, references, dtype=torch.float32, keep_pairs=True)
    for text, among in zip(texts, together, strict=True):
        (alone,) = explain(Profiles(), [text], codes, references, dtype=torch.float32, keep_pairs=True)
        for name, values in vars(alone).items():
            if values is not None:
                np.testing.assert_array_equal(getattr(among, name), values, err_msg=f"{text} {name}")


def test_integrated_gradients_of_a_profile_take_the_weights_along_the_line(
    sequences: tuple[Codes, Codes],
) -> None:
    """profile-bpnet weighs a point of the line with its own probabilities: the sum tends to no difference of
    the fixed weights, but to the integral of p dz."""
    codes, references = sequences
    model = Profiles().double()
    (found,) = explain(model, ["profile-bpnet"], codes, references, method=Method(intervals=400))
    rows = model.two.detach().numpy()
    rows = rows - rows.mean(0)
    for index, (code, others) in enumerate(zip(codes, references, strict=True)):
        x = rows @ np.eye(4)[code].T.ravel()
        for other, total in zip(others, found.pair_sums[index], strict=True):
            r = rows @ np.eye(4)[other].T.ravel()
            # The integral of softmax is the logarithm of the sum of powers.
            exact = math.log(np.exp(x).sum()) - math.log(np.exp(r).sum())
            assert total == pytest.approx(exact, abs=1e-3)
