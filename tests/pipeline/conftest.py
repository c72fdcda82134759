"""A run that takes a moment: a small genome, 23 regions, and a model that a window without bases breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.config import RunConfig
from dlgenome.pipeline import StopRequest
from dlgenome.pipeline.models import Fold, capture_folds
from dlgenome.scores import ScoresFile

WINDOW, N_REGIONS, BROKEN = 40, 23, (17,)

FACTORY = """
from torch import nn


class Ratio(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4 * 40, 2)

    def forward(self, x):
        return self.linear(x.flatten(1)) / x.sum((1, 2)).unsqueeze(1)


def ratio():
    return Ratio()
"""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with genome.fa, regions.bed, broken.bed, model.py, fold0.pt and fold1.pt.

    All is N where region 17 of broken.bed lies, and the model divides by the number of bases.
    """
    import torch

    folder = tmp_path_factory.mktemp("inputs")
    bases = np.random.default_rng(4).choice(list("ACGT"), 4000)
    bases[3000:3100] = "N"
    (folder / "genome.fa").write_text(f">chr1\n{''.join(bases)}\n>chr2\nACGT\n")
    starts = [100 + 97 * row for row in range(N_REGIONS)]
    rows = [f"chr1\t{start}\t{start + 30}\tpeak{row}\n" for row, start in enumerate(starts)]
    (folder / "regions.bed").write_text("".join(rows))
    for row in BROKEN:
        rows[row] = f"chr1\t3030\t3060\tpeak{row}\n"
    (folder / "broken.bed").write_text("".join(rows))
    (folder / "model.py").write_text(FACTORY)
    with torch.random.fork_rng(devices=[]):
        for fold in range(2):
            torch.manual_seed(fold)
            weights = {"linear.weight": torch.randn(2, 4 * WINDOW), "linear.bias": torch.randn(2)}
            torch.save(weights, folder / f"fold{fold}.pt")
    return folder


@pytest.fixture(scope="session")
def captured() -> Callable[..., tuple[Fold, ...]]:
    """As `capture_folds`, which most of the time goes into, once for each model and targets."""
    known: dict[tuple[Any, ...], tuple[Fold, ...]] = {}

    def capture(config: RunConfig, models: Any, targets: Any, *others: Any) -> tuple[Fold, ...]:
        key = (tuple(opened.model.sha256 for opened in models), targets, config.precision, *others)
        if key not in known:
            known[key] = capture_folds(config, models, targets, *others)
        return known[key]

    return capture


@pytest.fixture
def config(
    inputs: Path, tmp_path: Path, captured: Callable[..., tuple[Fold, ...]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunConfig]:
    """Makes the settings of a run below ``tmp_path``, four windows a step and a block."""
    monkeypatch.setattr("dlgenome.writers.blocks.MAX_CHUNK_ROWS", 4)
    monkeypatch.setattr("dlgenome.pipeline.job.capture_folds", captured)

    def make(output: str = "run", **changes: Any) -> RunConfig:
        settings: dict[str, Any] = {
            "model": inputs / "fold0.pt",
            "architecture": f"{inputs / 'model.py'}:ratio",
            "window": WINDOW,
            "genome": inputs / "genome.fa",
            "regions": str(inputs / "regions.bed"),
            "targets": ("index:0",),
            "output": tmp_path / output,
            "n_references": 3,
            "batch_size": 12,
            "device": "cpu",
            "threads": 1,
        }
        return RunConfig(**{**settings, **changes})

    return make


def contents(path: Path) -> dict[str, Any]:
    """Every dataset of a scores file, and its identity."""
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype.str, item.chunks, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(keep)
    with ScoresFile(path) as scores:
        return {**found, **scores.identity}


@pytest.fixture(scope="session")
def assert_equal() -> Callable[[Path, Path], None]:
    """Fails unless two prefixes have the same files, equal in all but provenance."""

    def check(ours: Path, theirs: Path) -> None:
        endings, others = (
            sorted(path.name.removeprefix(prefix.name) for path in prefix.parent.glob(f"{prefix.name}.*"))
            for prefix in (ours, theirs)
        )
        assert endings == others
        for ending in endings:
            one, other = (Path(f"{prefix}{ending}") for prefix in (ours, theirs))
            if ending.endswith(".h5"):
                assert contents(one) == contents(other)
            elif not ending.endswith(".json"):
                assert one.read_bytes() == other.read_bytes(), ending

    return check


@dataclass
class StopAt:
    """A progress callback that asks for the end once so many regions are done."""

    done: int
    stop: StopRequest

    def __call__(self, done: int, total: int) -> None:
        if done >= self.done:
            self.stop.request("a test")


@pytest.fixture
def stop_at() -> Callable[[int], dict[str, Any]]:
    """Arguments with which a run stops at this many regions."""

    def make(done: int) -> dict[str, Any]:
        stop = StopRequest()
        return {"progress": StopAt(done, stop), "stop": stop}

    return make
