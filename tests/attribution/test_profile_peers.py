"""Counts and profile scores of a BPNet against the two programs that define them, with fixed references.

The numbers below are hypothetical contributions for the network, sequences and references of :func:`setting`,
made from numpy's ``default_rng(2025)``:

* ``BPNETLITE``: bpnet-lite 1.1.0 (tangermeme 1.6.0, torch 2.13.0, CPU, float64), with two strands:
  ``bpnetlite.attribute.deep_lift_shap(wrapped, sequences, references=references, hypothetical=True)`` for
  its CountWrapper and its ProfileWrapper. dlgenome is within 5e-13 of the largest.
* ``SHAP``: the file ``shap/explainers/deep/deep_tf.py`` of kundajelab/shap (commit 29d2ffab), which
  chrombpnet calls, unchanged under TensorFlow 2.15.1 in graph mode and float64, with one strand. The network
  was built of Keras layers; the explained numbers are chrombpnet's: the counts, and the sum over positions of
  ``softmax(stop_gradient(z)) * z`` of the mean-centred logits z. Multipliers m become hypothetical
  contributions as in chrombpnet, ``m - sum(m * reference)`` over bases, averaged over references. The logits
  agree within 2e-14; dlgenome's scores are within 1e-7 of the largest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.readout import Readout
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.checkpoint import load_model
from dlgenome.model.targets import TargetHead, parse_targets

SEQUENCES, REFERENCES, LENGTH = 3, 4, 240
PLACES = (
    (0, 0, 30), (0, 1, 97), (0, 2, 120), (0, 3, 151), (1, 0, 75), (1, 1, 120), (1, 2, 180), (1, 3, 140),
    (2, 0, 101), (2, 1, 119), (2, 2, 130), (2, 3, 200),
)  # fmt: skip
Stored = tuple[float, float, tuple[float, ...]]
"""Largest absolute score, sum of the absolute scores, and the scores at PLACES."""
BPNETLITE: dict[str, Stored] = {
    "counts": (
        0.008989658808588496,
        4.7150618992578,
        (
            0.001429453055037523, 0.0029777488285485003, 0.0017239276386990174, 0.001270444966631955,
            0.0031277627124867815, 0.0019072741300778877, -0.0035895131354228803, 0.0023822002476600905,
            0.0002598076624172361, 0.0015566051138914923, 0.0006756400935881541, 0.0010907513812690884,
        ),
    ),
    "profile-bpnetlite": (
        0.4856028569311719,
        147.3949484675747,
        (
            0.026403300688611273, -0.011666699441307682, 0.022720678886872694, -0.016207578471434704,
            -0.05219483324756162, 0.13780904557659235, -0.10268767208693985, 0.03168139615476864,
            -0.07122916546603977, -0.003940463072671912, 0.03390582562056602, -0.008695221438926442,
        ),
    ),
}  # fmt: skip
SHAP: dict[str, Stored] = {
    "counts": (
        0.003926706180078843,
        2.134667705082418,
        (
            1.2584505248989782e-05, 0.00023385338588722608, 0.0004530385656429941, -0.001708434672619984,
            -0.0005937098830396113, -0.0004787084753520777, -0.00022201679011387717, -0.0022456862151714356,
            0.0001726626314320918, 0.0002219546091757835, 0.0009485734903589334, -0.001947094799090849,
        ),
    ),
    "profile-chrombpnet": (
        0.23781468254757782,
        51.158205665908696,
        (
            0.004117057825851293, -0.013052473097500551, -0.035696678358887506, -0.09633763274011217,
            -0.01991801127484271, -0.03001054758575733, -0.010703231272933177, -0.030059206861174588,
            -0.01836254939558601, -0.0077095804892324616, -0.02038264585498517, 0.00099618815226326,
        ),
    ),
}  # fmt: skip


def setting(n_outputs: int) -> tuple[BPNet, NDArray[np.uint8], NDArray[np.uint8]]:
    """BPNet with eight filters and three dilated layers, sequences and references."""
    generator = np.random.default_rng(2025)
    codes = generator.integers(0, 4, (SEQUENCES, LENGTH)).astype(np.uint8)
    references = generator.integers(0, 4, (SEQUENCES, REFERENCES, LENGTH)).astype(np.uint8)
    network = BPNet(n_filters=8, n_layers=3, n_outputs=n_outputs)
    state = network.state_dict()
    network.load_state_dict(
        {key: torch.from_numpy(generator.normal(0, 0.15, tuple(state[key].shape))) for key in sorted(state)}
    )
    return network.double().eval(), codes, references


def ours(
    network: nn.Module, codes: NDArray[np.uint8], references: NDArray[np.uint8], *texts: str
) -> dict[str, NDArray[np.floating]]:
    """Hypothetical contributions (sequences, 4, length) of every target, in float64."""
    length = codes.shape[1]
    head = TargetHead(network, parse_targets(texts))
    kinds: dict[str, Any] = {"profile-bpnetlite": "bpnetlite", "profile-chrombpnet": "chrombpnet"}
    readouts, start = [], 0
    for text in texts:
        width = TargetHead(network, parse_targets([text]))(torch.zeros(1, 4, length).double()).shape[1]
        readouts.append(Readout(start, start + width, kinds.get(text, "number")))
        start += width
    program = lower(capture(head, (4, length), dtype=torch.float64))
    deeplift = DeepLift(
        program,
        targets=readouts,
        n_references=references.shape[1],
        batch_size=len(codes) * references.shape[1],
        dtype=torch.float64,
    )
    found = deeplift.explain(codes, references)
    return {text: target.hypothetical for text, target in zip(texts, found, strict=True)}


@pytest.mark.parametrize(
    ("n_outputs", "program", "tolerance"), [(2, BPNETLITE, 1e-9), (1, SHAP, 3e-7)], ids=["bpnetlite", "shap"]
)
def test_scores_are_those_stored_from_the_program(
    n_outputs: int, program: dict[str, Stored], tolerance: float
) -> None:
    for text, scores in ours(*setting(n_outputs), *program).items():
        largest, total, stored = program[text]
        assert abs(np.abs(scores).max() - largest) < tolerance * largest
        assert abs(np.abs(scores).sum() - total) < tolerance * total
        for place, expected in zip(PLACES, stored, strict=True):
            assert abs(scores[place] - expected) < tolerance * largest, (text, place)


def test_the_two_profile_scores_differ_by_more_than_their_largest() -> None:
    """The tolerances above could not hide one for the other."""
    found = ours(*setting(1), "profile-bpnetlite", "profile-chrombpnet")
    difference = np.abs(found["profile-bpnetlite"] - found["profile-chrombpnet"]).max()
    assert difference > np.abs(found["profile-chrombpnet"]).max()


def by_bpnetlite(network: Any, codes: NDArray[np.uint8], references: NDArray[np.uint8]) -> Any:
    """Scores of one of bpnet-lite's own networks by its own program, for the targets of BPNETLITE."""
    attribute: Any = pytest.importorskip("bpnetlite.attribute", reason="bpnet-lite is not installed here")
    bpnet: Any = pytest.importorskip("bpnetlite.bpnet", reason="bpnet-lite is not installed here")
    sequences, others = (
        torch.from_numpy(np.swapaxes(np.eye(4)[values], -1, -2).copy()) for values in (codes, references)
    )
    wrappers = {"counts": bpnet.CountWrapper, "profile-bpnetlite": bpnet.ProfileWrapper}
    return {
        text: attribute.deep_lift_shap(
            wrapper(network.double().eval()),
            sequences,
            references=others,
            hypothetical=True,
            device="cpu",
            batch_size=8,
        ).numpy()
        for text, wrapper in wrappers.items()
    }


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_bpnetlite() -> None:
    bpnet: Any = pytest.importorskip("bpnetlite.bpnet", reason="bpnet-lite is not installed here")
    network, codes, references = setting(2)
    theirs = bpnet.BPNet(n_filters=8, n_layers=3, n_outputs=2, n_control_tracks=0)
    theirs.load_state_dict(network.state_dict())
    found = ours(network, codes, references, *BPNETLITE)
    for text, expected in by_bpnetlite(theirs, codes, references).items():
        assert np.abs(found[text] - expected).max() < 1e-9 * np.abs(expected).max()


@pytest.mark.peer
@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
def test_scores_of_a_trained_model_are_those_of_bpnetlite() -> None:
    """Measured: counts 5e-16, profile 5e-11 of the largest: it divides by logits that may be 2e-6 apart."""
    pytest.importorskip("bpnetlite.bpnet", reason="bpnet-lite is not installed here")
    folder = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[2].parent / "shared"))
    path = folder / "data/models/bpnetlite_CTCF_K562_ENCSR000AKO.torch"
    if not path.is_file():
        pytest.skip(f"the trained model is not here ({path})")
    generator = np.random.default_rng(7)
    codes = generator.integers(0, 4, (2, 2114)).astype(np.uint8)
    references = generator.integers(0, 4, (2, 2, 2114)).astype(np.uint8)
    found = ours(load_model(path).module.double(), codes, references, *BPNETLITE)
    theirs = torch.load(path, map_location="cpu", weights_only=False)
    for text, expected in by_bpnetlite(theirs, codes, references).items():
        assert np.abs(found[text] - expected).max() < 1e-9 * np.abs(expected).max()
