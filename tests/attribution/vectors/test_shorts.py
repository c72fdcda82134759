"""Rows as whole numbers of sixteen bits, and the products of these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dlgenome.attribution.vectors.matrices import products_with
from dlgenome.attribution.vectors.shorts import shorten, shortened_columns

pytestmark = pytest.mark.usefixtures("with_narrow_vectors")
CHANNELS = [1, 15, 32, 70, 128, 129, 300]


def made_of(values: Tensor, weights: Tensor) -> Tensor:
    """Products of values (matrices, places, channels), narrow."""
    made = torch.empty(len(weights), values.shape[1], weights.shape[2])
    products_with(weights, narrow=True)(values, made, onto=False)
    return made


@pytest.mark.parametrize("channels", CHANNELS)
def test_rows_are_the_nearest_multiples_of_their_steps(channels: int) -> None:
    """After each channel was multiplied with its scale."""
    room = channels + -channels % 32
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(7, channels)) * 10.0 ** rng.integers(-9, 9, (7, 1))).astype(np.float32)
    scales = np.exp2(rng.integers(-3, 4, 4 + channels)).astype(np.float32)
    out, steps = np.full(3 + 7 * room + 2, 99, np.int16), np.zeros(9, np.float32)
    shorten(np.pad(rows.ravel(), (5, 0)), 5, 7, channels, scales, 4, out, 3, steps, 1)
    whole = out[3:-2].reshape(7, room)
    assert (whole[:, channels:] == 0).all()
    assert (out[:3] == 99).all()
    assert (out[-2:] == 99).all()
    assert steps[0] == steps[8] == 0
    exact = rows.astype(float) * scales[4:] / steps[1:8, None]
    assert np.abs(whole[:, :channels] - exact).max() < 0.51
    lengths = [np.linalg.norm(exact[:, at : at + 128], axis=1) for at in range(0, channels, 128)]
    np.testing.assert_allclose(np.max(lengths, axis=0), 2**15 - 8, rtol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_columns_are_the_nearest_multiples_of_their_steps(channels: int) -> None:
    """After each channel was divided by its scale."""
    torch.manual_seed(2)
    weights = torch.randn(2, 3, channels, 16) * torch.logspace(-5, 5, 16)
    pairs, steps, scales = shortened_columns(weights)
    room = channels + -channels % 32
    assert pairs.shape == (2, 3, room // 2, 16)
    whole = pairs.view(torch.int16).view(*pairs.shape, 2).transpose(3, 4).flatten(2, 3)
    assert not whole[:, :, channels:].any()
    lengths = weights.norm(dim=(1, 3))
    torch.testing.assert_close(scales[:, :channels], lengths / lengths.amax(1, keepdim=True))
    exact = weights.double() / scales[:, None, :channels, None].double() / steps.unsqueeze(2).double()
    assert (whole[:, :, :channels] - exact).abs().max() < 0.51
    parts = torch.split(whole, 128, dim=2)
    assert max(part.double().norm(dim=2).max() for part in parts) < 2**16


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_products_are_right_to_twelve_digits(channels: int, scale: float) -> None:
    torch.manual_seed(3)
    values, weights = scale * torch.randn(2, 12, channels).relu(), torch.randn(2, channels, 48)
    made, exact = made_of(values, weights), values.double() @ weights.double()
    assert (made - exact).norm() < 5e-4 * exact.norm()


@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_may_have_scales_of_their_own(channels: int) -> None:
    """As where the layer before makes some large that this one makes small."""
    torch.manual_seed(6)
    values, weights = torch.randn(2, 12, channels).relu(), torch.randn(2, channels, 48)
    scales = 10 ** (16 * torch.rand(channels) - 8)
    made = made_of(values * scales, weights / scales.unsqueeze(1))
    torch.testing.assert_close(made, made_of(values, weights), rtol=1e-4, atol=1e-3)


def worst(channels: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Values and weights whose sums are as large as they can be."""
    signs = torch.tensor([1.0, -1.0]).repeat(channels)[:channels]
    alone = torch.zeros(channels)
    alone[channels // 2] = 1
    return {"alike": (torch.ones(channels), torch.ones(channels)), "signs": (signs, -signs),
            "alone": (alone, alone), "one weight": (signs, alone)}  # fmt: skip


@pytest.mark.parametrize("channels", [2, 64, 128, 300, 512])
@pytest.mark.parametrize("name", worst(1))
def test_no_sum_is_too_large(channels: int, name: str) -> None:
    row, column = worst(channels)[name]
    values, weights = row.expand(1, 6, -1).contiguous(), column.view(1, -1, 1).expand(1, -1, 16).contiguous()
    made, exact = made_of(values, weights), (row * column).sum()
    torch.testing.assert_close(made, exact.expand_as(made), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("channel", [0, 77, 299])
def test_what_is_not_finite_stays_in_its_row_and_does_not_vanish(bad: float, channel: int) -> None:
    torch.manual_seed(4)
    values, weights = torch.randn(1, 6, 300), torch.randn(1, 300, 32)
    expected = made_of(values, weights)
    values[0, 2, channel], values[0, 4] = bad, 0
    made = made_of(values, weights)
    assert not made[0, 2].isfinite().any()
    assert (made[0, 4] == 0).all()
    others = [0, 1, 3, 5]
    assert torch.equal(made[0, others], expected[0, others])


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_weights_of_a_channel_without_values_may_have_any_size(size: float) -> None:
    torch.manual_seed(7)
    values, weights = 1e-3 * torch.randn(1, 6, 70), torch.randn(1, 70, 16)
    values[:, :, 5] = 0
    exact = values.double() @ weights.double()
    weights[:, 5] *= size
    assert (made_of(values, weights) - exact).norm() < 5e-4 * exact.norm()


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_weights_may_be_of_any_size(size: float) -> None:
    torch.manual_seed(8)
    values, weights = torch.randn(1, 6, 70), torch.randn(1, 70, 16)
    exact = values.double() @ (size * weights).double()
    assert (made_of(values, size * weights) - exact).norm() < 5e-4 * exact.norm()


def test_weights_of_zero_make_zeros() -> None:
    values, weights = torch.randn(1, 6, 40), torch.zeros(1, 40, 16)
    assert (made_of(values, weights) == 0).all()


def test_rows_are_the_same_bits_among_any_others() -> None:
    torch.manual_seed(5)
    values, weights = torch.randn(1, 12, 70), torch.randn(1, 70, 16)
    turned = made_of(values.flip(1), weights).flip(1)
    assert torch.equal(turned, made_of(values, weights))
