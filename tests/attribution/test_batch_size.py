"""How many pairs a step takes where nobody says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dlgenome.attribution.devices import automatic_batch_size
from dlgenome.attribution.layout import BatchAxis, ValueInfo

MIB = 2**20


def chosen(value_bytes: int, n_references: int, weight_bytes: int = 0) -> int:
    """For a network whose largest value of a row, and largest weights, take so many bytes."""
    infos = [ValueInfo((1, value_bytes // 4), BatchAxis()), ValueInfo((1, 1), BatchAxis())]
    program: Any = SimpleNamespace(
        single_infos=lambda: infos, parameters={"w": torch.empty(weight_bytes, dtype=torch.uint8)}
    )
    return automatic_batch_size(program, n_references, torch.device("cpu"), torch.float32)


def test_steps_take_whole_sequences_where_their_values_are_small() -> None:
    assert chosen(MIB // 2, 20) == 20
    assert chosen(MIB // 4, 20) == 60
    assert chosen(4, 20) == 4080
    assert chosen(64 * MIB, 20) == 1
    assert chosen(4 * MIB, 20, weight_bytes=48 * MIB) == 10, "eight would fit"


@pytest.mark.parametrize("fitting", range(1, 17))
def test_of_the_references_of_a_step_as_few_as_can_be_only_fill_it_up(fitting: int) -> None:
    for n_references in range(fitting + 1, 60):
        size = chosen(16 * MIB // fitting, n_references)
        assert 3 * fitting / 4 <= size <= 4 * fitting / 3 + 1
        assert size <= n_references
        assert -n_references % size <= -n_references % fitting


def test_twenty_references_of_which_three_fit_are_five_steps_of_four() -> None:
    assert chosen(4_329_472, 20) == 4
