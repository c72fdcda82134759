"""Keras models are captured with an open batch, every operation has an exact rule, and scores sum up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import lower
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.targets import TargetHead, parse_target


def completeness(model: LoadedModel, target: str) -> tuple[float, float]:
    """Largest miss of a sum of contributions, and the size of the differences, over three sequences."""
    length = model.input_length or 0
    program = lower(capture(TargetHead(model.module, (parse_target(target),)), (4, length)))
    program.require_supported()
    codes = np.random.default_rng(8).integers(0, 4, (5, length), dtype=np.uint8)
    explainer = DeepLift(program, targets=1, n_references=2, batch_size=6)
    (scores,) = explainer.explain(codes[:3], np.broadcast_to(codes[3:], (3, 2, length)))
    assert scores.projected.shape == (3, 4, length)
    delta = scores.prediction - scores.reference_prediction
    return float(np.abs(scores.contribution_sum - delta).max()), float(scores.mean_abs_delta.mean())


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("chrombpnet.keras2.h5", "counts"),
        ("chrombpnet_lite.keras2.h5", "counts"),
        ("atlas.keras2.h5", "output:0/contrast:0,1@0-1000"),
        ("layers.keras2.h5", "index:1"),
        ("twice.keras3.keras", "index:1"),
    ],
)
def test_contributions_sum_to_the_difference(
    name: str, target: str, keras_file: Callable[[str], Path]
) -> None:
    miss, size = completeness(load_model(keras_file(name)), target)
    assert size > 1e-5
    assert miss < 1e-4 * max(size, 0.1)


def test_images_are_captured_in_their_own_shape(keras_file: Callable[[str], Path]) -> None:
    model = load_model(keras_file("images.keras2.h5"))
    assert model.input_length is None
    lower(capture(model.module, (13, 12, 2))).require_supported()
