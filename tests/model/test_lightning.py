"""Lightning checkpoints and {config, state_dict} files: weights and settings are read, no object is made."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path, PosixPath
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import InputError
from dlgenome.model.architectures.basset import Basset
from dlgenome.model.checkpoint import load_model

FACTORY = """
import torch

class Net(torch.nn.Module):
    def __init__(self, n_filters=2, kernel_size=3):
        super().__init__()
        self.conv = torch.nn.Conv1d(4, n_filters, kernel_size)

    def forward(self, sequences):
        return self.conv(sequences).mean(2)
"""


class _Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.victim),))


class Settings:
    """A settings object of the user's own package."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the class above look as if it came from an installed package."""
    module = ModuleType("their_package")
    setattr(module, "Settings", Settings)  # noqa: B010 - mypy knows no such attribute
    monkeypatch.setattr(Settings, "__module__", "their_package")
    monkeypatch.setitem(sys.modules, "their_package", module)


def checkpoint(state: dict[str, Tensor], settings: Any, **more: Any) -> dict[str, Any]:
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"dirpath": "runs/1"}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "hparams_name": "kwargs",
        "hyper_parameters": settings,
        **more,
    }


def basset() -> Basset:
    torch.manual_seed(0)
    return Basset((6, 5, 4), (9, 5, 3), (3, 4, 4), (12,), 2, input_length=300)


@pytest.mark.parametrize("prefix", ["model.", "net.", "anything.at_all."])
@pytest.mark.parametrize("kind", ["dict", "object"])
def test_settings_become_arguments_and_words_before_names_are_dropped(
    tmp_path: Path, packages: None, prefix: str, kind: str
) -> None:
    module, path = basset(), tmp_path / "last.ckpt"
    values = {"input_length": 300, "pool_sizes": [3, 4, 4], "lr": 0.001, "root": PosixPath("data")}
    settings = {
        "dict": values | {"other": Settings(depth=3), "counts": defaultdict(list)},
        "object": Settings(**values),
    }[kind]
    torch.save(
        checkpoint({prefix + key: value for key, value in module.state_dict().items()}, settings), path
    )
    del sys.modules["their_package"]  # nothing of it may be needed
    loaded = load_model(path, architecture="basset")
    assert loaded.input_length == 300
    assert "lr" not in loaded.arguments
    for key, tensor in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], tensor)


def test_weights_of_losses_beside_the_network_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    state = {f"model.{key}": value for key, value in nn.Conv1d(4, 5, 7).state_dict(prefix="conv.").items()}
    state["loss.weight"] = torch.ones(2)
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint(state, {"n_filters": 5, "kernel_size": 7, "lr": 0.1}), path)
    loaded = load_model(path, architecture=f"{tmp_path / 'nets.py'}:Net")
    assert torch.equal(loaded.module.state_dict()["conv.weight"], state["model.conv.weight"])
    assert loaded.arguments == {"n_filters": 5, "kernel_size": 7}
    assert "arguments from the file: n_filters=5, kernel_size=7" in loaded.notes


def test_a_config_beside_the_weights_builds_the_users_network(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FACTORY)
    state = nn.Conv1d(4, 5, 7).state_dict(prefix="conv.")
    path = tmp_path / "model.torch"
    torch.save({"config": {"n_filters": 5, "kernel_size": 7, "name": "x"}, "state_dict": state}, path)
    loaded = load_model(path, architecture=f"{tmp_path / 'nets.py'}:Net")
    assert torch.equal(loaded.module.state_dict()["conv.weight"], state["conv.weight"])
    with pytest.raises(InputError, match=r"wrong shape conv\.weight is \(5, 4, 7\), not \(5, 4, 9\)"):
        load_model(path, architecture=f"{tmp_path / 'nets.py'}:Net", architecture_args={"kernel_size": 9})


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict"])
def test_a_hostile_object_in_a_checkpoint_is_refused_without_running(tmp_path: Path, place: str) -> None:
    victim, path = tmp_path / "written", tmp_path / "last.ckpt"
    content = checkpoint(dict(basset().state_dict()), {"input_length": 300})
    content[place] = {**content[place], "hidden": _Hostile(victim)}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"would import posix\.mkdir"):
        load_model(path, architecture="basset")
    assert not victim.exists()


def test_objects_of_other_packages_are_refused_where_no_lightning_wrote_them(
    tmp_path: Path, packages: None
) -> None:
    torch.save({"state_dict": basset().state_dict(), "args": Settings(depth=3)}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"would import their_package\.Settings"):
        load_model(tmp_path / "model.pt", architecture="basset")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_checkpoints_say_so(tmp_path: Path, share: float) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint(dict(basset().state_dict()), {}), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        load_model(path, architecture="basset")
