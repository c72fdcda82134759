"""The ways in which programs are timed: batch sizes, allocators, devices, targets, trained weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks import bound, compare, contenders, report, worker
from benchmarks.__main__ import main
from benchmarks.cases import CASES, BPNetBoth, BPNetCounts, CountsOf, ProfileOf
from benchmarks.compare import Bound, Comparison, Timing
from benchmarks.contenders import Contender, settled, setups
from benchmarks.inputs import trained_weights, write_inputs
from benchmarks.processes import KEEPS_FREED_MEMORY, BenchmarkError, Turn
from benchmarks.programs import prepare
from benchmarks.task import Prepared, Task
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.checkpoint import load_model

KEPT = tuple(KEEPS_FREED_MEMORY.items())


def refused(*flags: str) -> str:
    """What the command says as it ends with status 2."""
    done = CliRunner().invoke(main, ["--no-peer", *flags])
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_every_setup_that_was_asked_for_is_a_contender() -> None:
    found = setups("tangermeme", Path("python"), "best", "both")
    assert [(one.batch_size, one.environment) for one in found] == [
        (None, ()), ("best", ()), (None, KEPT), ("best", KEPT)
    ]  # fmt: skip
    [one] = setups("tangermeme", Path("python"), 64, "keeps-memory")
    assert (one.batch_size, one.environment, one.setup) == (64, KEPT, "batch size 64, freed memory kept")
    [one] = setups("tangermeme", Path("python"), None, "as-it-comes")
    assert (one.batch_size, one.environment, one.setup) == (None, (), "as it comes")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes as they are tried: the nearer 40 the faster; beyond 100, memory is short."""
    sizes: list[int] = []

    class FakeWorker:
        def __init__(self, task: Task, python: Path, environment: dict[str, str]) -> None:
            assert environment == dict(KEPT)
            assert task.batch_size is not None
            self.size = task.batch_size

        def explain(self) -> Turn:
            sizes.append(self.size)
            if self.size > 100:
                raise BenchmarkError("tangermeme refuses: RuntimeError: not enough memory")
            return Turn(abs(self.size - 40), 1)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return

    monkeypatch.setattr(contenders, "Worker", FakeWorker)
    return sizes


@pytest.mark.parametrize(
    ("sequences", "expected", "fastest", "words"),
    [
        (2, [8], 8, "best batch size of 8"),  # eight pairs in all
        (10, [8, 16, 32, 40], 40, "best batch size of 8, 16, 32 and 40"),
        (200, [8, 16, 32, 64, 128, 256], 32, "best batch size of 8, 16, 32 and 64"),
    ],
)
def test_the_best_batch_size_is_found_by_one_try_of_each(
    tried: list[int], tmp_path: Path, sequences: int, expected: list[int], fastest: int, words: str
) -> None:
    write_inputs(CASES["tiny"], tmp_path, sequences, n_references=4)
    task = Task("dlgenome", "tiny", tmp_path, "float32", 1)
    [_, asked] = setups("tangermeme", Path("python"), "best", "keeps-memory")
    found = settled(task, asked)
    assert tried == expected
    assert (found.batch_size, found.setup) == (fastest, f"{words}, freed memory kept")
    assert settled(task, found) is found


