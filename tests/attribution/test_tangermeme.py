"""tangermeme's deep_lift_shap on the same BPNet, sequences and references.

The second test needs tangermeme; the first holds a few of its numbers, so that the comparison is made
everywhere. They are hypothetical contributions in float64 by tangermeme 1.6.0 with torch 2.13.0 on the CPU:
``deep_lift_shap(counts, sequences, references=references, hypothetical=True, batch_size=8, dtype=float64,
device="cpu")`` for the network, sequences and references of :func:`setting`, made from numpy's
``default_rng(2024)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import lower
from dlgenome.model.architectures.bpnet import BPNet

SEQUENCES, REFERENCES, LENGTH = 3, 4, 240
STORED = {
    (0, 0, 0): -5.075251107551471e-05,
    (0, 1, 60): -0.007688680286653993,
    (0, 2, 119): -0.0008447194194646634,
    (0, 3, 120): 0.010066544282926207,
    (1, 0, 75): -0.0027679414518111127,
    (1, 1, 150): 0.001135626926645353,
    (1, 2, 180): 0.00025277275602441024,
    (1, 3, 239): 0.00013519168683076273,
    (2, 0, 100): 0.006803244207894533,
    (2, 1, 101): -0.00025187095395941186,
    (2, 2, 139): 0.00409075081302897,
    (2, 3, 200): 0.014305738450297461,
}
LARGEST = 0.03901811019638625
TOTAL = 18.605119489616154


class Counts(nn.Module):
    """The log counts of a BPNet."""

    def __init__(self, network: BPNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        counts: Tensor = self.network(x)[1]
        return counts


def setting() -> tuple[Counts, NDArray[np.uint8], NDArray[np.uint8]]:
    """BPNet with eight filters and three dilated layers, sequences and references."""
    generator = np.random.default_rng(2024)
    network = BPNet(n_filters=8, n_layers=3, n_outputs=1)
    state = network.state_dict()
    network.load_state_dict(
        {key: torch.from_numpy(generator.normal(0, 0.3, tuple(state[key].shape))) for key in sorted(state)}
    )
    codes = generator.integers(0, 4, (SEQUENCES, LENGTH)).astype(np.uint8)
    references = generator.integers(0, 4, (SEQUENCES, REFERENCES, LENGTH)).astype(np.uint8)
    return Counts(network.double().eval()), codes, references


def ours() -> NDArray[np.floating]:
    """Hypothetical contributions (sequences, 4, length) in float64."""
    counts, codes, references = setting()
    program = lower(capture(counts, (4, LENGTH), dtype=torch.float64))
    deeplift = DeepLift(program, targets=1, n_references=REFERENCES, batch_size=12, dtype=torch.float64)
    return deeplift.explain(codes, references)[0].hypothetical


def test_bpnet_scores_are_those_stored_from_tangermeme() -> None:
    got = ours()
    assert abs(np.abs(got).max() - LARGEST) < 1e-9 * LARGEST
    assert abs(np.abs(got).sum() - TOTAL) < 1e-9 * TOTAL
    for place, expected in STORED.items():
        assert abs(got[place] - expected) < 1e-9 * LARGEST


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_bpnet_scores_are_those_of_tangermeme() -> None:
    tangermeme: Any = pytest.importorskip(
        "tangermeme.deep_lift_shap", reason="tangermeme is not installed here"
    )
    counts, codes, references = setting()
    sequences, others = (
        torch.from_numpy(np.swapaxes(np.eye(4)[values], -1, -2).copy()) for values in (codes, references)
    )
    theirs = tangermeme.deep_lift_shap(
        counts,
        sequences,
        references=others,
        hypothetical=True,
        batch_size=8,
        dtype=torch.float64,
        device="cpu",
    ).numpy()
    found = float(np.abs(ours() - theirs).max() / np.abs(theirs).max())
    print(f"largest difference from tangermeme {found:.1e} of the largest score")
    assert found < 1e-9
