"""The comparison of constructs, on dlgenome alone: its column of docs/comparison.md, and the judging."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import math
import stat
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks import constructs_compare as comparing
from benchmarks import constructs_report as report
from benchmarks import constructs_worker
from benchmarks.__main__ import main
from benchmarks.constructs import CONSTRUCTS, CONTROL, LENGTH, Network
from benchmarks.constructs_compare import Answer, Measured, Result
from benchmarks.constructs_programs import by_dlgenome, is_refusal, one_hot, versions
from benchmarks.processes import CHECKOUT, BenchmarkError
from dlgenome.errors import UnsupportedModelError
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome_sim.genome import random_codes

PAGE = CHECKOUT / "docs" / "comparison.md"
NAMES = [name for name in CONSTRUCTS if name != CONTROL]
SEQUENCES = random_codes(2 * LENGTH, np.random.default_rng(0)).reshape(2, LENGTH)
REFERENCES = shuffle_sequences(SEQUENCES, 5, 0, dinucleotides=True)
DELTA = np.array([2.0, -1.0])


def documented() -> dict[str, list[str]]:
    """Cells of docs/comparison.md by title; the header under "network"."""
    lines = PAGE.read_text().partition(report.BEGIN)[2].partition(report.END)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    first = next(place for place, row in enumerate(rows) if row[0] == "network")
    return {row[0]: row[1:] for row in rows[first : first + 2 + len(CONSTRUCTS)] if "---" not in row[0]}


TABLE = documented()
EXACT = [name for name in CONSTRUCTS if TABLE.get(CONSTRUCTS[name].title, [""])[0].startswith("exact")]
REFUSED = [name for name in CONSTRUCTS if TABLE.get(CONSTRUCTS[name].title, [""])[0].startswith("refused")]


class SideBySide(nn.Module):
    """The sum of several networks, each of which reads its own stretch of the sequence.

    Captured once instead of one by one; the contributions of a stretch are those of its network.
    """

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, sequences: Tensor) -> Tensor:
        """(batch, 1)."""
        stretches = torch.split(sequences, LENGTH, dim=2)
        outputs = [network(own) for network, own in zip(self.networks, stretches, strict=True)]
        return torch.stack(outputs).sum(0)


@cache
def calibrated(name: str) -> Network:
    """The network of the table; not to be changed."""
    return comparing.calibrated(name, SEQUENCES, REFERENCES)


def answer(*sums: float, **facts: Any) -> Answer:
    """Contributions of two sequences that sum to the numbers given."""
    return Answer(np.full((2, 4, 5), np.array(sums)[:, None, None] / 20), **facts)


def test_the_page_has_every_construct_and_program() -> None:
    header = TABLE["network"]
    assert list(TABLE)[1:] == [construct.title for construct in CONSTRUCTS.values()]
    assert [name.split()[0] for name in header] == ["dlgenome", *comparing.PEERS]
    assert len(EXACT) + len(REFUSED) == len(CONSTRUCTS), "ours is either exact or refused"


def test_what_the_page_calls_exact_adds_up() -> None:
    together = SideBySide([calibrated(name) for name in EXACT])
    copies = (np.tile(SEQUENCES, len(EXACT)), np.tile(REFERENCES, len(EXACT)))
    scores = np.asarray(by_dlgenome(together, *copies, torch.float64), dtype=np.float64)
    off = {}
    for name, own in zip(EXACT, np.split(scores, len(EXACT), axis=2), strict=True):
        delta = comparing.mean_delta(calibrated(name), SEQUENCES, REFERENCES)
        found = comparing.number(Answer(own), delta)
        if found is None or not found < comparing.EXACT_FLOAT64:
            off[name] = found
    assert not off


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_page_calls_refused_is_refused_on_purpose(name: str) -> None:
    network = calibrated(name)
    with pytest.raises(UnsupportedModelError) as refusal:
        by_dlgenome(network, SEQUENCES, REFERENCES, torch.float32)
    assert is_refusal(refusal.value, "dlgenome")


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_a_program_that_takes_the_gradient_is_found_out(name: str) -> None:
    network = copy.deepcopy(calibrated(name)).double()
    rows, others = one_hot(SEQUENCES, torch.float64), one_hot(REFERENCES, torch.float64)
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad(network(rows).sum(), rows)
    scores = (gradient[:, None] * (rows[:, None] - others)).mean(1).detach().numpy()
    found = comparing.number(Answer(scores), comparing.mean_delta(network, SEQUENCES, REFERENCES))
    assert found is not None
    assert found > 10 * comparing.EXACT_FLOAT32


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_differences_are_of_a_usual_size_and_do_not_cancel(name: str) -> None:
    network = copy.deepcopy(calibrated(name)).double()
    with torch.no_grad():
        own = network(one_hot(SEQUENCES, torch.float64))
        others = network(one_hot(REFERENCES.reshape(-1, LENGTH), torch.float64)).reshape(2, 5)
    deltas = (own - others).numpy()
    assert np.abs(deltas).mean() == pytest.approx(1, rel=1e-5)
    assert np.abs(deltas.mean(1)).min() > 0.49
    np.testing.assert_allclose(comparing.mean_delta(network, SEQUENCES, REFERENCES), deltas.mean(1))


def test_the_networks_need_nothing_but_torch() -> None:
    tree = ast.parse((CHECKOUT / "benchmarks" / "constructs.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"torch"}


def test_the_number_is_the_larger_error_of_the_two_sequences() -> None:
    assert comparing.number(answer(2.2, -1.5), DELTA) == pytest.approx(0.5)
    assert comparing.number(answer(2.2, math.nan), DELTA) == math.inf
    assert comparing.number(Answer(None, "KeyError"), DELTA) is None


GOOD, NEAR, OFF = answer(2.0, -1.0), answer(2.0, -1.0 - 1e-7), answer(2.0, -1.3)
SPOKE = answer(2.0, -1.3, warnings=("UserWarning: off",))
UNSUPPORTED = Answer(None, "RuntimeError", "float32 only")


@pytest.mark.parametrize(
    ("single", "double", "status"),
    [
        (GOOD, GOOD, "exact"),
        (NEAR, GOOD, "exact"),
        (GOOD, UNSUPPORTED, "exact"),
        (GOOD, NEAR, "wrong and silent"),
        (OFF, OFF, "wrong and silent"),
        (answer(2.0, math.nan), GOOD, "wrong and silent"),
        (SPOKE, OFF, "wrong and warned"),
        (OFF, SPOKE, "wrong and warned"),
        (Answer(None, "AssertionError", refused=True), OFF, "refused"),
        (answer(2.0, -1.3, error="AssertionError", refused=True), OFF, "refused"),
        (Answer(None, "KeyError"), Answer(None, "KeyError"), "crashed"),
    ],
)
def test_a_cell_is_judged_by_numbers_warnings_and_errors(single: Answer, double: Answer, status: str) -> None:
    assert comparing.judge(single, double, DELTA).status == status


def test_a_warning_that_the_control_raises_too_is_no_warning() -> None:
    found = comparing.judge(SPOKE, SPOKE, DELTA, usual=frozenset({"UserWarning: off"}))
    assert (found.status, found.warnings) == ("wrong and silent", ())


SOURCE = """
import torch

