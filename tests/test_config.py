"""RunConfig: its checks, its defaults and what becomes of it in run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlgenome.config import RunConfig, config_of, default_threads, settings
from dlgenome.errors import UsageError

SOURCES: dict[str, Any] = {
    "model": Path("m.pt"),
    "output": Path("out"),
    "genome": Path("g.fa"),
    "regions": "peaks.bed",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"genome": None}, "--genome is missing"),
        ({"regions": None}, "--regions is missing"),
        ({"fasta": Path("s.fa")}, "not both"),
        ({"fasta": Path("s.fa"), "genome": None, "regions": None, "formats": ("bigwig",)}, "needs a genome"),
        ({"edge": "wrap"}, "--edge is wrap; it can be drop or pad"),
        ({"score_dtype": "int8"}, "--score-dtype is int8"),
        ({"formats": ("h5", "tsv")}, "--formats names tsv"),
        ({"n_references": 0}, "--n-references is 0"),
        ({"batch_size": "many"}, "--batch-size is many"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"window": -1}, "--window is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"max_delta": 0.0}, "--max-delta is 0.0"),
        ({"max_delta": float("nan")}, "--max-delta is nan"),
        ({"window": 100, "crop": 200}, "--crop 200 is wider"),
        ({"targets": ()}, "No target"),
    ],
)
def test_settings_that_cannot_be_are_usage_errors(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunConfig(**{**SOURCES, **changes})
    assert words in str(caught.value)


def test_formats_default_to_what_the_input_allows() -> None:
    assert RunConfig(**SOURCES).formats == ("h5", "bigwig")
    run = RunConfig(model=Path("m"), output=Path("o"), fasta=Path("s.fa"))
    assert run.formats == ("h5",)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"SLURM_CPUS_PER_TASK": "0", "OMP_NUM_THREADS": "4,2"}, None),
    ],
)
def test_threads_follow_the_job_then_the_machine(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], threads: int | None
) -> None:
    for variable in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    machine = default_threads()
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert default_threads() == (threads or machine)


def test_settings_of_a_run_are_ready_for_json() -> None:
    plain = settings(RunConfig(**SOURCES))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["model"] == "m.pt"
    assert plain["targets"] == ["counts"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"folds": (Path("a"), Path("b")), "per_fold": True, "chroms": ("chr1",), "exclude": Path("x.bed")},
        {"plugins": (Path("rules.py"),), "targets": ("index:0", "index:1"), "adaptive_references": 0.5},
    ],
)
def test_a_config_comes_back_from_its_settings(changes: dict[str, Any]) -> None:
    config = RunConfig(**{**SOURCES, **changes})
    assert config_of(json.loads(json.dumps(settings(config)))) == config


def test_settings_that_this_version_does_not_know_are_named() -> None:
    with pytest.raises(UsageError, match="There is no setting magic"):
        config_of({**settings(RunConfig(**SOURCES)), "magic": 1})