def test_a_program_that_fails_at_every_batch_size_says_why(
    tried: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(CASES["tiny"], tmp_path, 200, n_references=4)
    monkeypatch.setattr(contenders, "BATCH_SIZES", (128, 256))
    asked = Contender("tangermeme", "batch size best", Path("python"), "best", KEPT)
    with pytest.raises(BenchmarkError, match="not enough memory"):
        settled(Task("dlgenome", "tiny", tmp_path, "float32", 1), asked)


@pytest.mark.parametrize("size", ["0", "fast", "2.5"])
def test_a_batch_size_is_a_number_or_the_best(size: str) -> None:
    assert "--peer-batch-size" in refused("--quick", "--peer-batch-size", size)


def test_two_targets_are_explained_in_one_run(tmp_path: Path) -> None:
    case = CASES["tiny-both"]
    write_inputs(case, tmp_path, sequences=2, n_references=3)
    task = Task("dlgenome", "tiny-both", tmp_path, "float64", torch.get_num_threads())
    scores = prepare(task).explain()
    assert scores.shape == (2, 2, 4, 256)
    network = task.network().double()
    sequences, references = task.one_hot()
    with torch.no_grad():
        logits, counts = network(sequences)
        other_logits, other_counts = (one.unflatten(0, (2, 3)) for one in network(references.flatten(0, 1)))
    z, r = (one.flatten(1) for one in (logits, other_logits.mean(1)))
    weights = (z - z.mean(1, keepdim=True)).softmax(1)
    centred = (z - z.mean(1, keepdim=True)) - (r - r.mean(1, keepdim=True))
    projected = torch.from_numpy(scores * sequences.numpy()).sum((2, 3))
    torch.testing.assert_close(projected[0], (counts - other_counts.mean(1))[:, 0])
    torch.testing.assert_close(projected[1], (weights * centred).sum(1))


def test_parts_for_programs_of_one_output_are_the_targets() -> None:
    network = CASES["tiny-both"].build()
    assert isinstance(network, BPNetBoth)
    counts, profile = CASES["tiny-both"].parts(network)
    assert isinstance(counts, CountsOf)
    assert isinstance(profile, ProfileOf)
    sequences = torch.eye(4)[torch.arange(256) % 4].T[None].requires_grad_()
    logits, expected = network(sequences)
    torch.testing.assert_close(counts(sequences), expected)
    centred = logits.flatten(1) - logits.mean()
    weights = centred.softmax(1).detach()
    torch.testing.assert_close(profile(sequences), (weights * centred).sum()[None, None])
    [fixed] = torch.autograd.grad((weights * centred).sum(), sequences)
    [found] = torch.autograd.grad(profile(sequences).sum(), sequences)
    torch.testing.assert_close(found, fixed)


def test_heads_go_forward_together_and_back_one_by_one() -> None:
    trunk = 4 * 8 * 21 * 256 + 2 * 8 * 8 * 3 * 256
    profile, counts = 8 * 75 * (216 - 74), 8
    expected = 4 * (trunk + profile + counts) + 3 * (2 * trunk + profile + counts)
    assert bound.operations(CASES["tiny-both"], 3) == 2 * expected


def test_the_difference_is_that_of_the_target_that_is_worst(tmp_path: Path) -> None:
    exact = np.stack([np.full((1, 4, 5), 100.0), np.full((1, 4, 5), 2.0)])
    np.save(tmp_path / "scores.npy", exact + np.array([1.0, 0.5])[:, None, None, None])
    assert compare._difference(tmp_path / "scores.npy", exact) == 0.25


def test_a_trained_case_asks_for_its_checkpoint(tmp_path: Path) -> None:
    text = refused("--case", "bpnet-ctcf")
    assert "--case bpnet-ctcf runs a trained BPNet: name its file with --checkpoint." in text
    other = tmp_path / "weights.pt"
    other.touch()
    assert "not among the cases" in refused("--case", "basset", "--checkpoint", str(other))


def save_bpnet(path: Path, **sizes: Any) -> BPNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = BPNet(**sizes)
    torch.save(network.state_dict(), path)
    return network.eval()


def test_trained_weights_predict_what_the_checkpoint_predicts(tmp_path: Path) -> None:
    trained = save_bpnet(tmp_path / "bpnet.pt", n_filters=8, n_layers=2)
    network = BPNetCounts(8, 2, trained.trimming - 37)
    network.load_state_dict(trained_weights(network, tmp_path / "bpnet.pt"))
    assert_same_counts(network, trained, 256)


def assert_same_counts(network: BPNetCounts, trained: torch.nn.Module, length: int) -> None:
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (3, length)))
    one_hot = torch.eye(4)[codes].transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(one_hot), trained(one_hot)[1])


