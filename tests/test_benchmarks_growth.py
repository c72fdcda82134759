"""How the benchmarks take and fit the growth of costs, on made-up costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks import command, growth, growth_report
from benchmarks.__main__ import main
from benchmarks.cases import BPNetCounts, named
from benchmarks.growth import Point, Sweep
from benchmarks.growth_command import SWEEPS
from benchmarks.processes import Turn
from benchmarks.task import Task

SECONDS = (5.0, 1.0, 3.0, 2.0)


class FakeWorker:
    """Needs a hundredth of a second for each sequence, a thousandth of it again for each reference."""

    def __init__(self, task: Task, _: Path) -> None:
        self.shape = task.codes()[1].shape
        self.network = task.network()
        self.times = iter(SECONDS)

    def explain(self) -> Turn:
        return Turn(next(self.times) * self.shape[0], self.shape[1] * 1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


def run(inputs: command.Inputs, regions: int, flags: tuple[str, ...], threads: int) -> command.Run:
    assert flags == ("--n-references", str(growth.SMALL_REFERENCES))
    assert threads == 3
    assert len(inputs.regions.read_text().splitlines()) == growth.QUICK["regions"][-1]
    return command.Run(regions, 4.0 + regions, {}, 1000 * regions, 0)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    points = tuple(Point(size, 0.1 * size**power, 7) for size in (1, 3, 10, 30))
    assert Sweep("filters", points).seconds.overall == pytest.approx(power, abs=1e-9)
    assert Sweep("filters", points).memory.overall == pytest.approx(0, abs=1e-9)


def test_the_larger_half_is_fitted_by_itself() -> None:
    costs = {1: 1.0, 2: 1.0, 4: 1.0, 8: 2.0, 16: 4.0}
    points = tuple(Point(size, cost, 1) for size, cost in costs.items())
    found = Sweep("filters", points).seconds
    assert found.upper_half == pytest.approx(1.0)
    assert found.overall == pytest.approx(0.5)
    assert Sweep("filters", points[:2]).seconds.upper_half == pytest.approx(0.0)


def test_every_sweep_is_measured_tabled_written_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(growth, "Worker", FakeWorker)
    monkeypatch.setattr(command, "run", run)
    figures, picture = tmp_path / "new" / "growth.json", tmp_path / "new" / "growth.png"
    flags = ["growth", "--quick", "--threads", "3", "--json", str(figures), "--plot", str(picture)]
    done = CliRunner().invoke(main, flags, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written: list[dict[str, Any]] = json.loads(figures.read_text())["sweeps"]
    assert tuple(sweep["name"] for sweep in written) == SWEEPS
    by_name = {sweep["name"]: sweep for sweep in written}
    assert [point["seconds"] for point in by_name["regions"]["points"]] == [9.0, 14.0]
    assert [point["size"] for point in by_name["window"]["points"]] == [200, 300]
    assert [point["seconds"] for point in by_name["filters"]["points"]] == [1.0, 1.0]
    assert by_name["references"]["memory_exponent"]["overall"] == pytest.approx(1.0)
    assert "| regions " in done.output
    assert "| exponents of " in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_sweep_alone_leaves_the_other_panels_empty(tmp_path: Path) -> None:
    sweep = Sweep("window", (Point(200, 0.1, 10**6), Point(400, 0.2, 10**6)))
    growth_report.plot(tmp_path / "one.png", {"date": "", "processor": "", "threads": 1}, [sweep])
    assert "| 400 " in growth_report.text([sweep])
    assert growth_report.text([sweep]).count("a sequence") == 2


@pytest.mark.parametrize(
    ("filters", "window", "references", "threads", "expected"),
    [
        (64, 2114, 20, 2, 8),
        (512, 2114, 20, 2, 2),
        (512, 2114, 20, 4, 4),
        (64, 200, 20, 2, 86),
        (4, 200, 1, 2, 200),
    ],
)
def test_turns_take_about_as_long_whatever_grows(
    filters: int, window: int, references: int, threads: int, expected: int
) -> None:
    assert growth.sequences_a_turn(filters, window, references, threads) == expected


def test_a_network_of_any_size_is_a_case() -> None:
    case = named("bpnet/16/400")
    network = case.build()
    assert isinstance(network, BPNetCounts)
    assert (case.length, network.margin, network.first.out_channels) == (400, 100, 16)
    reference = named("bpnet-64").build()
    assert isinstance(reference, BPNetCounts)
    sized = named("bpnet/64/2114").build()
    assert isinstance(sized, BPNetCounts)
    assert (sized.margin, len(sized.convolutions)) == (reference.margin, len(reference.convolutions))
