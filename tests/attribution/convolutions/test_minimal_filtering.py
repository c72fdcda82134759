"""Schemes against the sums that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from dlgenome.attribution.minimal_filtering import FOUR_OF_FOUR, FOUR_OF_THREE, TWO_OF_THREE, Scheme

SCHEMES = pytest.mark.parametrize("scheme", [TWO_OF_THREE, FOUR_OF_THREE, FOUR_OF_FOUR])


@SCHEMES
def test_every_output_is_the_sum_of_its_products(scheme: Scheme) -> None:
    made = np.einsum("op,pt,pi->oti", scheme.of_products, scheme.of_weights, scheme.of_inputs)
    output, weight, place = np.indices(made.shape)
    np.testing.assert_allclose(made, place == output + weight, atol=1e-12)


@SCHEMES
@pytest.mark.parametrize("dilation", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 7, 24, 100])
def test_tiles_hold_every_output_once(scheme: Scheme, size: int, dilation: int) -> None:
    whole = scheme.n_outputs * dilation
    tiles = range(scheme.n_tiles(size, dilation))
    firsts = [whole * (tile // dilation) + tile % dilation for tile in tiles]
    outputs = [first + number * dilation for first in firsts for number in range(scheme.n_outputs)]
    assert len(outputs) == len(set(outputs))
    assert set(range(size)) <= set(outputs)
    assert all(first < size for first in firsts)
