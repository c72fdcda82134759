"""Every architecture can be exported with an open batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dlgenome.model.architectures.registry import ARCHITECTURES

TINY: dict[str, dict[str, Any]] = {
    "basepairnet": {"n_filters": 4, "n_layers": 2, "input_length": 100},
    "bpnet": {"n_filters": 4, "n_layers": 2, "input_length": 200},
    "chrombpnet": {
        "bias": {"n_filters": 3, "n_layers": 1},
        "accessibility": {"n_filters": 4, "n_layers": 2},
        "input_length": 200,
    },
    "basset": {"n_filters": [6, 5, 4], "n_hidden": [9], "n_outputs": 3, "input_length": 200},
    "deepsea": {"n_filters": [6, 5, 4], "n_hidden": 9, "n_outputs": 3, "input_length": 200},
    "beluga": {"n_filters": [6, 5, 4], "n_hidden": 9, "n_outputs": 3, "input_length": 350},
    "danq": {"n_filters": 6, "n_recurrent": 5, "n_hidden": 9, "n_outputs": 3, "input_length": 100},
    "deepstarr": {"n_filters": [8, 6, 5, 4], "n_hidden": [9, 9], "input_length": 100},
    "pangolin": {"n_filters": 4, "kernel_sizes": [5, 5], "dilations": [1, 2], "input_length": 50},
}


@pytest.mark.filterwarnings("ignore:The tensor attributes self.recurrent")  # torch's own, of every LSTM
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_forward_exports_with_a_symbolic_batch(name: str, one_hot: Callable[..., Tensor]) -> None:
    module = ARCHITECTURES[name].build(**TINY[name]).eval()
    length = TINY[name]["input_length"]
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (one_hot(1, 3, length),), dynamic_shapes=shapes)
    for count in (1, 5):
        sequences = one_hot(2, count, length)
        torch.testing.assert_close(program.module()(sequences), module(sequences))
