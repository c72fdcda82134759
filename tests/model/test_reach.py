"""What an output sees, against counting by hand and against gradients of many sequences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.reach import Reach, measure_reach


def conv(channels: int, kernel: int, **settings: int) -> nn.Conv1d:
    return nn.Conv1d(channels, 3, kernel, **settings)  # type: ignore[arg-type]


CASES: dict[str, tuple[nn.Module, int, Reach]] = {
    # 1 + 6 + 2 * 2, and the middle 90 of 100 positions
    "valid convolutions": (
        nn.Sequential(conv(4, 7), nn.ReLU(), conv(3, 3, dilation=2)),
        100,
        Reach(11, (5, 95), 1),
    ),
    "same convolutions": (
        nn.Sequential(conv(4, 7, padding=3), conv(3, 3, padding=1)),
        100,
        Reach(9, (0, 100), 1),
    ),
    # 6 before the pool, 8 in it, 8 in either neighbour
    "pooled": (
        nn.Sequential(conv(4, 7, padding=3), nn.MaxPool1d(8), conv(3, 3, padding=1)),
        256,
        Reach(30, (0, 256), 8),
    ),
    "strided": (nn.Sequential(conv(4, 6, stride=4, padding=1)), 128, Reach(6, (0, 128), 4)),
    "dense": (nn.Sequential(conv(4, 7), nn.MaxPool1d(10), nn.Flatten(), nn.Linear(27, 2)), 100, Reach(96)),
}


@pytest.mark.parametrize("case", CASES)
def test_reach_is_what_counting_gives(case: str) -> None:
    module, length, expected = CASES[case]
    torch.manual_seed(0)
    assert measure_reach(module.eval(), length) == (expected,)


def test_reach_does_not_depend_on_the_weights(one_hot: Callable[..., Tensor]) -> None:
    module = nn.Sequential(conv(4, 9, padding=4), nn.ReLU(), conv(3, 3, padding=4, dilation=4)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        module.get_parameter("0.weight")[:, :, 2:7] = 0
        module.get_parameter("2.weight")[:, :, 0] = 0
        module.get_parameter("0.bias").sub_(100)  # every activation off
    (found,) = measure_reach(module, 80)
    assert found == Reach(17, (0, 80), 1)


def test_reach_agrees_with_gradients_of_many_sequences(one_hot: Callable[..., Tensor]) -> None:
    torch.manual_seed(2)
    module = BPNet(n_filters=8, n_layers=3, first_kernel_size=7, profile_kernel_size=9, input_length=120)
    profile, counts = measure_reach(module.eval(), 120)
    assert profile is not None
    assert profile.window == (module.trimming, 120 - module.trimming)
    sequences = one_hot(1, 64, 120).requires_grad_()
    logits, log_counts = module(sequences)
    for output, reach in ((logits[:, :, logits.shape[2] // 2].sum(), profile), (log_counts.sum(), counts)):
        (gradient,) = torch.autograd.grad(output, sequences, retain_graph=True)
        bases = gradient.abs().sum(dim=(0, 1)).nonzero()
        assert reach is not None
        assert reach.field == int(bases[-1] - bases[0]) + 1


def test_operations_that_stop_marks_leave_the_reach_unknown() -> None:
    class Choice(nn.Module):
        def forward(self, sequences: Tensor) -> Tensor:
            return sequences.argmax(dim=1).to(torch.float32).mean(dim=1, keepdim=True)

    class Spectrum(nn.Module):
        def forward(self, sequences: Tensor) -> Tensor:
            values: Tensor = torch.linalg.svdvals(sequences)
            return values

    assert measure_reach(Spectrum(), 20) == (None,)
    (found,) = measure_reach(Choice(), 20)
    assert found is None


def test_fields_cut_by_an_end_of_the_input_have_no_window() -> None:
    (found,) = measure_reach(conv(4, 41, padding=20), 30)
    assert found == Reach(30, None, None) or found == Reach(30, None, 1)
