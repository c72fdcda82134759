"""The benchmarks, on dlgenome alone: that they run, take fair turns and report what they measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks import bound, command, compare, contenders, processes, report, worker
from benchmarks.__main__ import CASE_NAMES, main
from benchmarks.cases import CASES
from benchmarks.compare import Bound, Comparison, Plan, Timing
from benchmarks.contenders import OURS, Contender
from benchmarks.inputs import write_inputs
from benchmarks.processes import BenchmarkError, Turn, Worker
from benchmarks.programs import prepare
from benchmarks.programs.run_dlgenome import filled
from benchmarks.task import Prepared, Scores, Task
from dlgenome.regions.bed import read_regions
from dlgenome.regions.fasta import Genome
from dlgenome.regions.windows import plan_windows


def timing(program: str, *seconds: float) -> Timing:
    versions = {program: "1.0", "torch": "2.0"}
    return Timing(program, "as it comes", 20, versions, seconds, 2**30, None, 1e-7)


BOUND = Bound(10**9, (1e9,))


def test_a_quick_run_measures_and_writes_table_json_and_picture(tmp_path: Path) -> None:
    figures, picture = tmp_path / "new" / "speed.json", tmp_path / "new" / "speed.png"
    threads = str(torch.get_num_threads())
    flags = ["--quick", "--no-peer", "--threads", threads, "--json", str(figures), "--plot", str(picture)]
    done = CliRunner().invoke(main, flags, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| dlgenome" in done.output
    written = json.loads(figures.read_text())
    assert written["facts"]["threads"] == int(threads)
    [measured] = written["comparisons"][0]["timings"]
    assert len(measured["seconds"]) == 2
    assert 0 < measured["difference"] < 1e-5, "float32 is near float64 but not equal to it"
    assert measured["peak_memory_bytes"] > 50 * 2**20
    assert measured["versions"]["torch"] == torch.__version__
    assert measured["times_the_bound_spread"]["minimum"] == min(measured["times_the_bound"]) > 0
    assert "convolution bound: 0.004866 GFLOP a sequence (9 rows)" in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_programs_take_turns_and_the_first_turn_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order: list[str] = []

    shapes: set[tuple[int, ...]] = set()

    class FakeWorker:
        def __init__(self, task: Task, python: Path, environment: dict[str, str]) -> None:
            assert task.batch_size in (None, 4)
            self.program, self.calls = task.program, 0
            shapes.add(task.codes()[1].shape)
            self.versions, self.batch_size = {"torch": "2.0"}, 1

        def explain(self, save: Path | None = None) -> Turn:
            order.append(self.program)
            self.calls += 1
            if save is not None:
                np.save(save, np.full((1, 1, 4, 5), 2.0 if self.program == "dlgenome" else 1.5))
            return Turn(100.0 if self.calls == 1 else float(self.calls), self.calls)

        def convolution_rate(self) -> float:
            order.append("rate")
            return 1e9 * self.calls

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return

    monkeypatch.setattr(contenders, "Worker", FakeWorker)
    monkeypatch.setattr(compare, "_exact_scores", lambda task: np.full((1, 1, 4, 5), 2.0))
    peer = Contender("tangermeme", "as it comes", tmp_path)
    other = Contender("tangermeme", "batch size 4", tmp_path, 4)
    plan = Plan("float32", threads=1, pairs=3, sequences=2, references=5)
    found = compare.compare("tiny", [OURS, peer, other], plan, pause=0)
    assert shapes == {(2, 5, CASES["tiny"].length)}
    assert (found.sequences, found.n_references) == (2, 5)
    assert order == [
        *("dlgenome", "tangermeme", "tangermeme"),
        *("dlgenome", "rate", "tangermeme", "tangermeme") * 3,
    ]
    assert found.bound.rates == (2e9, 3e9, 4e9), "dlgenome's own process, right after its turn"
    assert [each.seconds for each in found.timings] == [(2.0, 3.0, 4.0)] * 3
    assert [each.peak_memory_bytes for each in found.timings] == [4, 4, 4]
    assert [each.difference for each in found.timings] == [0.0, 0.25, 0.25]
    assert [found.ratios(each) for each in found.timings] == [(), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]


def refusing(program: str) -> type:
    """A worker that has figures for every program but one."""

    class FakeWorker:
        def __init__(self, task: Task, *_: object) -> None:
            self.program, self.versions, self.batch_size = task.program, {"torch": "2.0"}, 1
            self.versions[task.program] = "1.0"

        def explain(self, save: Path | None = None) -> Turn:
            if self.program == program:
                raise BenchmarkError(f"{program} refuses: RuntimeError: no rule for this")
            if save is not None:
                np.save(save, np.ones((1, 1, 4, 5)))
            return Turn(1.0, 1)

        def convolution_rate(self) -> float:
            return 1e9

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return

    return FakeWorker


def test_a_program_that_refuses_the_network_is_in_the_table_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contenders, "Worker", refusing("captum"))
    monkeypatch.setattr(compare, "_exact_scores", lambda task: np.ones((1, 1, 4, 5)))
    both = [OURS, Contender("captum", "as it comes", tmp_path)]
    found = compare.compare("tiny", both, Plan("float32", threads=1, pairs=2), pause=0)
    assert [len(each.seconds) for each in found.timings] == [2, 0]
    assert found.ratios(found.timings[1]) == ()
    text = report.comparison_text(found)
    assert "captum refuses: RuntimeError: no rule for this" in text.splitlines()[-3]
    written = json.loads(report.as_json({}, [found]))["comparisons"][0]
    assert written["timings"][1]["difference"] is None
    report.plot(tmp_path / "speed.png", {"date": "", "processor": "", "threads": 1}, [found])
    monkeypatch.setattr(contenders, "Worker", refusing("dlgenome"))
    with pytest.raises(BenchmarkError, match="dlgenome refuses"):
        compare.compare("tiny", both, Plan("float32", threads=1, pairs=2), pause=0)


def test_the_bound_is_the_arithmetic_at_the_rate_of_the_same_pair_of_turns() -> None:
    ours, peer = timing("dlgenome", 8.0, 12.0, 40.0), timing("tangermeme", 20.0, 20.0, 20.0)
    found = Comparison("tiny", "float32", 4, 10, (ours, peer), Bound(2 * 10**12, (2e12, 1e12, 1.5e12)))
    assert found.times_the_bound(ours) == (2.0, 1.5, 7.5)
    text = report.comparison_text(found)
    assert "| 2.00x (1.50-7.50) " in text
    assert "2000 GFLOP a sequence (21 rows)" in text
    assert "1500 (1000-2000) GFLOP/s: 1.33e+03 ms" in text


def test_arithmetic_of_a_network_is_what_its_sizes_say() -> None:
    bpnet = 4 * 64 * 21 * 2114 + 8 * 64 * 64 * 3 * 2114 + 64
    assert bound.operations(CASES["bpnet-64"], 20) == 41 * 2 * bpnet
    attention = 4 * 128 * 128 * 125 + 2 * 125 * 125 * 128
    block = attention + 2 * 128 * 256 * 125
    assert bound.operations(CASES["attention"], 1) == 3 * 2 * (4 * 128 * 15 * 1000 + 2 * block + 128)


def test_convolutions_are_timed_in_the_sizes_of_the_network() -> None:
    assert bound.largest_convolution(CASES["bpnet-64"]) == bound.PLAIN
    assert bound.largest_convolution(CASES["deepsea"]) == bound.Convolution(320, 480, 8, 241)


@pytest.mark.parametrize("way", [bound.on_single_cores, bound.together])
def test_a_rate_counts_every_row_of_every_core(monkeypatch: pytest.MonkeyPatch, way: bound.Way) -> None:
    made: list[tuple[int, ...]] = []

    def convolve(rows: Tensor, weight: Tensor) -> Tensor:
        assert rows.is_contiguous(memory_format=torch.channels_last)
        result = torch.conv2d(rows, weight)
        made.append(tuple(result.shape))
        return result

    def seconds(run: bound.Run, calls: int) -> float:
        made.clear()
        run(calls)
        return 0.004 * calls

    monkeypatch.setattr("torch.nn.functional.conv2d", convolve)
    monkeypatch.setattr(bound, "_seconds", seconds)
    tried = bound.Convolution(8, 16, 3, 50)
    found = bound.rate(tried, way, torch.float32)
    calls, rows = 3, sum(shape[0] for shape in made)
    assert {shape[1:] for shape in made} == {(16, 1, 50)}
    assert rows == calls * torch.get_num_threads() * bound.ROWS
    assert found == pytest.approx(rows * 2 * 8 * 16 * 3 * 50 / (calls * 0.004))


def test_scores_that_are_other_than_rounding_makes_them_are_called_so() -> None:
    ours, peer = timing("dlgenome", 1.0), replace(timing("captum", 1.0), difference=0.13)
    found = Comparison("tiny", "float32", 4, 20, (ours, peer), BOUND)
    *_, first, second, _, _ = report.comparison_text(found).splitlines()
    assert "1.0e-07 " in first
    assert "other scores" not in first
    assert "1.3e-01, other scores" in second


def test_an_error_of_a_program_reaches_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def explain() -> Scores:
        raise RuntimeError("no rule\nfor this")

    task = Task("tangermeme", "tiny", tmp_path, "float32", torch.get_num_threads())
    settings = json.dumps({**asdict(task), "folder": str(tmp_path)})
    said = StringIO()
    monkeypatch.setattr("sys.argv", ["worker", settings])
    monkeypatch.setattr("sys.stdin", StringIO('{"explain": true, "save": null}\n'))
    monkeypatch.setattr(worker, "claim_stdout", lambda: said)
    monkeypatch.setattr(worker, "prepare", lambda _: Prepared(explain, 1, {}))
    worker.main()
    answers, interpreter = tmp_path / "answers", tmp_path / "python"
    answers.write_text(said.getvalue())
    interpreter.write_text(f"#!/bin/sh\ncat {answers}\ncat > {tmp_path}/orders\n")
    interpreter.chmod(0o755)
    with (
        Worker(task, interpreter) as process,
        pytest.raises(BenchmarkError, match="refuses: RuntimeError: no rule for"),
    ):
        process.explain()


class FakeExplainer:
    """What captum does with the function it is given, its multipliers made up."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attribute(
        self, sequence: Tensor, baselines: Tensor, target: int, custom_attribution_func: Callable[..., Any]
    ) -> Tensor:
        assert (len(sequence), target) == (1, 0)
        made: tuple[Tensor] = custom_attribution_func(
            (multipliers(baselines),), (sequence.expand_as(baselines),), (baselines,)
        )
        return made[0].mean(dim=0, keepdim=True)


