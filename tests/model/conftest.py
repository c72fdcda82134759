"""Sequences, weights and fake bpnet-lite classes that the tests of this room share."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def one_hot() -> Callable[[int, int, int], Tensor]:
    """Random sequences (count, 4, length) of a seed, the same on every machine."""

    def make(seed: int, count: int, length: int) -> Tensor:
        codes = np.random.default_rng(seed).integers(0, 4, size=(count, length))
        return torch.from_numpy(np.eye(4, dtype=np.float32)[codes].transpose(0, 2, 1).copy())

    return make


@pytest.fixture
def fill() -> Callable[[nn.Module, int], nn.Module]:
    """Weights of a seed, drawn in the order of the sorted names."""

    def into(module: nn.Module, seed: int) -> nn.Module:
        rng = np.random.default_rng(seed)
        state = module.state_dict()
        drawn = {
            key: rng.normal(0, 0.15, tuple(state[key].shape)).astype(np.float32) for key in sorted(state)
        }
        module.load_state_dict({key: torch.from_numpy(array) for key, array in drawn.items()})
        return module.eval()

    return into


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of the real checkpoints; skips where they are not at hand."""
    shared = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[2].parent / "shared"))
    folder = shared / "data" / "models"
    if not folder.is_dir():
        pytest.skip(f"the real checkpoints are not here ({folder})")
    return folder


class _Logger:
    def __init__(self) -> None:
        self.names = ["Epoch"]
        self.data = {"Epoch": [0, 1], "Validation Count MSE": [np.float64(0.5), np.float32(0.25)]}


class _BPNet(nn.Module):
    """Holds what bpnet-lite's class of that name holds; it cannot predict."""

    def __init__(self, n_filters: int, n_layers: int, n_outputs: int, n_control_tracks: int) -> None:
        super().__init__()
        self.n_filters, self.n_layers = n_filters, n_layers
        self.n_outputs, self.n_control_tracks = n_outputs, n_control_tracks
        self.trimming = 47 + sum(2**layer for layer in range(1, n_layers + 1))
        self.name, self.alpha = "toy", 1
        self.iconv = nn.Conv1d(4, n_filters, kernel_size=21, padding=10)
        self.irelu = nn.ReLU()
        self.rconvs = nn.ModuleList(
            nn.Conv1d(n_filters, n_filters, 3, padding=2**layer, dilation=2**layer)
            for layer in range(1, n_layers + 1)
        )
        self.rrelus = nn.ModuleList(nn.ReLU() for _ in range(n_layers))
        self.fconv = nn.Conv1d(n_filters + n_control_tracks, n_outputs, kernel_size=75, padding=37)
        self.linear = nn.Linear(n_filters + int(n_control_tracks > 0), 1)
        self.logger: Any = sys.modules["bpnetlite.logging"].Logger()


class _ControlWrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _Exp(nn.Module):
    pass


class _Log(nn.Module):
    pass


class _ChromBPNet(nn.Module):
    def __init__(self, bias: nn.Module, accessibility: nn.Module) -> None:
        super().__init__()
        self.bias, self.accessibility = bias, accessibility
        self.logger, self.n_control_tracks, self.n_outputs = None, 0, 1
        self._log, self._exp1, self._exp2 = _Log(), _Exp(), _Exp()


_FAKES: dict[str, dict[str, Any]] = {
    "bpnetlite.bpnet": {"BPNet": _BPNet, "ControlWrapper": _ControlWrapper},
    "bpnetlite.chrombpnet": {"ChromBPNet": _ChromBPNet, "_Exp": _Exp, "_Log": _Log},
    "bpnetlite.logging": {"Logger": _Logger},
}


@pytest.fixture
def bpnetlite() -> Callable[[], Any]:
    """A context in which ``import bpnetlite`` finds classes that pickle under its names."""

    @contextmanager
    def installed() -> Iterator[dict[str, Any]]:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold source text, which these classes have not
            patch.setitem(sys.modules, "bpnetlite", ModuleType("bpnetlite"))
            classes: dict[str, Any] = {}
            for module_name, members in _FAKES.items():
                module = ModuleType(module_name)
                for name, member in members.items():
                    member.__module__, member.__qualname__ = module_name, name
                    setattr(module, name, member)
                classes |= members
                patch.setitem(sys.modules, module_name, module)
            yield classes

    return installed
