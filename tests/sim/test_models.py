"""The demo network: its training is decided by the seed, works, and leaves the caller's generator alone."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from dlgenome_sim.genome import simulate_examples
from dlgenome_sim.models import INPUT_LENGTH, SHIPPED_WEIGHTS, demo_network, explained_variance, save, train
from dlgenome_sim.motifs import Motif

EASY = (Motif("easy", "GGGGGGGG", 2.0),)


def test_training_learns_a_planted_motif_and_the_seed_decides_it() -> None:
    examples = simulate_examples(768, 60, motifs=EASY)
    state = torch.random.get_rng_state()
    first = train(*examples, epochs=6, channels=8)
    again = train(*examples, epochs=6, channels=8)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert not first.training
    unseen = simulate_examples(256, 60, seed=5, motifs=EASY)
    assert explained_variance(first, *unseen) > 0.7
    assert explained_variance(demo_network(8).eval(), *unseen) < 0.3


def test_saved_weights_load_into_a_new_network(tmp_path: Path) -> None:
    network = demo_network(8).eval()
    save(network, tmp_path / "weights.safetensors")
    restored = demo_network(8).eval()
    restored.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    sequences = torch.rand(2, 4, 50)
    assert torch.equal(network(sequences), restored(sequences))


def test_the_weights_that_ship_are_small_and_have_learned_the_motifs() -> None:
    assert SHIPPED_WEIGHTS.stat().st_size < 100_000
    network = demo_network().eval()
    network.load_state_dict(load_file(SHIPPED_WEIGHTS))
    unseen = simulate_examples(512, INPUT_LENGTH, seed=9)
    assert explained_variance(network, *unseen) > 0.8