@pytest.mark.parametrize("change", [{"n_filters": 9}, {"n_layers": 3}, {"n_control_tracks": 2}])
def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    save_bpnet(tmp_path / "bpnet.pt", **({"n_filters": 8, "n_layers": 2} | change))
    with pytest.raises(BenchmarkError, match="not a BPNet of 8 filters and 2 dilated layers without control"):
        trained_weights(BPNetCounts(8, 2, 16), tmp_path / "bpnet.pt")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("nothing")
    with pytest.raises(BenchmarkError, match=r"model\.pt"):
        trained_weights(BPNetCounts(8, 2, 16), tmp_path / "model.pt")


@pytest.mark.real
def test_the_case_of_ctcf_predicts_the_counts_of_its_checkpoint() -> None:
    shared = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[2] / "shared"))
    checkpoint = shared / "data" / "models" / "bpnetlite_CTCF_K562_ENCSR000AKO.torch"
    if not checkpoint.is_file():
        pytest.skip(f"real data not found: {checkpoint} (set DLGENOME_SHARED)")
    network = CASES["bpnet-ctcf"].build()
    assert isinstance(network, BPNetCounts)
    network.load_state_dict(trained_weights(network, checkpoint))
    assert_same_counts(network, load_model(checkpoint).module, 2114)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    assert f"--device {device}: torch" in refused("--quick", "--device", device)


def test_only_a_gpu_rounds_to_tf32() -> None:
    assert "--precision tf32 is a way of CUDA devices" in refused("--quick", "--precision", "tf32")
    assert "--device gpu is not a device" in refused("--quick", "--device", "gpu")


def test_a_gpu_is_waited_for_on_both_sides_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    device = torch.device("cuda", 1)

    def explain() -> Any:
        order.append("explain")
        return np.zeros((1, 1, 4, 5))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda where: order.append(str(where)))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda where: 2**20)
    answer = worker.explained(Prepared(explain, 1, {}), None, device)
    assert order == ["cuda:1", "explain", "cuda:1"]
    assert Turn(**answer).peak_device_bytes == 2**20
    order.clear()
    answer = worker.explained(Prepared(explain, 1, {}), None, torch.device("cpu"))
    assert order == ["explain"]
    assert Turn(**answer).peak_device_bytes is None


def test_a_gpu_convolves_many_rows_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bound.Way, torch.device]] = []

    def rate(_: bound.Convolution, way: bound.Way, dtype: torch.dtype, device: torch.device) -> float:
        asked.append((way, device))
        return 1.0

    monkeypatch.setattr(bound, "rate", rate)
    bound.best_rate(CASES["tiny"], torch.float32, torch.device("cuda"))
    assert {way for way, _ in asked} == {bound.together}
    assert bound._rows_a_call(bound.PLAIN, torch.device("cuda")) == bound.GPU_ROWS


@pytest.mark.parametrize(
    ("device", "precision", "theirs"),
    [
        ("cpu", "float32", "float32"),
        ("cpu", "bfloat16", "float32"),
        ("cuda", "float32", "float32"),
        ("cuda", "tf32", "tf32 in convolutions"),
        ("cuda", "bfloat16", "tf32 in convolutions"),
    ],
)
def test_the_table_says_in_what_each_program_computed(device: str, precision: str, theirs: str) -> None:
    memory = 3 * 2**30 if device == "cuda" else None
    ours, peer = (
        Timing(name, "as it comes", 20, {name: "1.0", "torch": "2.0"}, (1.0,), 2**30, memory, 1e-7)
        for name in ("dlgenome", "tangermeme")
    )
    found = Comparison("tiny", precision, 4, 20, (ours, peer), Bound(10**9, (1e9,)), device)
    rows = [line for line in report.comparison_text(found).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[1] for row in cells[-2:]] == [precision, theirs]
    assert cells[-1][8] == ("1024 MiB, GPU 3072 MiB" if device == "cuda" else "1024 MiB")


@pytest.mark.parametrize(("precision", "rounds"), [("float32", False), ("tf32", True), ("bfloat16", True)])
def test_another_program_rounds_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, rounds: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Task("tangermeme", "tiny", tmp_path, precision, 1, device="cuda").as_torch_comes()
    assert torch.backends.cudnn.allow_tf32 is rounds
