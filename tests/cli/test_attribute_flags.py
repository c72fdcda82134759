"""Flags that change what a run does or says: gates, dry runs, presets, formats, messages and the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

Attribute = Callable[..., Result]
Datasets = dict[str, NDArray[Any]]
Read = Callable[[Path], Datasets]
LENGTH = 100


def names_beside(prefix: Path) -> set[str]:
    return {path.name for path in prefix.parent.iterdir()}


def facts(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{prefix}.run.json").read_text())
    return found


def test_the_completeness_gate_stops_with_4_and_keeps_the_files(attribute: Attribute, tmp_path: Path) -> None:
    result = attribute("-o", tmp_path / "run", "--max-delta", "1e-12")
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "above --max-delta 1e-12; the files are kept" in result.stderr
    assert len(names_beside(tmp_path / "run")) == 5
    passed = attribute("-o", tmp_path / "run", "--max-delta", "0.01", "--overwrite")
    assert passed.exit_code == 0, passed.stderr


def test_a_dry_run_checks_and_estimates_and_writes_nothing(attribute: Attribute, tmp_path: Path) -> None:
    result = attribute("-o", tmp_path / "run", "--dry-run", quiet=False)
    assert result.exit_code == 0
    assert "12 regions to score, 0 skipped" in result.stderr
    for words in (
        "seconds at",
        "pairs a step on cpu",
        "GiB of memory",
        "MiB of disk",
        "No output was written.",
    ):
        assert words in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_list_outputs_names_exactly_what_a_run_writes(attribute: Attribute, finished: Path) -> None:
    result = attribute("-o", finished, "--formats", "h5,bigwig,npz", "--list-outputs")
    assert result.exit_code == 0
    assert {Path(line).name for line in result.stdout.splitlines()} == names_beside(finished)


def test_existing_output_stays_unless_overwritten(attribute: Attribute, tmp_path: Path) -> None:
    first = attribute("-o", tmp_path / "run", "--limit", "1")
    assert first.exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    again = attribute("-o", tmp_path / "run", "--limit", "2")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert "run.counts_scores.h5" in again.stderr
    failed = attribute("-o", tmp_path / "run", "--overwrite", regions=tmp_path / "none.bed")
    assert failed.exit_code == 3
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    replaced = attribute("-o", tmp_path / "run", "--limit", "2", "--overwrite")
    assert replaced.exit_code == 0, replaced.stderr
    assert (tmp_path / "run.interpreted_regions.bed").read_text().count("\n") == 2


def test_a_preset_fills_what_no_flag_says(attribute: Attribute, tmp_path: Path) -> None:
    result = attribute("-o", tmp_path / "run", "--config", "quick")
    assert result.exit_code == 0, result.stderr
    settings = facts(tmp_path / "run")["settings"]
    assert (settings["order"], settings["limit"], settings["n_references"]) == ("shuffle:0", 100, 3)


def test_a_configuration_file_may_hold_every_input(
    attribute: Attribute, inputs: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {inputs / 'bpnet.safetensors'}\ngenome: {inputs / 'genome.fa'}\n"
        f"regions: {inputs / 'peaks.narrowPeak'}\noutput: {tmp_path / 'run'}\nlimit: 1\nformats: [h5]\n"
    )
    result = attribute("--config", config, model=None, genome=None, regions=None)
    assert result.exit_code == 0, result.stderr
    assert "run.counts_scores.h5" in names_beside(tmp_path / "run")
    assert "run.counts_scores.bw" not in names_beside(tmp_path / "run")


def test_float16_scores_are_the_float32_scores_rounded(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "--score-dtype", "float16", "--formats", "h5,bigwig,npz")
    assert result.exit_code == 0, result.stderr
    half = read_scores(tmp_path / "run.counts_scores.h5")
    full = read_scores(Path(f"{finished}.counts_scores.h5"))
    assert half["shap/seq"].dtype == np.float16
    assert (half["shap/seq"] == full["shap/seq"].astype(np.float16)).all()
    with np.load(tmp_path / "run.counts_attr.npz") as arrays:
        assert arrays["arr_0"].dtype == np.float16


def test_float64_agrees_and_adds_up_better(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "--precision", "float64")
    assert result.exit_code == 0, result.stderr
    double = read_scores(tmp_path / "run.counts_scores.h5")
    single = read_scores(Path(f"{finished}.counts_scores.h5"))
    largest = np.abs(double["shap/seq"]).max()
    assert np.abs(double["shap/seq"] - single["shap/seq"]).max() < 1e-5 * largest
    assert double["qc/delta_error"].max() < 1e-12


def test_bfloat16_is_near_and_says_so_in_the_identity(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small network has eight filters, fewer than are rounded otherwise."""
    monkeypatch.setattr("dlgenome.attribution.rules.convolution._FEWEST_CHANNELS", 8)
    result = attribute("-o", tmp_path / "run", "--precision", "bfloat16")
    assert result.exit_code == 0, result.stderr
    with h5py.File(tmp_path / "run.counts_scores.h5") as file:
        assert file.attrs["precision"] == b"bfloat16"
    found = read_scores(tmp_path / "run.counts_scores.h5")["shap/seq"]
    expected = read_scores(Path(f"{finished}.counts_scores.h5"))["shap/seq"]
    assert 1e-4 < np.abs(found - expected).max() / np.abs(expected).max() < 1e-2


