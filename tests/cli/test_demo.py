"""`dlgenome demo`: its files are readable, its words are true, and the commands it names work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from click.testing import CliRunner, Result

from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli
from dlgenome_sim.demo import DemoFiles

REGIONS = 12


def demo(folder: Path, *arguments: str) -> Result:
    words = ["demo", "-o", str(folder), "--regions", str(REGIONS), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(cli, [*words, *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoFiles, str]:
    """The files of a small demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "a folder"
    result = demo(folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    return DemoFiles(folder), result.stderr


def test_all_files_are_there_and_no_others(finished: tuple[DemoFiles, str]) -> None:
    files, _ = finished
    index = files.genome.with_name("genome.fa.fai")
    assert set(files.folder.iterdir()) - {index} == set(files.all())
    listing = demo(files.folder, "--list-outputs")
    assert listing.stdout.splitlines() == [str(path) for path in files.all()]


def test_the_counts_it_tells_are_those_of_the_files(finished: tuple[DemoFiles, str]) -> None:
    files, said = finished
    truth = [line.split("\t") for line in files.truth.read_text().splitlines()]
    inside, drawn_inside, covered, totals = [], 0, 0, []
    with ScoresFile(files.scores) as scores:
        assert scores.n_regions == REGIONS
        for row, window in enumerate(scores.windows()):
            contributions = scores.projected(row).sum(axis=0)
            strongest = window.start + int(np.abs(contributions).argmax())
            sites = [range(int(s[1]), int(s[2])) for s in truth if s[0] == window.chrom]
            inside.append(any(strongest in site for site in sites))
            covered += sum(any(p in site for site in sites) for p in range(window.start, window.end))
            totals.append(float(np.abs(contributions).sum()))
        share = covered / (REGIONS * scores.length)
    drawn_inside = sum(inside[row] for row in sorted(range(REGIONS), key=lambda row: -totals[row])[:6])
    words = " ".join(said.split())
    assert f"in {drawn_inside} of the 6 regions drawn and {sum(inside)} of all {REGIONS};" in words
    assert f"motifs cover {share:.0%} of the bases" in words


def test_the_model_that_ships_sees_the_planted_motifs(finished: tuple[DemoFiles, str]) -> None:
    counted = re.search(r"(\d+) of all (\d+); motifs cover (\d+)%", " ".join(finished[1].split()))
    assert counted is not None
    hits, regions, share = (int(group) for group in counted.groups())
    assert hits >= regions - 1
    assert share < 20


def test_contributions_add_up_in_every_region(finished: tuple[DemoFiles, str]) -> None:
    with ScoresFile(finished[0].scores) as scores:
        assert scores.qc["delta_error"].max() < 1e-5
        assert set(scores.qc["n_references"]) == {20}


def test_the_bigwig_holds_the_scores_of_the_hdf5_file(finished: tuple[DemoFiles, str]) -> None:
    files, _ = finished
    with ScoresFile(files.scores) as scores, pyBigWig.open(str(files.bigwig)) as track:
        window = scores.window(3)
        values = track.values(window.chrom, window.start, window.end, numpy=True)
        np.testing.assert_array_equal(values, scores.projected(3).sum(axis=0))


def test_the_command_that_it_names_gives_the_same_scores(finished: tuple[DemoFiles, str]) -> None:
    files, said = finished
    line = next(line for line in said.splitlines() if line.strip().startswith("dlgenome attribute"))
    result = CliRunner().invoke(cli, [*shlex.split(line)[1:], "--device", "cpu", "--threads", "1", "-q"])
    assert result.exit_code == 0, result.stderr
    again = files.folder / "again.activity_scores.h5"
    with ScoresFile(files.scores) as first, ScoresFile(again) as second:
        np.testing.assert_array_equal(first.hypothetical(slice(None)), second.hypothetical(slice(None)))
        assert first.identity == second.identity
    for path in files.folder.glob("again.*"):
        path.unlink()
    assert f"modisco motifs -i {shlex.quote(str(files.scores))} " in said


def test_a_folder_with_files_is_refused_and_replaced_on_request(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    refused = demo(tmp_path)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "notes.txt" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    assert demo(tmp_path, "--overwrite", "-q", "--regions", "2").exit_code == 0
    before = DemoFiles(tmp_path).genome.read_text()
    other = demo(tmp_path, "--overwrite", "-q", "--regions", "2", "--seed", "1")
    assert other.exit_code == 0
    assert other.stderr == ""
    assert notes.read_text() == "mine"
    assert DemoFiles(tmp_path).genome.read_text() != before
    assert DemoFiles(tmp_path).picture.stat().st_size > 10_000


def test_one_region_is_enough(tmp_path: Path) -> None:
    result = demo(tmp_path / "one", "--regions", "1")
    assert result.exit_code == 0, result.stderr
    assert "in 1 of all 1;" in " ".join(result.stderr.split())


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = demo(folder)
        assert result.exit_code == 2
        assert "is a file, not a folder" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = demo(tmp_path / "closed")
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: -o {tmp_path / 'closed'} cannot be written to (Permission denied); choose another -o.\n"
    )
