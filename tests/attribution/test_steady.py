"""Functions of single numbers give the same bits wherever a number lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlgenome.attribution.steady import padded_size, steady_bits, steady_linear

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "power": lambda x: (x.abs() + 0.1) ** 1.7,
    "log_sigmoid": F.logsigmoid,
    "selu": F.selu,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x.abs()),
    "erf": torch.erf,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(5, 1), (9, 2), (40, 16), (64, 3), (300, 131)])
def test_a_row_of_a_dense_layer_gets_the_same_bits_among_any_others(
    channels: int, outputs: int, dtype: torch.dtype
) -> None:
    weight, bias = torch.randn(outputs, channels, dtype=dtype), torch.randn(outputs, dtype=dtype)
    rows = torch.randn(41, channels, dtype=dtype)
    all_of_them = steady_linear(rows, weight, bias)
    torch.testing.assert_close(all_of_them, F.linear(rows, weight, bias))
    for first, last in [(0, 1), (3, 5), (5, 8), (1, 6), (17, 40), (40, 41), (0, 16)]:
        made = steady_linear(rows[first:last].clone(), weight, bias)
        assert torch.equal(made, all_of_them[first:last])
    assert torch.equal(steady_linear(rows.view(1, 41, channels), weight, bias)[0], all_of_them)
    assert torch.equal(steady_linear(rows[7], weight, bias), all_of_them[7])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [5, 3001])
def test_equal_rows_get_equal_bits(name: str, dtype: torch.dtype, rows: int) -> None:
    """Rows of 37 numbers repeated: 37 is no multiple of any vector, so each row starts elsewhere in one."""
    values = torch.randn(37, dtype=dtype).repeat(rows, 1)
    with steady_bits(values.device):
        out = FUNCTIONS[name](values)
        start = values.clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(FUNCTIONS[name](start).sum(), start)
    assert torch.equal(out, out[:1].expand_as(out))
    assert torch.equal(slope, slope[:1].expand_as(slope))
    torch.testing.assert_close(out, FUNCTIONS[name](values))


def test_single_numbers_need_no_padding() -> None:
    base = torch.tensor(1.7)
    with steady_bits(base.device):
        assert torch.equal(torch.log(base), base.log())
        assert torch.equal(torch.pow(base, torch.tensor(0.3)), base**0.3)


def test_shape_and_memory_layout_stay_as_they_were() -> None:
    value = torch.randn(3, 5, 1, 7).contiguous(memory_format=torch.channels_last)
    for view in (value, value[1:], value.transpose(1, 3), value[:, :, 0, ::2], value[:1].expand(4, 5, 1, 7)):
        with steady_bits(value.device):
            out = torch.sigmoid(view)
        assert out.shape == view.shape
        torch.testing.assert_close(out, torch.sigmoid(view))
    with steady_bits(value.device):
        assert torch.sigmoid(value).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_padded_size_deals_whole_vectors_to_every_thread(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for count in (1, 63, 64, 65, 32767, 32768, 32769, 100_000, 16 * 32768 + 1, 5_000_001):
        size = padded_size(count)
        used = min(threads, max(1, -(-size // 32768)))
        assert size >= count
        assert -(-size // used) % 64 == 0
        assert size - count < 64 * threads


def test_other_devices_need_no_care() -> None:
    context: Any = steady_bits(torch.device("meta"))
    with context:
        assert torch.sigmoid(torch.ones(3, device="meta")).shape == (3,)
