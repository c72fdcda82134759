"""A small simulated genome, models that are explained in a blink, and the command run on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from dlgenome_cli.main import cli
from dlgenome_sim.files import write_fasta, write_narrow_peak
from dlgenome_sim.genome import SimulatedGenome, simulate_genome

LENGTH = 100
Attribute = Callable[..., Result]

LINEAR_FACTORY = """
from torch import nn


def linear(length=100, outputs=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * length, outputs))
"""


@pytest.fixture(scope="session")
def simulated() -> SimulatedGenome:
    """Two contigs with eight and four peaks."""
    return simulate_genome({"chrA": 20_000, "chrB": 12_000}, seed=3)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, simulated: SimulatedGenome) -> Path:
    """A folder with genome.fa and its index, peaks.narrowPeak, bpnet.safetensors, linear.pt, linear.py."""
    import torch

    from dlgenome.model.architectures.bpnet import BPNet
    from dlgenome.model.safe_files import save_safetensors
    from dlgenome.regions.fasta import Genome

    folder = tmp_path_factory.mktemp("inputs")
    write_fasta(folder / "genome.fa", simulated.contigs)
    with Genome(folder / "genome.fa"):
        pass
    write_narrow_peak(folder / "peaks.narrowPeak", simulated.peaks)
    (folder / "linear.py").write_text(LINEAR_FACTORY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        arguments: dict[str, Any] = {
            "n_filters": 8,
            "n_layers": 1,
            "n_outputs": 1,
            "first_kernel_size": 7,
            "profile_kernel_size": 5,
        }
        save_safetensors(
            BPNet(**arguments),
            folder / "bpnet.safetensors",
            architecture="bpnet",
            arguments=arguments,
            input_length=LENGTH,
        )
        weights = {"1.weight": torch.randn(3, 4 * LENGTH), "1.bias": torch.randn(3)}
        torch.save(weights, folder / "linear.pt")
    return folder


@pytest.fixture(scope="session")
def input_flags(inputs: Path) -> tuple[object, ...]:
    """The simulated model, genome and regions, as commands take them."""
    files = {"-m": "bpnet.safetensors", "-g": "genome.fa", "-r": "peaks.narrowPeak"}
    return tuple(word for flag, name in files.items() for word in (flag, inputs / name))


@pytest.fixture(scope="session")
def attribute(inputs: Path) -> Attribute:
    """Runs `dlgenome attribute` on the simulated data; keywords replace an input, None leaves it out."""

    def run(
        *arguments: object,
        model: Path | None = inputs / "bpnet.safetensors",
        genome: Path | None = inputs / "genome.fa",
        regions: Path | str | None = inputs / "peaks.narrowPeak",
        stdin: bytes | None = None,
        quiet: bool = True,
    ) -> Result:
        given = [("-m", model), ("-g", genome), ("-r", regions)]
        words = [str(word) for flag, value in given if value is not None for word in (flag, value)]
        words += ["--n-references", "3", "--batch-size", "6", "--device", "cpu", "--threads", "1"]
        words += ["-q"] if quiet else []
        return CliRunner().invoke(cli, ["attribute", *words, *map(str, arguments)], input=stdin)

    return run


@pytest.fixture(scope="session")
def linear(attribute: Attribute, inputs: Path) -> Attribute:
    """As `attribute`, with a linear model of three outputs, whose contributions are its weights."""

    def run(*arguments: object, model: Path = inputs / "linear.pt", **given: Any) -> Result:
        factory = ("--architecture", f"{inputs / 'linear.py'}:linear", "--window", LENGTH)
        return attribute(*factory, *arguments, model=model, **given)

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files; skips where it is not at hand."""
    shared = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[3] / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip(f"real data not found: {shared / 'data'} (set DLGENOME_SHARED)")
    return shared / "data"


Datasets = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def read_scores() -> Callable[[Path], Datasets]:
    """Every dataset of an HDF5 file by name, and its identity under `attribute:NAME`."""

    def read(path: Path) -> Datasets:
        import h5py

        from dlgenome.scores import ScoresFile

        found: Datasets = {}

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item[()]

        with h5py.File(path) as file:
            file.visititems(keep)
        with ScoresFile(path) as scores:
            found |= {f"attribute:{name}": np.array(value) for name, value in scores.identity.items()}
        return found

    return read


@pytest.fixture(scope="session")
def finished(attribute: Attribute, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix of a run on all the simulated peaks, with all the formats."""
    prefix = tmp_path_factory.mktemp("finished") / "run"
    result = attribute("-o", prefix, "--formats", "h5,bigwig,npz")
    assert result.exit_code == 0, result.stderr
    return prefix