def purposely(x):
    raise ValueError(
        "this program has no rule for it"
    )

def checked(x):
    assert x is None, "only the first input may vary"

def looked_up(x):
    return {}[x]

def inside_torch(x):
    return torch.cat([torch.ones(2), torch.ones(2, 2)])
"""


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("function", "refused"),
    [("purposely", True), ("checked", True), ("looked_up", False), ("inside_torch", False)],
)
def test_a_refusal_is_raised_by_the_program_itself(tmp_path: Path, function: str, refused: bool) -> None:
    (tmp_path / "peer").mkdir()
    file = tmp_path / "peer" / "rules.py"
    file.write_text(SOURCE)
    module = module_of(file)
    with pytest.raises((ValueError, AssertionError, LookupError, RuntimeError)) as caught:
        getattr(module, function)(1)
    assert is_refusal(caught.value, "peer") is refused
    assert not is_refusal(caught.value, "another"), "raised by something that the program calls"


def stand_in(folder: Path, body: str) -> Path:
    """An interpreter that ignores its arguments and does as told."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("echo '{}'; read order; kill -9 $$", "Death", "status -9"),
        ("echo '{}'; read order; exec sleep 60", "Timeout", "no answer within 0.5 s"),
    ],
)
def test_a_program_that_dies_or_hangs_is_started_again(
    tmp_path: Path, body: str, error: str, message: str
) -> None:
    worker = comparing.Worker("peer", stand_in(tmp_path, body), tmp_path, timeout=0.5)
    try:
        for _ in range(2):
            found = worker.ask("gelu", "float32")
            assert (found.error, found.refused) == (error, False)
            assert message in found.message
    finally:
        worker.close()


def test_a_program_that_does_not_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="shap does not start"):
        comparing.Worker("shap", Path("/bin/false"), tmp_path)