class ForOneBaseline(FakeExplainer):
    """The explainer that captum has for a single one."""


def multipliers(baselines: Tensor) -> Tensor:
    """Numbers that tell bases, positions and baselines apart."""
    return (baselines * torch.arange(1.0, baselines.shape[-1] + 1)).cumsum(dim=1) + torch.arange(4.0)[:, None]


@pytest.mark.parametrize(("n_references", "explainer"), [(1, ForOneBaseline), (3, FakeExplainer)])
def test_captum_explains_each_sequence_against_its_own_references(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_references: int, explainer: type[FakeExplainer]
) -> None:
    used: list[type] = []
    monkeypatch.setattr(FakeExplainer, "__init__", lambda self, network: used.append(type(self)))
    fake = ModuleType("captum.attr")
    vars(fake).update(DeepLift=ForOneBaseline, DeepLiftShap=FakeExplainer)
    monkeypatch.setitem(sys.modules, "captum", ModuleType("captum"))
    monkeypatch.setitem(sys.modules, "captum.attr", fake)
    # set, so that what is imported on top of the fake is taken out again at the end
    monkeypatch.setitem(sys.modules, "benchmarks.programs.run_captum", fake)
    del sys.modules["benchmarks.programs.run_captum"]
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")
    write_inputs(CASES["tiny"], tmp_path, sequences=2, n_references=n_references)
    task = Task("captum", "tiny", tmp_path, "float32", 1)
    prepared = prepare(task)
    [found] = prepared.explain()
    assert (prepared.batch_size, used) == (n_references, [explainer])
    sequences, references = task.one_hot()
    assert found.shape == sequences.shape
    for sequence, base, position in [(0, 0, 0), (1, 3, 7), (1, 2, 255)]:
        pairs = zip(references[sequence], multipliers(references[sequence]), strict=True)
        expected = [
            sum(float(m[b, position]) * (float(b == base) - float(r[b, position])) for b in range(4))
            for r, m in pairs
        ]
        assert found[sequence, base, position] == pytest.approx(np.mean(expected))


