"""TorchScript archives run when they are loaded, so they need the user's word; a fixed batch is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError
from dlgenome.model.checkpoint import load_model
from dlgenome.model.inputs import InputForm, adapt

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LENGTH = 20


class Hostile(nn.Module):
    """Writes a file when it is loaded, in TorchScript's own language and without any pickle."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, sequences: Tensor) -> Tensor:
        return sequences

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), state[0])


class Fixed(nn.Module):
    """Takes one sequence only."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.dense = nn.Conv1d(4, 3, 5), nn.Linear(48, 2)

    def forward(self, sequences: Tensor) -> Tensor:
        prediction: Tensor = self.dense(self.convolution(sequences).relu().view(1, 48))
        return prediction


class First(Fixed):
    """Predicts of the first sequence only, however many there are."""

    def forward(self, sequences: Tensor) -> Tensor:
        prediction: Tensor = self.dense(self.convolution(sequences).relu()[:1].view(1, 48))
        return prediction


def script(module: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(path))  # type: ignore[no-untyped-call]


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(4, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    script(module, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_an_archive_is_refused_without_running(tmp_path: Path) -> None:
    victim, path = tmp_path / "written", tmp_path / "model.pt"
    script(Hostile(str(victim)), path)
    victim.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"can write files as soon as it is loaded.*--trust-pickle only if"):
        load_model(path)
    assert not victim.exists()
    load_model(path, trust_pickle=True)  # so the test would notice: loading it does write
    assert victim.exists()


def test_a_trusted_archive_predicts(scripted: Path, one_hot: Callable[..., Tensor]) -> None:
    loaded = load_model(scripted, trust_pickle=True)
    assert (loaded.kind, loaded.n_parameters) == ("torchscript", 63 + 98)
    sequences = one_hot(1, 3, LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(str(scripted))(sequences)  # type: ignore[no-untyped-call]
    found = adapt(loaded, InputForm(), LENGTH).module(sequences)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fixed(), "three at once fail with .*invalid for input of size 144"),
        (First(), r"three at once give \(1, 2\)"),
    ],
)
def test_a_fixed_batch_is_refused_by_name(tmp_path: Path, module: nn.Module, message: str) -> None:
    script(module, tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", trust_pickle=True)
    with pytest.raises(UnsupportedModelError, match=f"fixes its batch size: one sequence works, {message}"):
        adapt(loaded, InputForm(), LENGTH)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_archives_say_so(scripted: Path, share: float) -> None:
    content = scripted.read_bytes()
    scripted.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        load_model(scripted, trust_pickle=True)


def test_weights_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(4, 3, 5))
    with torch.no_grad():
        module.get_parameter("0.bias")[1] = float("nan")
    script(module, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"tensor 0\.bias has 1 NaN"):
        load_model(tmp_path / "model.pt", trust_pickle=True)
