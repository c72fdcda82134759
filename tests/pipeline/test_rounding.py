"""What users are told about precisions that round more than a model may bear."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.lowering import lower
from dlgenome.config import Precision, RunConfig
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.job import _warn_of_rounding

MAX, MEAN = nn.MaxPool1d(4), nn.AvgPool1d(4)


@pytest.mark.parametrize(
    ("precision", "device", "pool", "said"),
    [
        ("bfloat16", "cpu", MAX, "--precision bfloat16: where this model takes the maximum of near equals"),
        ("bfloat16", "cpu", MAX, "up to 4 % of the largest"),
        ("bfloat16", "cuda:1", MAX, "up to 16 % of the largest"),
        ("tf32", "cuda", MAX, "up to 16 % of the largest"),
        ("bfloat16", "cuda", MEAN, None),
        ("float32", "cuda", MAX, None),
        ("float64", "cpu", MAX, None),
    ],
)
def test_maxima_are_warned_of_where_values_are_rounded(
    precision: Precision, device: str, pool: nn.Module, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Sequential(nn.Conv1d(4, 16, 5), nn.ReLU(), pool, nn.Flatten(), nn.Linear(16 * 14, 1)).eval()
    program = lower(capture(network, (4, 60)))
    config = RunConfig(
        model=Path("m"), output=Path("run"), genome=Path("g"), regions="r", precision=precision
    )
    with caplog.at_level("WARNING", logger="dlgenome"):
        _warn_of_rounding(config, parse_targets(["index:0"]), program, [torch.device(device)])
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("dlgenome")]
    assert (messages == []) if said is None else said in messages[0]