def test_captum_has_no_batch_size_to_choose() -> None:
    done = CliRunner().invoke(main, ["--quick", "--peer", "captum", "--peer-batch-size", "8"])
    assert done.exit_code == 2
    assert "no --peer-batch-size" in done.output


def test_a_ratio_is_taken_within_each_pair_of_turns() -> None:
    ours, peer = timing("dlgenome", 1.0, 10.0, 2.0), timing("tangermeme", 7.0, 80.0, 18.0)
    found = Comparison("bpnet-64", "float32", 4, 20, (ours, peer), BOUND)
    assert found.ratios(peer) == (7.0, 8.0, 9.0)
    assert found.ratios(ours) == ()
    text = report.comparison_text(found)
    assert "8.00x (7.00-9.00)" in text
    assert "4.5e+03 (1.75e+03-2e+04)" in text, "milliseconds a sequence: 18 s, 7 s and 80 s for 4 sequences"


@pytest.mark.parametrize(("n_references", "sequences"), [(20, 8), (1, 160), (10, 16), (100, 2), (1000, 1)])
def test_a_turn_has_about_as_many_pairs_whatever_the_references(n_references: int, sequences: int) -> None:
    assert CASES["bpnet-64"].sequences_against(n_references) == sequences


@pytest.mark.parametrize(
    ("automatic", "sequences", "n_references", "threads", "expected"),
    [
        (20, 8, 20, 2, 20),  # eight steps of a sequence
        (31, 160, 1, 2, 27),  # six steps, three a thread, not five of 31 and one of 5
        (31, 8, 1, 2, 4),  # not a step for one thread and none for the other
        (2048, 3, 4, 1, 12),  # no more than there is
        (2048, 1, 4, 2, 4),  # a sequence is not split further
        (25, 2, 100, 2, 25),  # four steps a sequence
    ],
)
def test_steps_of_a_turn_are_full_and_as_many_for_each_thread(
    automatic: int, sequences: int, n_references: int, threads: int, expected: int
) -> None:
    assert filled(automatic, sequences, n_references, threads) == expected