def test_a_cell_shows_status_and_numbers() -> None:
    assert report.cell(Result("exact", 2.34e-7, 0.0)) == "exact 2.3e-07 / 0"
    assert report.cell(Result("exact", 2.34e-7, None)) == "exact 2.3e-07 / none"
    assert report.cell(Result("wrong and silent", math.inf, 0.5)) == "wrong, silent inf / 0.5"
    assert report.cell(Result("refused", 1.7, 1.7, "AssertionError")) == "refused (1.7 / 1.7)"
    assert report.cell(Result("refused", None, None, "UnsupportedModelError")) == "refused"
    assert report.cell(Result("crashed", None, None, "KeyError")) == "crashed: KeyError"


def test_messages_are_shown_without_the_folder_of_the_checkout() -> None:
    message = f"no rule ({CHECKOUT}/benchmarks/constructs.py, line 7) for <class 'a|b'>"
    results = {CONTROL: Result("refused", None, None, "UnsupportedModelError", message)}
    measured = Measured("dlgenome", {"dlgenome": "1.0", "torch": "2.0"}, results)
    facts = {"date": "2030-01-02T03:04", "commit": "abc", "command_line": "python -m benchmarks constructs"}
    text = report.markdown(facts, [measured])
    assert "(benchmarks/constructs.py, line 7) for &lt;class 'a\\|b'>" in text
    assert str(CHECKOUT) not in text


def test_tables_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    report.write_markdown(page, "new")
    assert page.read_text() == f"above\n{report.BEGIN}\n\nnew\n\n{report.END}\nbelow\n"
    report.write_markdown(tmp_path / "fresh.md", "new")
    assert (tmp_path / "fresh.md").read_text() == f"{report.BEGIN}\n\nnew\n\n{report.END}\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no line"):
        report.write_markdown(page, "new")


class InThisProcess:
    """What a worker does, without a process of its own."""

    def __init__(self, program: str, python: Path, folder: Path, timeout: float) -> None:
        self.program, self.folder, self.versions = program, folder, versions(program)

    def ask(self, construct: str, precision: str) -> Answer:
        """Through JSON, as between processes."""
        facts = constructs_worker.answer(self.program, self.folder, construct, precision)
        return comparing.parse_answer(json.loads(json.dumps(facts)))

    def close(self) -> None:
        """Nothing to end."""


def test_the_command_measures_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "Worker", InThisProcess)
    page, figures = tmp_path / "page.md", tmp_path / "all.json"
    flags = ["--no-peer", "--only", "topk", "--markdown", str(page), "--json", str(figures)]
    done = CliRunner().invoke(main, ["constructs", *flags])
    assert done.exit_code == 0, done.output
    results = json.loads(figures.read_text())["programs"][0]["results"]
    assert {name: each["status"] for name, each in results.items()} == {CONTROL: "exact", "topk": "refused"}
    assert 0 < results[CONTROL]["float32"] < 1e-5, "float32 is near float64 but not equal to it"
    assert results[CONTROL]["float64"] < 1e-13
    assert "| `x.topk(3)`" in page.read_text()


def test_a_program_in_its_own_process_answers_with_versions_and_errors(tmp_path: Path) -> None:
    worker = comparing.Worker("dlgenome", Path(sys.executable), tmp_path)
    try:
        assert worker.versions == versions("dlgenome")
        for _ in range(2):
            found = worker.ask(CONTROL, "float32")
            assert (found.attributions, found.error, found.refused) == (None, "FileNotFoundError", False)
    finally:
        worker.close()


def test_a_program_that_refused_is_asked_again_without_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*_: object) -> Any:
        warnings.warn("odd", stacklevel=1)
        raise AssertionError("the sum is off")

    monkeypatch.setattr(constructs_worker, "PROGRAMS", {"peer": checked})
    monkeypatch.setattr(constructs_worker, "UNCHECKED", {"peer": lambda *_: np.ones((2, 4, LENGTH))})
    monkeypatch.setattr(constructs_worker, "is_refusal", lambda error, program: program == "peer")
    with comparing.inputs([CONTROL]) as given:
        found = comparing.parse_answer(constructs_worker.answer("peer", given.folder, CONTROL, "float64"))
    assert found.attributions is not None
    assert (found.error, found.message, found.refused) == ("AssertionError", "the sum is off", True)
    assert found.warnings == ("UserWarning: odd",)


def test_an_unknown_construct_is_refused_by_name() -> None:
    done = CliRunner().invoke(main, ["constructs", "--no-peer", "--only", "magic"])
    assert done.exit_code == 2
    assert "magic is none of control, reused-relu" in done.output
