"""How far each precision is from float64: the figures, the table of them, and what tf32 is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks.__main__ import main
from benchmarks.accuracy import Accuracy, distances, ways_on
from benchmarks.accuracy_report import text
from benchmarks.imitation import as_tf32
from benchmarks.processes import BenchmarkError
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.safe_files import save_safetensors
from dlgenome_sim.files import write_fasta, write_narrow_peak
from dlgenome_sim.genome import simulate_genome

LENGTH = 300
NAMES = [way.name for way in ways_on("cpu")]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def accuracy(*words: object) -> Result:
    return CliRunner().invoke(main, ["accuracy", "--threads", "1", *map(str, words)])


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Flags of a checkpoint that says what it is, a genome and regions."""
    simulated = simulate_genome({"chr1": 20_000})
    paths = tmp_path / "small.safetensors", tmp_path / "genome.fa", tmp_path / "peaks.narrowPeak"
    arguments: dict[str, Any] = {"n_filters": 32, "n_layers": 2, "n_outputs": 1}
    torch.manual_seed(3)
    save_safetensors(
        BPNet(**arguments), paths[0], architecture="bpnet", arguments=arguments, input_length=LENGTH
    )
    write_fasta(paths[1], simulated.contigs)
    write_narrow_peak(paths[2], simulated.peaks)
    return [word for flag, path in zip(("-m", "-g", "-r"), paths, strict=True) for word in (flag, path)]


def test_checkpoints_and_cases_get_a_row_for_every_target_and_precision(
    files: list[object], tmp_path: Path
) -> None:
    figures = tmp_path / "new" / "accuracy.json"
    done = accuracy(
        *files, "--target", "counts", "--target", "profile-bpnet", "--case", "tiny", "--seed", 1, "--seed", 2,
        "--limit", 3, "--references", 2, "--json", figures,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    written = json.loads(figures.read_text())
    rows: list[dict[str, Any]] = written["accuracies"]
    assert [(row["model"], row["target"], row["precision"]) for row in rows] == [
        *(("small.safetensors", target, name) for target in ("counts", "profile-bpnet") for name in NAMES),
        *(("tiny, seeds 1, 2", "index:0", name) for name in NAMES),
    ]
    assert [len(row["differences"]) for row in rows] == [3] * 8 + [6] * 4
    for row in rows:
        exact = row["precision"] == "float32" or (row["model"].startswith("tiny") and not row["imitated"])
        assert 0 < row["median_difference"] <= row["largest_difference"] < (1e-5 if exact else 0.02)
        assert row["largest_difference"] > (0 if exact else 1e-4)
        assert 0.999 < row["lowest_correlation"] <= 1
    assert done.output.count("| small.safetensors | ") == 8
    for fact in ("date", "processor", "commit", "command_line", "threads"):
        assert str(written["facts"][fact]) in done.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Name a checkpoint with --model, or a network with --case."),
        (["-m", __file__], "--model needs regions to explain: give --genome and --regions, too."),
        (["-m", __file__, "-g", __file__], "--model needs regions to explain: give --genome and"),
        (["-g", __file__, "--case", "tiny"], "--genome and --regions are for --model, which is missing."),
        (["--case", "nobody"], "nobody is none of bpnet-64, "),
        (["--case", "bpnet-ctcf"], "bpnet-ctcf is none of bpnet-64, "),
        (["--case", "tiny", "--device", "abacus"], "--device abacus is not a device"),
        (["-m", "nowhere.pt"], "'nowhere.pt' does not exist."),
    ],
)
def test_wrong_input_is_answered_with_one_sentence(words: list[str], sentence: str) -> None:
    done = accuracy(*words)
    assert done.exit_code != 0
    assert sentence in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert done.output.count("Error:") == 1


def test_what_the_command_refuses_is_said_in_its_words(files: list[object]) -> None:
    done = accuracy(*files, "--target", "index:7")
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "index:7" in done.output


def test_a_cuda_device_computes_itself_what_processors_imitate() -> None:
    assert [(way.precision, way.device, way.imitates) for way in ways_on("cuda:1")] == [
        (precision, "cuda:1", None) for precision in ("float32", "tf32", "bfloat16")
    ]
    assert [way.imitates for way in ways_on("cpu")] == [None, None, "all", "convolutions"]


def test_differences_are_shares_of_the_largest_contribution_of_the_region() -> None:
    exact = np.zeros((3, 4, 2))
    exact[0], exact[1, 0] = 1.0, (-4.0, 2.0)
    exact[0, 0, 0] = 2.0
    found = exact.copy()
    found[0, 0, 0], found[1, 3, 1] = 1.5, 1.0
    differences, (first, second) = distances(exact, found)
    assert differences == (0.25, 0.25), "a region without contributions is left out"
    assert first == pytest.approx(1.0)
    assert second == pytest.approx(np.corrcoef(exact[1].ravel(), found[1].ravel())[0, 1])
    with pytest.raises(BenchmarkError, match="No region has any contributions"):
        distances(exact[2:], found[2:])


def test_the_table_says_what_is_imitated_and_only_that() -> None:
    row = Accuracy("net", "counts", "tf32", True, (1e-6, 0.002, 0.0044), (0.99995, 0.999991, 1.0))
    assert "| net   | counts | tf32      | 3       | 0.2 %" in text([row])
    assert "| 0.44 % " in text([row])
    assert "| 0.999950 " in text([row])
    assert "imitated: no CUDA device computed this" in text([row])
    real = Accuracy("net", "counts", "tf32", False, (1e-6,), (1.0,))
    assert "imitated" not in text([real])
    assert text([real]).count("| 1.0e-06 ") == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1.0),
        (1 + 2**-10, 1 + 2**-10),
        (1 + 2**-11, 1 + 2**-10),  # of two as near the one farther from zero
        (-1 - 2**-11, -1 - 2**-10),
        (1 + 2**-11 - 2**-23, 1.0),
        (1 + 3 * 2**-11, 1 + 2**-9),
        (2 - 2**-23, 2.0),
        (-3.14159265, -3.140625),
        (0.0, 0.0),
        (-0.0, -0.0),
        (2.0**-126, 2.0**-126),
        (float("inf"), float("inf")),
        (float("-inf"), float("-inf")),
        (float("nan"), float("nan")),
    ],
)
def test_tf32_has_ten_binary_digits_after_the_first(value: float, expected: float) -> None:
    found = as_tf32(torch.tensor([value])).numpy()
    np.testing.assert_array_equal(found, np.array([expected], np.float32))
    assert np.signbit(found[0]) == np.signbit(expected)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, -1, -0x7FFFFF])
def test_what_is_no_number_stays_none(bits: int) -> None:
    """Rounded as if it were one, it could become an infinity, or zero."""
    assert as_tf32(torch.tensor([bits], dtype=torch.int32).view(torch.float32)).isnan().all()