def test_every_case_is_measured_with_every_number_of_references(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int | None]] = []

    def measured(case: str, _: object, plan: Plan) -> Comparison:
        asked.append((case, plan.references))
        return Comparison(case, "float32", 4, plan.references or 20, (timing("dlgenome", 1.0),), BOUND)

    monkeypatch.setattr(compare, "compare", measured)
    flags = ["--no-peer", "--case", "basset", "--case", "deepsea"]
    CliRunner().invoke(main, flags, catch_exceptions=False)
    assert asked == [("basset", None), ("deepsea", None)]
    asked.clear()
    done = CliRunner().invoke(
        main, [*flags, "--references", "1", "--references", "100"], catch_exceptions=False
    )
    assert asked == [("basset", 1), ("basset", 100), ("deepsea", 1), ("deepsea", 100)]
    assert "DeepSEA-like, 1000 bp, max-pool, dense; 100 references" in done.output


def test_a_program_that_does_not_start_is_named(tmp_path: Path) -> None:
    task = Task("tangermeme", "tiny", tmp_path, "float32", 1)
    with pytest.raises(BenchmarkError, match="tangermeme stopped with status 1"):
        Worker(task, Path("/bin/false"))


def test_a_program_that_dies_between_turns_is_named(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text('#!/bin/sh\necho \'{"versions": {}, "batch_size": 1}\'\nexit 3\n')
    interpreter.chmod(0o755)
    with Worker(Task("captum", "tiny", tmp_path, "float32", 1), interpreter) as process:
        process._process.wait()
        with pytest.raises(BenchmarkError, match="captum stopped with status 3"):
            process.explain()


def test_every_program_starts_without_a_tuned_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD", "OMP_PROC_BIND"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    environment = processes.clean_environment(3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert not {"MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD", "OMP_PROC_BIND"} & environment.keys()


def test_torch_is_installed_before_the_program_that_would_bring_its_own() -> None:
    wanted = processes.requirements(processes.REQUIREMENTS.read_text())
    names = [requirement.partition("==")[0] for requirement in wanted]
    assert names == ["torch", "tangermeme", "captum", "shap"]
    assert all("==" in requirement for requirement in wanted)


def test_the_command_offers_every_case() -> None:
    assert set(CASE_NAMES) == set(CASES)


@pytest.mark.parametrize("name", ["bpnet-64", "basset", "deepsea", "attention", "tiny"])
def test_a_network_takes_sequences_of_its_length(name: str) -> None:
    case = CASES[name]
    with torch.no_grad():
        assert case.build().eval()(torch.zeros(2, 4, case.length)).shape[0] == 2


def test_the_simulated_run_has_the_regions_that_were_asked_for(tmp_path: Path) -> None:
    inputs = command.write_inputs(tmp_path, 7, n_filters=4, n_layers=1)
    assert len(inputs.regions.read_text().splitlines()) == 7


def test_many_regions_are_as_many_as_were_asked_for_and_lie_on_the_genome(tmp_path: Path) -> None:
    inputs = command.write_many_regions(tmp_path, 50, length=64)
    with Genome(inputs.genome) as genome:
        plan = plan_windows(read_regions(inputs.regions), genome, length=64)
    assert (len(plan), len(plan.skipped)) == (50, 0)


@pytest.mark.parametrize(("peak", "status"), [(200_000, 0), (300_000, 1)])
def test_growing_memory_is_a_failure_where_a_limit_is_given(
    monkeypatch: pytest.MonkeyPatch, peak: int, status: int
) -> None:
    def measured(sizes: tuple[int, ...], *_: Any) -> list[command.Run]:
        assert sizes == (10, 1010)
        parts = {"scoring": 3.0, "writing": 1.0}
        files = {".h5": 2**21}
        return [
            command.Run(10, 4.0, parts, 100_000, 90, files),
            command.Run(1010, 8.0, parts, peak, 90, files),
        ]

    monkeypatch.setattr(command, "memory", measured)
    flags = ["--regions", "10", "--regions", "1010", "--at-most-bytes", "150"]
    done = CliRunner().invoke(main, ["memory", *flags])
    assert done.exit_code == status, done.output
    [row] = [line for line in done.output.splitlines() if line.startswith("| 1,010")]
    assert [cell.strip() for cell in row.split("|")[4:9]] == [
        "1.0", "12%", f"{peak / 2**20:.1f} MiB", f"{(peak - 100_000) / 1000:.0f}", "2.0 MiB"
    ]  # fmt: skip


def test_one_size_tells_nothing_of_a_region() -> None:
    done = CliRunner().invoke(main, ["memory", "--regions", "10"])
    assert done.exit_code == 2
    assert "twice or more" in done.output


def test_the_time_of_a_run_is_split_into_parts_that_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"checks": 1.0, "scoring": 20.0, "writing": 2.0, "scoring_model": 17.0, "scoring_waiting": 1.5}
    parts |= {"scoring_spooling": 0.5, "scoring_reading": 3.0, "scoring_references": 1.25}
    run = command.Run(1000, 25.0, parts, 2**30, 2**29)
    monkeypatch.setattr(command, "end_to_end", lambda *_: run)
    done = CliRunner().invoke(main, ["end-to-end", "--regions", "1000"], catch_exceptions=False)
    assert "20 references: 1000 regions, 40.00 regions/s, peak memory 1024 MiB" in done.output
    lines = [line for line in done.output.splitlines() if line.startswith("|") and "%" in line]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]
    in_turn = [float(seconds) for name, seconds, _ in rows[:7]]
    assert in_turn == [2.0, 1.0, 17.0, 1.5, 0.5, 1.0, 2.0]
    assert rows[7] == ["in all", "25.00", "100.0%"]
    assert rows[9] == ["drawing references, in a second thread", "1.25", "5.0%"]
    assert "drawing references: 5.00% of the run, 6.25% of scoring" in done.output