def test_compile_changes_no_score_and_says_where_it_does_nothing(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "--compile", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "--compile records the steps of CUDA devices; on cpu it changes nothing" in result.stderr
    found = read_scores(tmp_path / "run.counts_scores.h5")["shap/seq"]
    assert (found == read_scores(Path(f"{finished}.counts_scores.h5"))["shap/seq"]).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--precision", "tf32", "--device", "cpu"), "tf32 is a format of CUDA devices"),
        (("--precision", "bfloat16", "--rule", "revealcancel"), "does not go with --rule revealcancel"),
    ],
)
def test_precisions_that_cannot_be_had_are_refused(
    attribute: Attribute, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    result = attribute("-o", tmp_path / "run", *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_run_json_tells_how_to_reproduce_the_run_and_what_came_of_it(
    finished: Path, inputs: Path, read_scores: Read
) -> None:
    found = facts(finished)
    identity = found["identity"]
    for name, path in (("checkpoint", "bpnet.safetensors"), ("regions", "peaks.narrowPeak")):
        assert identity[f"{name}_sha256"] == hashlib.sha256((inputs / path).read_bytes()).hexdigest()
    assert identity["genome_digest"] == hashlib.sha256(b"chrA\t20000\nchrB\t12000\n").hexdigest()
    expected = {"window": LENGTH, "n_references": 3, "seed": 0, "batch_size": 6, "method": "deeplift"}
    assert expected.items() <= identity.items()
    assert found["targets"] == {"counts": "counts"}
    assert found["settings"]["model"] == str(inputs / "bpnet.safetensors")
    assert found["versions"].keys() >= {"dlgenome", "torch", "numpy", "h5py", "python"}
    assert found["regions"]["scored"] == 12
    assert found["regions_per_second"] > 0
    assert found["peak_memory_bytes"] > 2**20
    parts = {f"scoring_{part}" for part in ("reading", "references", "model", "waiting", "spooling")}
    assert set(found["seconds"]) == {"checks", "scoring", "writing", *parts}
    assert set(found["outputs"]) == names_beside(finished)
    assert found["next_commands"][0].startswith(f"modisco motifs -i {finished}.counts_scores.h5")
    errors = read_scores(Path(f"{finished}.counts_scores.h5"))["qc/delta_error"]
    assert found["completeness"]["counts"]["maximum"] == errors.max()
    assert found["completeness"]["counts"]["worst_row"] == errors.argmax()
    stored = read_scores(Path(f"{finished}.counts_scores.h5"))
    for name, value in identity.items():
        assert stored[f"attribute:{name}"].item() == value


def test_progress_says_rate_and_remaining_time_and_the_report_what_to_do_next(
    attribute: Attribute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlgenome_cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    result = attribute("-o", tmp_path / "run", quiet=False)
    assert result.exit_code == 0, result.stderr
    progress = [line for line in result.stderr.splitlines() if "regions/s" in line]
    assert [line.split(",")[0] for line in progress] == [f"{done} of 12 regions" for done in range(0, 13, 2)]
    assert progress[-1].endswith("0:00:00 left")
    assert "Scored 12 regions at " in result.stderr
    assert f"  {tmp_path / 'run.counts_scores.bw'}" in result.stderr
    assert "Next:\n  modisco motifs -i" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("formats", "next_command"),
    [("npz", "modisco motifs -s {ohe} -a {attr} -n 20000 -w 100"), ("bigwig", None)],
)
def test_the_next_command_names_files_that_are_there(
    formats: str, next_command: str | None, attribute: Attribute, tmp_path: Path
) -> None:
    prefix = tmp_path / "my run"
    result = attribute("-o", prefix, "--formats", formats, "--limit", "1", quiet=False)
    assert result.exit_code == 0, result.stderr
    assert not Path(f"{prefix}.counts_scores.h5").exists()
    ohe, attr = (f"'{prefix}.counts_{name}.npz'" for name in ("ohe", "attr"))
    commands = facts(prefix)["next_commands"]
    assert len(commands) == (next_command is not None)
    assert ("Next:" in result.stderr) == bool(commands)
    for command in commands:
        assert command.startswith(str(next_command).format(ohe=ohe, attr=attr))


def test_messages_can_be_json(attribute: Attribute, tmp_path: Path) -> None:
    result = attribute("-o", tmp_path / "run", "--log-json", regions=tmp_path / "none.bed", quiet=False)
    assert result.exit_code == 3
    last = json.loads(result.stderr.splitlines()[-1])
    assert last["level"] == "error"
    assert "none.bed" in last["message"]


def test_no_connection_is_opened(
    attribute: Attribute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a connection was asked for")

    for name in ("socket.socket.connect", "socket.socket.bind", "socket.getaddrinfo"):
        monkeypatch.setattr(name, refuse)
    result = attribute("-o", tmp_path / "run", "--limit", "1")
    assert result.exit_code == 0, result.stderr
