"""What `dlgenome inspect` says of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dlgenome.errors import UsageError
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.checkpoint import load_model
from dlgenome.model.description import LayerFact, describe, layers


def test_description_lists_layers_outputs_and_targets(tmp_path: Path) -> None:
    torch.save(BPNet(n_filters=4, n_layers=2).state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", architecture_args={"input_length": 300})
    facts = describe(loaded)
    assert facts.layers[0] == LayerFact("iconv", "Conv1d", 4 * 4 * 21 + 4, (4, 300), 1)
    assert [layer.path for layer in facts.layers][-2:] == ["fconv", "linear"]
    assert sum(layer.n_parameters for layer in facts.layers) == loaded.n_parameters
    assert (facts.input_length, facts.targets, facts.output_names) == (
        300,
        ("counts", "profile-bpnet", "profile-chrombpnet", "profile-bpnetlite"),
        ("profile", "counts"),
    )
    assert [fact.shape for fact in facts.outputs] == [(2, 194), (1,)]


def test_description_leaves_the_model_untouched(tmp_path: Path) -> None:
    torch.save(BPNet(n_filters=4, n_layers=2).state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    layers(loaded, 300)
    assert not any(module._forward_hooks for module in loaded.module.modules())


def test_layers_used_twice_or_never_say_so(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv1d(4, 2, 3)\n"
        "        self.relu, self.spare = torch.nn.ReLU(), torch.nn.ReLU()\n"
        "    def forward(self, x):\n"
        "        return self.relu(self.relu(self.conv(x)) - 1).mean(2)\n"
    )
    torch.save(
        {f"conv.{key}": value for key, value in nn.Conv1d(4, 2, 3).state_dict().items()}, tmp_path / "m.pt"
    )
    loaded = load_model(tmp_path / "m.pt", architecture=f"{tmp_path / 'nets.py'}:Net")
    calls = {layer.path: (layer.n_calls, layer.output_shape) for layer in layers(loaded, 10)}
    assert calls == {"conv": (1, (2, 8)), "relu": (2, (2, 8)), "spare": (0, None)}
    with pytest.raises(UsageError, match="give it with --window"):
        describe(loaded)


def test_layers_that_return_a_state_beside_their_output_are_described(tmp_path: Path) -> None:
    from dlgenome.model.architectures.danq import DanQ

    network = DanQ(n_filters=6, n_recurrent=5, n_hidden=9, n_outputs=3, input_length=100)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", architecture="danq", architecture_args={"input_length": 100})
    (recurrent,) = [layer for layer in layers(loaded) if layer.class_name == "LSTM"]
    assert recurrent.output_shape == (5, 10)
