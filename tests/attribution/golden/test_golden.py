"""Scores of the original DeepLIFT program, all its modes that we have, on networks rebuilt from its weights.

The largest difference may be 1e-5 of the largest score of its target. What is left out, and why:

* Where an input equals its reference, multipliers and hypothetical scores of RevealCancel (any network), and
  of Rescale and genomics-default with PReLU, tanh or sigmoid. There a hidden value does not change, and the
  original divides f(r + 1e-7) - f(r), rounded to float32, by 1e-7, or takes the derivative at f(r) instead of
  r; we take the derivative at r. Contributions are zero there and all compared. With the original's
  arithmetic put in the place of ours nothing needs to be left out: that is tested, too.
* The original's max-pooling looks at the sequence only and does not sum to the output difference. Compared
  with ``max_pool="argmax"``, which does the same; ours is exact by default.
* Its mode GuidedBackpropRescale, which we do not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import Step
from dlgenome.attribution.methods import Method
from dlgenome.attribution.parts import Parts
from dlgenome.attribution.rules.base import Backward, Call
from dlgenome.attribution.rules.elementwise import Elementwise, Relu
from dlgenome.attribution.rulesets import EXACT

pytestmark = pytest.mark.real

NEAR = 1e-7
"""The original's threshold for "no difference"."""
METHODS = {
    "Rescale": Method("rescale"),
    "RevealCancel": Method("revealcancel"),
    "DeepLIFT_GenomicsDefault": Method("genomics-default"),
    "Gradient": Method("gradient"),
    "GuidedBackprop": Method("guided-backprop"),
    "DeconvNet": Method("deconvnet"),
    "PassThrough": Method("passthrough"),
    "IntegratedGradients10": Method(intervals=10),
    "IntegratedGradients50": Method(intervals=50),
}
POOLED = ("A_maxbn", "C_conv2d")
"""Networks with max-pooling."""
CASES = [
    ("talgata", "zeros"),
    ("talgata", "bg"),
    ("talgata", "shuf_mean"),
    ("mnist", "zeros"),
    ("A_maxbn", "input0"),
    ("B_avgprelu", "input0"),
    ("C_conv2d", "input0"),
]
UNCHANGED = {"talgata": 0.025, "mnist": 0.25, "B_avgprelu": 0.64}
"""Largest difference of multipliers where input and reference are equal, as a share of a target's largest."""
QUIRKS = [(network, kind, "RevealCancel") for network, kind in CASES]
QUIRKS += [("B_avgprelu", "input0", mode) for mode in ("Rescale", "DeepLIFT_GenomicsDefault")]


STORED = [(network, kind, mode) for network, kind in CASES for mode in METHODS]
STORED = [
    (network, kind, mode)
    for network, kind, mode in STORED
    if network == "talgata" or not mode.startswith("Integrated")
    if network != "mnist" or mode not in ("DeconvNet", "PassThrough")
    if kind != "shuf_mean" or mode != "IntegratedGradients50"
]


def method_of(network: str, mode: str) -> Method:
    """Our method for a mode of the original, with its max-pooling."""
    return replace(METHODS[mode], max_pool="argmax" if network in POOLED else "exact")


def difference(ours: Any, theirs: Any, where: Any = True) -> float:
    """Largest difference as a share of the largest score of the same target, over all targets."""
    return max(
        float(np.abs(np.where(where, a - b, 0)).max() / np.abs(b).max())
        for a, b in zip(ours, theirs, strict=True)
    )


def compared(case: Any, mode: str) -> list[tuple[str, Any, Any]]:
    """(array, ours, theirs) for everything that the original stored."""
    ours = case.ours(method_of(case.network, mode))
    found = [(array, getattr(ours, array), case.theirs(array, mode)) for array in ("contrib", "mult", "hyp")]
    return [entry for entry in found if entry[2] is not None]


@pytest.mark.parametrize(("network", "kind", "mode"), STORED)
def test_scores_are_those_of_the_original(
    golden: Callable[..., Any], network: str, kind: str, mode: str
) -> None:
    case = golden(network, kind)
    found = compared(case, mode)
    assert found
    for array, ours, theirs in found:
        only_changed = array != "contrib" and (network, kind, mode) in QUIRKS
        error = difference(ours, theirs, case.changed if only_changed else True)
        print(f"{network} {kind} {mode} {array}: {error:.1e}{' where changed' if only_changed else ''}")
        assert error < 1e-5


def ends(call: Call, saved: Backward) -> tuple[Tensor, Tensor]:
    """Input of an activation for the sequence and for the reference, both on the pair rows."""
    batch = call.input_batch(0)
    r = saved.reference(0, batch)
    x = saved.sequence(0, batch).expand_as(r)
    return saved.step.flat_pairs(x, batch).contiguous(), saved.step.flat_pairs(r, batch).contiguous()


