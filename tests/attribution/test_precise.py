"""The last linear operations are computed in float64, and those before are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.engine import Engine
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.precise import precise_steps

LENGTH = 40


class Offset(nn.Module):
    """A number near a thousand that moves by a millionth of it: rounding it to float32 hides the move."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(4, 8, 5)
        self.dense = nn.Linear(8, 1)
        with torch.no_grad():
            self.dense.weight.mul_(1e-2)
            self.dense.bias.fill_(1000.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.relu(self.convolution(x))[:, :, 2:-2].mean(2))  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    """A profile from a convolution, and a number from a dense layer behind another dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv1d(4, 6, 3)
        self.profile = nn.Conv1d(6, 1, 3)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        trunk = torch.relu(self.trunk(x))
        counts = self.second(torch.relu(self.first(trunk.mean(2))))
        return torch.cat([self.profile(trunk).flatten(1), counts], 1)


def program_of(module: nn.Module) -> Program:
    module = module.eval()
    return lower(capture(module, (4, LENGTH), device=torch.device("cpu"), dtype=torch.float32))


def operations(program: Program) -> list[str]:
    names = precise_steps(program)
    return [str(step.call.op) for step in program.steps if step.call.name in names]


def test_only_what_leads_straight_to_the_output_is_precise() -> None:
    assert operations(program_of(Offset())) == ["aten.mean.dim", "aten.linear.default"]
    assert operations(program_of(TwoHeads())) == ["aten.linear.default", "aten.cat.default"]
    assert operations(program_of(nn.Sequential(nn.Conv1d(4, 1, LENGTH), nn.Flatten()))) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_small_difference_of_large_predictions_is_kept(seed: int) -> None:
    torch.manual_seed(seed)
    module = Offset()
    step = StepShape(2, 3)
    rows = torch.eye(4)[torch.randint(0, 4, (step.rows, LENGTH))].transpose(1, 2)
    result = Engine(program_of(module), step).run(rows, 1)
    assert result.multipliers[0].dtype is torch.float32
    exact = module.double()(rows.double()).detach()[:, 0]
    delta = exact[:2, None] - exact[2:].view(2, 3)
    found = (result.pair_predictions - result.reference_predictions)[..., 0]
    assert delta.abs().max() < 1e-2
    torch.testing.assert_close(found, delta, rtol=1e-5, atol=1e-9)
    differences = rows[:2, None] - rows[2:].view(2, 3, 4, LENGTH)
    sums = (result.multipliers[0].view(2, 3, 4, LENGTH) * differences).double().sum((2, 3))
    torch.testing.assert_close(sums, delta, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
def test_a_row_is_the_same_bits_wherever_it_stands(outputs: int) -> None:
    torch.manual_seed(outputs)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4 * LENGTH, 3), nn.ReLU(), nn.Linear(3, outputs))
    step = StepShape(7, 2)
    engine = Engine(program_of(module), step)
    row = torch.eye(4)[torch.randint(0, 4, (3, LENGTH))].transpose(1, 2)
    found = []
    for place in range(step.sequences):
        rows = torch.eye(4)[torch.randint(0, 4, (step.rows, LENGTH))].transpose(1, 2).contiguous()
        rows[place] = row[0]
        rows[step.sequences + 2 * place : step.sequences + 2 * place + 2] = row[1:]
        result = engine.run(rows, outputs)
        found.append(
            torch.cat(
                [
                    result.pair_predictions[place].flatten(),
                    result.reference_predictions[place].flatten(),
                    *(one[2 * place : 2 * place + 2].double().flatten() for one in result.multipliers),
                ]
            )
        )
    assert all(torch.equal(found[0], other) for other in found[1:])
