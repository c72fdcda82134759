"""A small convolutional network and its training on simulated sequences.

`python -m dlgenome_sim.models -o FILE.safetensors` writes trained weights (half a minute on one core); load
them with `--architecture dlgenome_sim.models:demo_network`. The weights that ship were made so, with seed 0.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlgenome.encoding import one_hot
from dlgenome.types import Codes
from dlgenome_sim.genome import simulate_examples

INPUT_LENGTH = 200
"""Bases that the demo network is trained on; it takes any length."""

SHIPPED_WEIGHTS = Path(__file__).with_name("demo_network.safetensors")
"""Trained weights of `demo_network`, about 30 kB."""


def demo_network(channels: int = 32) -> nn.Module:
    """An untrained network: (batch, 4, length) one-hot sequences -> (batch, 1) activity."""
    return nn.Sequential(
        nn.Conv1d(4, channels, kernel_size=15, padding=7),
        nn.ReLU(),
        nn.MaxPool1d(8),
        nn.Conv1d(channels, channels, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(channels, 1),
    )


def _one_hot(codes: Codes) -> Tensor:
    return torch.from_numpy(one_hot(codes)).to(torch.float32)


def train(
    codes: Codes,
    activities: NDArray[np.float32],
    *,
    epochs: int = 8,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    channels: int = 32,
    seed: int = 0,
) -> nn.Module:
    """A network fitted to the activities by Adam on the squared error, in eval mode; the seed decides all."""
    sequences, goals = _one_hot(codes), torch.from_numpy(activities)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = demo_network(channels)
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        steps = epochs * (len(sequences) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(sequences))
            for rows in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(network(sequences[rows]), goals[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return network.eval()


def explained_variance(network: nn.Module, codes: Codes, activities: NDArray[np.float32]) -> float:
    """The share of the activities' variance that the network predicts; 1 is perfect."""
    with torch.inference_mode():
        predicted = network(_one_hot(codes))[:, 0].numpy()
    return float(1 - np.mean((predicted - activities) ** 2) / np.var(activities))


def trained_demo_network(seed: int = 0, examples: int = 16384) -> nn.Module:
    """The network of `dlgenome demo`, trained from nothing on simulated sequences."""
    codes, activities = simulate_examples(examples, INPUT_LENGTH, seed)
    return train(codes, activities, seed=seed)


def save(network: nn.Module, path: Path) -> None:
    """Write the weights, and nothing that could run, as safetensors."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Weights to write.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sequences and of the training.")
def main(output: Path, seed: int) -> None:
    """Train the demo network and write its weights."""
    network = trained_demo_network(seed)
    save(network, output)
    held_out = simulate_examples(512, INPUT_LENGTH, seed + 1)
    click.echo(
        f"{output}: explains {explained_variance(network, *held_out):.1%} of unseen activity", err=True
    )


if __name__ == "__main__":
    main()
