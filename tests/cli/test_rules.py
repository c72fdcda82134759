"""The flags that choose rules and describe a model's input, through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from dlgenome_cli.main import cli

FACTORIES = """
import torch
from torch import nn

class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 5)

    def forward(self, x):
        ranked = self.conv(x).sort(-1)[0]
        return (ranked * torch.linspace(0, 1, ranked.shape[-1])).sum((1, 2))[:, None]

class Squash(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, (1, 5))

    def forward(self, x, shift):
        return torch.tanh(self.conv(x)).sum((1, 2, 3))[:, None] + shift
"""

PLUGIN = """
import torch
from dlgenome.attribution.rules.elementwise import Smooth

RULES = {torch.ops.aten.tanh.default: Smooth(scale=0.5)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "factories.py").write_text(FACTORIES)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "x.fa").write_text(">a\nACGTTGCAACGTAGCTAGCA\n>b\nTTGACCGTAGGCATCGATCC\n")
    torch.manual_seed(0)
    torch.save({"conv.weight": torch.randn(6, 4, 5), "conv.bias": torch.randn(6)}, folder / "sorted.pt")
    torch.save({"conv.weight": torch.randn(6, 4, 1, 5), "conv.bias": torch.randn(6)}, folder / "squash.pt")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def sorted_flags(folder: Path) -> list[object]:
    return [folder / "sorted.pt", "--architecture", f"{folder}/factories.py:Sorted"]


def squash_flags(folder: Path) -> list[object]:
    return [folder / "squash.pt", "--architecture", f"{folder}/factories.py:Squash", "--extra-input", "0.5"]


def test_a_refused_operation_says_where_it_is_and_what_to_write_instead(folder: Path) -> None:
    result = run("inspect", *sorted_flags(folder), "--window", 20)
    assert result.exit_code == 5
    assert "aten.sort" in result.output
    assert "use a maximum, or a softmax that weights the values" in result.output
    assert "factories.py, line 11" in result.output


def test_no_strict_explains_with_the_gradient_and_says_so_in_the_outputs(
    folder: Path, tmp_path: Path
) -> None:
    flags = ["-f", folder / "x.fa", "-t", "index:0", "-o", tmp_path / "run", "--n-references", 4]
    strict = run("attribute", "-m", *sorted_flags(folder), *flags)
    assert strict.exit_code == 5
    loose = run("attribute", "-m", *sorted_flags(folder), *flags, "--no-strict")
    assert loose.exit_code == 0, loose.output
    assert "no exact rule, gradient used: aten.sort.default" in loose.output
    facts = json.loads((tmp_path / "run.run.json").read_text())
    assert facts["identity"]["approximate_operations"] == "aten.sort.default"
    assert "aten.sort.default" in facts["approximations"][0]
    assert facts["completeness"]["index-0"]["maximum"] > 1e-3


def test_blame_names_the_inexact_operation_first(folder: Path) -> None:
    result = run("inspect", *sorted_flags(folder), "--window", 20, "--no-strict", "--blame")
    assert result.exit_code == 0, result.output
    table = result.output.split("Completeness error of each operation")[1].splitlines()
    assert "aten.sort" in table[1]
    of_a_record = run(
        "inspect", *sorted_flags(folder), "--no-strict", "--blame", "-f", folder / "x.fa", "--window", 20
    )
    assert of_a_record.exit_code == 0, of_a_record.output
    assert run("inspect", *sorted_flags(folder), "-f", folder / "x.fa", "--window", 20).exit_code == 2


def test_extra_inputs_layout_and_alphabet_reach_the_model(folder: Path) -> None:
    result = run("inspect", *squash_flags(folder), "--window", 20, "--alphabet", "AGCT")
    assert result.exit_code == 0, result.output
    for words in ("input of shape (batch, 4, 1, L)", "bases in the order AGCT", "extra input 0.5"):
        assert words in result.output
    missing = run("inspect", *squash_flags(folder)[:-2], "--window", 20)
    assert missing.exit_code == 2
    assert "give its further inputs with --extra-input" in missing.output


@pytest.mark.parametrize("rule", ["rescale", "revealcancel", "genomics-default"])
def test_every_exact_rule_adds_up_and_is_recorded(rule: str, folder: Path, tmp_path: Path) -> None:
    result = run(
        "attribute", "-m", *squash_flags(folder), "-f", folder / "x.fa", "-t", "index:0",
        "-o", tmp_path / "run", "--rule", rule, "--max-delta", "1e-4",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run.run.json").read_text())["identity"]["rule"] == rule


def test_passthrough_does_not_add_up(folder: Path, tmp_path: Path) -> None:
    result = run(
        "attribute", "-m", *squash_flags(folder), "-f", folder / "x.fa", "-t", "index:0",
        "-o", tmp_path / "run", "--rule", "passthrough", "--max-delta", "1e-2",
    )  # fmt: skip
    assert result.exit_code == 4


def test_a_plug_in_replaces_a_rule(folder: Path) -> None:
    result = run("inspect", *squash_flags(folder), "--window", 20, "--plugin", folder / "plugin.py")
    assert result.exit_code == 0, result.output
    wrong = run("inspect", *squash_flags(folder), "--window", 20, "--plugin", folder / "factories.py")
    assert wrong.exit_code == 2
    assert "defines no RULES" in wrong.output
