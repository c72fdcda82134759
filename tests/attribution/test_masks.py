"""Masks that depend on the sequence: refused, or held as they are where gradients may stand in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.methods import Method
from dlgenome.attribution.rulesets import RuleSet

CHANNELS, LENGTH, STEP = 4, 10, StepShape(2, 3)
Mask = Callable[[Tensor, Tensor], Tensor]
MASKS: dict[str, Mask] = {
    "the mirror image where positive": lambda h, y: torch.where(h > 0, h.flip(1), h),
    "times yes or no": lambda h, y: h * (y > 0),
    "blanked": lambda h, y: h.masked_fill(y > 0, 0),
    "one of two": lambda h, y: torch.where((h > 0) & ~(y > 0), h, 2 * y),
    "a mask that is moved": lambda h, y: torch.where((h > 0).flip(2), h, y),
    "a mask by a sum": lambda h, y: h * (h.sum(2, keepdim=True) > y),
    "numbers of no gradient": lambda h, y: h + torch.where(y.sum(1, keepdim=True) > 0, torch.ones(4, 1), 0.0),
}


class Masked(nn.Module):
    """Linear but for the masks, so that the multipliers are the gradient at the sequence."""

    def __init__(self, masks: list[Mask]) -> None:
        super().__init__()
        self.masks = masks
        self.first, self.second = nn.Conv1d(4, CHANNELS, 3), nn.Conv1d(4, CHANNELS, 3)
        self.head = nn.Linear(CHANNELS * (LENGTH - 2), 1)

    def forward(self, x: Tensor) -> Any:
        h, y = self.first(x), self.second(x)
        return torch.cat([self.head(mask(h, y).flatten(1)) for mask in self.masks], 1)


@pytest.fixture(scope="module")
def masked() -> tuple[Masked, Program]:
    torch.manual_seed(2)
    module = Masked(list(MASKS.values())).double()
    return module, lower(capture(module, (4, LENGTH), dtype=torch.float64), strict=False)


def test_masks_are_refused_with_the_reason(masked: tuple[Masked, Program]) -> None:
    program = lower(capture(masked[0], (4, LENGTH), dtype=torch.float64))
    assert len(program.refusals) >= len(MASKS) - 1
    assert all("--no-strict" not in refusal.reason for refusal in program.refusals)


@pytest.mark.parametrize("rules", ["rescale", "revealcancel", "gradient"])
@pytest.mark.parametrize("name", MASKS)
def test_gradients_go_through_what_the_masks_let_pass(
    name: str, rules: RuleSet, masked: tuple[Masked, Program]
) -> None:
    module, program = masked
    place = list(MASKS).index(name)
    program.require_supported()
    assert program.approximations
    rows = torch.randn(STEP.rows, 4, LENGTH, dtype=torch.float64)
    found = Method(rules=rules).engine(program, STEP).run(rows, len(MASKS))
    sequences = rows[: STEP.sequences].clone().requires_grad_()
    predictions = module(sequences)
    (gradient,) = torch.autograd.grad(predictions[:, place].sum(), sequences)
    torch.testing.assert_close(
        found.multipliers[place], gradient.repeat_interleave(STEP.references, 0), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(found.predictions, predictions.detach(), rtol=0, atol=1e-12)
    expected = module(rows[STEP.sequences :]).detach().view(STEP.sequences, STEP.references, -1)
    torch.testing.assert_close(found.reference_predictions, expected, rtol=0, atol=1e-12)


def test_what_has_no_gradient_says_that_no_strict_cannot_help() -> None:
    module = Masked([lambda h, y: h * (y > 0).any(2, keepdim=True)])
    program = lower(capture(module, (4, LENGTH)), strict=False)
    assert any("aten.any" in r.operation and "--no-strict cannot help" in r.reason for r in program.refusals)


@pytest.mark.parametrize(("axis", "refused"), [(0, True), (-3, True), (1, False), (None, False)])
def test_a_gradient_never_stands_in_along_the_batch(axis: int | None, refused: bool) -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return (x.sort().values if axis is None else x.sort(axis).values)[:, 0, :1]

    program = lower(capture(Sorted(), (CHANNELS, LENGTH)), strict=False)
    assert [r.operation for r in program.refusals] == ["aten.sort.default"] * refused
    assert [r.operation for r in program.approximations] == ["aten.sort.default"] * (not refused)