def rescale(function: Callable[[Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
    """ALGORITHMS.md, section 3: the quotient, or the derivative at the OUTPUT of the reference."""
    near = (x - r).abs() < NEAR
    with torch.enable_grad():
        point = function(r).detach().requires_grad_()
        value = function(point)
        (slope,) = torch.autograd.grad(value, point, torch.ones_like(value))
    return torch.where(near, slope, (function(x) - function(r)) / (x - r).masked_fill(near, 1))


def nudged(part: Tensor) -> Tensor:
    """ALGORITHMS.md, section 2: parts next to zero moved away from it, zero itself to +1e-7."""
    part = torch.where((part >= 0) & (part < NEAR / 2), part + NEAR, part)
    return torch.where((part < 0) & (part > -NEAR / 2), part - NEAR, part)


@pytest.fixture
def original_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations as the original program writes them, near-zero rules included.

    Which terms are added first matters: ``f(r + 1e-7) - f(r)`` is a whole number of last bits in float32.
    """

    def backward(self: Elementwise, call: Call, multiplier: Tensor, saved: Backward) -> list[Tensor]:
        slope = rescale(lambda v: call.op(v, *saved.args[1:], **saved.kwargs), *ends(call, saved))
        return [multiplier * slope]

    def slopes(self: Any, step: Step) -> tuple[Tensor, Tensor]:
        saved = self._saved(step)
        x, r = ends(step.call, saved)

        def f(value: Tensor) -> Any:
            return step.call.op(value, *saved.args[1:], **saved.kwargs)

        if not self.plan.reveals[step.call.name]:
            slope = rescale(f, x, r)
            return slope, slope
        parts = self.parts(step.call.inputs[0].name)
        p, n = nudged(parts.positive), nudged(parts.negative)
        positive = (f(r + p) - f(r)) / 2 + (f(r + n + p) - f(r + n)) / 2
        negative = (f(r + n) - f(r)) / 2 + (f(r + p + n) - f(r + p)) / 2
        return positive / p, negative / n

    for rule in (Elementwise, Relu):
        monkeypatch.setattr(rule, "backward", backward)
    monkeypatch.setattr(Parts, "_slopes", slopes)


@pytest.mark.parametrize(("network", "kind", "mode"), QUIRKS)
@pytest.mark.usefixtures("original_arithmetic")
def test_nothing_differs_with_the_arithmetic_of_the_original(
    golden: Callable[..., Any], network: str, kind: str, mode: str
) -> None:
    for array, ours, theirs in compared(golden(network, kind), mode):
        found = difference(ours, theirs)
        print(f"{network} {kind} {mode} {array}, original arithmetic: {found:.1e}")
        assert found < 1e-5


@pytest.mark.parametrize(("network", "kind", "mode"), QUIRKS)
def test_unchanged_inputs_differ_by_no_more_than_is_known(
    golden: Callable[..., Any], network: str, kind: str, mode: str
) -> None:
    case = golden(network, kind)
    for array, ours, theirs in compared(case, mode):
        found = difference(ours, theirs, ~case.changed)
        print(f"{network} {kind} {mode} {array}, unchanged inputs: {found:.1e}")
        assert found <= (1e-5 if array == "contrib" else UNCHANGED.get(network, 1e-5))


def test_gradient_times_input_is_the_gradient_against_zeros(golden: Callable[..., Any]) -> None:
    case = golden("talgata", "zeros")
    ours, theirs = case.ours(Method("gradient")), case.theirs("contrib", "GradientTimesInput")
    assert difference(ours.contrib, theirs) < 1e-5


@pytest.mark.parametrize(("network", "kind"), CASES)
def test_predictions_are_those_of_the_original(golden: Callable[..., Any], network: str, kind: str) -> None:
    case = golden(network, kind)
    ours = case.ours(Method())
    scale = np.abs(case.logits).max()
    np.testing.assert_allclose(ours.predictions, case.logits, rtol=0, atol=5e-6 * scale)
    np.testing.assert_allclose(ours.reference_predictions, case.reference_logits, rtol=0, atol=5e-6 * scale)


def sums(case: Any, contributions: Any) -> tuple[Any, Any]:
    """Sums of contributions and the output differences, both (targets, sequences)."""
    delta = case.logits - case.reference_logits.mean(1)
    return contributions.reshape(*contributions.shape[:2], -1).sum(-1), delta.T


@pytest.mark.parametrize("rules", EXACT)
@pytest.mark.parametrize(("network", "kind"), CASES)
def test_our_scores_sum_to_the_difference_of_the_originals_predictions(
    golden: Callable[..., Any], network: str, kind: str, rules: Any
) -> None:
    case = golden(network, kind)
    total, delta = sums(case, case.ours(Method(rules)).contrib)
    print(f"{network} {kind} {rules}: completeness {np.abs(total - delta).max() / np.abs(delta).max():.1e}")
    assert np.abs(total - delta).max() < 1e-5 * np.abs(delta).max()


@pytest.mark.parametrize("mode", ["Rescale", "RevealCancel", "DeepLIFT_GenomicsDefault"])
@pytest.mark.parametrize("network", POOLED)
def test_behind_max_pooling_the_original_does_not_sum_and_ours_differ(
    golden: Callable[..., Any], network: str, mode: str
) -> None:
    case = golden(network, "input0")
    theirs = case.theirs("contrib", mode)
    total, delta = sums(case, theirs)
    assert np.abs(total - delta).max() > 1e-2 * np.abs(delta).max()
    ours = case.ours(METHODS[mode])
    assert difference(ours.contrib, theirs) > 0.1


@pytest.mark.parametrize("mode", ["Rescale", "DeepLIFT_GenomicsDefault"])
@pytest.mark.parametrize("kind", ["bg", "shuf_mean"])
def test_scores_as_users_get_them_are_those_of_the_original(
    golden: Callable[..., Any], kind: str, mode: str
) -> None:
    """The original gives every base a contribution m (x - r), ours the base that is there gets their sum."""
    case = golden("talgata", kind)
    count = case.references.shape[1]
    deeplift = DeepLift(
        case.program, targets=3, n_references=count, batch_size=20 * count, method=METHODS[mode]
    )
    scores = deeplift.explain(case.inputs.argmax(1).astype(np.uint8), case.references)
    theirs = {array: case.theirs(array, mode) for array in ("contrib", "hyp")}
    assert difference([task.hypothetical for task in scores], theirs["hyp"]) < 1e-5
    assert difference([task.projected.sum(1) for task in scores], theirs["contrib"].sum(2)) < 1e-5
