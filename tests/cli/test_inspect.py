"""`dlgenome inspect`: architecture, layers, targets, and the rule of every operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dlgenome_cli.main import cli

REFUSED_FACTORY = """
import torch
from torch import nn


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 1)

    def forward(self, sequences):
        values = torch.linalg.svdvals(sequences)
        return self.dense(values)


def spectrum():
    return Spectrum()
"""


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def inspect_json(*arguments: object) -> dict[str, Any]:
    result = inspect(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_text_names_architecture_input_outputs_targets_layers_and_rules(inputs: Path) -> None:
    result = inspect(inputs / "bpnet.safetensors")
    assert result.exit_code == 0, result.stderr
    for words in (
        "bpnet (safetensors)",
        "n_filters=8",
        "100 bases",
        "0: (batch, 1, ",
        "1: (batch, 1) = profile, counts",
        "targets    counts",
        "Operations that counts needs",
        "Every operation has an exact rule.",
    ):
        assert words in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["iconv", "Conv1d", "8", "x", "100", "232"] in lines
    assert any(line[:1] == ["aten.relu"] and "rescale" in line for line in lines)


def test_json_holds_the_same_facts(inputs: Path) -> None:
    import hashlib

    found = inspect_json(inputs / "bpnet.safetensors")
    assert found["architecture"] == "bpnet"
    assert found["input_length"] == 100
    assert found["supported"] is True
    assert found["inspected_targets"] == ["counts"]
    assert found["sha256"] == hashlib.sha256((inputs / "bpnet.safetensors").read_bytes()).hexdigest()
    assert {layer["path"]: layer["n_parameters"] for layer in found["layers"]}["iconv"] == 8 * 4 * 7 + 8
    assert all(fact["exact"] for fact in found["operations"])
    assert [fact["module"] for fact in found["operations"]][:2] == ["iconv", "irelu"]


def test_a_target_of_the_users_choice_is_inspected(inputs: Path) -> None:
    found = inspect_json(inputs / "bpnet.safetensors", "-t", "output:0/index:0@0-40")
    assert found["inspected_targets"] == ["output:0/index:0@0-40"]
    assert "fconv" in {fact["module"] for fact in found["operations"]}


def test_an_own_factory_is_inspected_with_its_arguments(inputs: Path) -> None:
    factory = ("--architecture", f"{inputs / 'linear.py'}:linear", "--architecture-args", '{"outputs": 3}')
    found = inspect_json(inputs / "linear.pt", *factory, "--window", 100)
    assert found["targets"] == ["index:0 .. index:2"]
    assert found["n_parameters"] == 3 * 401


def test_an_operation_without_a_rule_is_named_with_its_line_and_ends_with_5(tmp_path: Path) -> None:
    import torch

    source = tmp_path / "spectrum.py"
    source.write_text(REFUSED_FACTORY)
    torch.save({"dense.weight": torch.ones(1, 4), "dense.bias": torch.zeros(1)}, tmp_path / "spectrum.pt")
    arguments = (tmp_path / "spectrum.pt", "--architecture", f"{source}:spectrum", "--window", 100)
    result = inspect(*arguments)
    assert result.exit_code == 5
    refused = [line for line in result.stdout.splitlines() if "none" in line and "aten." in line]
    line = 1 + REFUSED_FACTORY.splitlines().index("        values = torch.linalg.svdvals(sequences)")
    assert refused
    assert all(f"{source}, line {line}" in text for text in refused)
    assert result.stderr.count("Error: ") == 1
    assert str(tmp_path / "spectrum.pt") in result.stderr
    as_json = inspect(*arguments, "--json")
    assert as_json.exit_code == 5
    assert json.loads(as_json.stdout)["supported"] is False


def test_attribute_refuses_the_same_model_before_any_work(
    attribute: Any, inputs: Path, tmp_path: Path
) -> None:
    import torch

    (tmp_path / "spectrum.py").write_text(REFUSED_FACTORY)
    torch.save({"dense.weight": torch.ones(1, 4), "dense.bias": torch.zeros(1)}, tmp_path / "spectrum.pt")
    (tmp_path / "out").mkdir()
    result = attribute(
        "-o",
        tmp_path / "out" / "run",
        "--architecture",
        f"{tmp_path / 'spectrum.py'}:spectrum",
        "--window",
        "100",
        "-t",
        "index:0",
        model=tmp_path / "spectrum.pt",
    )
    assert result.exit_code == 5
    assert "spectrum.py, line 12" in result.stderr
    assert "svd" in result.stderr
    assert result.stderr.count("Error: ") == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("{inputs}/none.pt",), 3, "no model file"),
        (("{inputs}/genome.fa",), 3, "is a text file, not a model"),
        (("{inputs}/linear.pt",), 2, "--architecture"),
        (("{inputs}/bpnet.safetensors", "-t", "index:9"), 2, "choose one with output:K/index:9"),
        (("{inputs}/bpnet.safetensors", "--model-type", "keras"), 2, "--model-type keras"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(
    arguments: tuple[str, ...], exit_code: int, words: str, inputs: Path
) -> None:
    result = inspect(*(argument.format(inputs=inputs) for argument in arguments))
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.real
def test_the_real_checkpoints_are_supported(real_data: Path) -> None:
    for name in ("bpnetlite_CTCF_K562_ENCSR000AKO.torch", "GATA2.torch"):
        found = inspect_json(real_data / "models" / name)
        assert (found["architecture"], found["input_length"], found["supported"]) == ("bpnet", 2114, True)
