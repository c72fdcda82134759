"""A run cut into shards and joined again is the run that was never cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner, Result

from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli

Attribute = Callable[..., Result]

SETTINGS = ("-t", "counts", "-t", "again=counts", "--n-references", "2", "--threads", "1")
FORMATS = ("--formats", "h5,bigwig,npz", "--overlap", "max", "--crop", "60")


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["merge", *map(str, arguments)])


def contents(path: Path) -> dict[str, Any]:
    """Every dataset, with its layout, and the identity."""
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype.str, item.chunks, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(keep)
    with ScoresFile(path) as scores:
        return {**found, "identity": scores.identity}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="module")
def whole(folder: Path, attribute: Attribute) -> Path:
    """The prefix of the run that is not cut; three of its windows cross an end of their chromosome."""
    result = attribute("-o", folder / "whole", *SETTINGS, *FORMATS, "--order", "shuffle:5")
    assert result.exit_code == 0, result.stderr
    return folder / "whole"


@pytest.fixture(scope="module")
def shards(folder: Path, attribute: Attribute) -> list[Path]:
    """The scores of both targets of three shards, given in no order."""
    for part in (1, 2, 3):
        result = attribute(
            "-o", folder / "run", *SETTINGS, *FORMATS, "--order", "shuffle:5", "--shard", f"{part}/3"
        )
        assert result.exit_code == 0, result.stderr
    return sorted(folder.glob("run.shard-*_scores.h5"), key=lambda path: path.name[::-1])


def test_every_file_of_joined_shards_is_that_of_the_whole_run(
    folder: Path, whole: Path, shards: list[Path]
) -> None:
    result = merge("-o", folder / "joined", *shards)
    assert result.exit_code == 0, result.stderr
    assert "Joined 3 shards of 12 regions" in result.stderr
    ours = sorted(folder.glob("joined.*"))
    assert [path.name.removeprefix("joined") for path in ours] == [
        path.name.removeprefix("whole") for path in sorted(folder.glob("whole.*"))
    ]
    for path in ours:
        theirs = folder / path.name.replace("joined", "whole")
        if path.suffix == ".h5":
            assert contents(path) == contents(theirs)
        elif path.suffix != ".json":
            assert path.read_bytes() == theirs.read_bytes(), path.name


def test_shards_are_contiguous_parts_that_differ_by_one_at_most(shards: list[Path]) -> None:
    sizes = []
    for path in sorted(shards):
        with ScoresFile(path) as scores:
            sizes.append(scores.n_regions)
            part = path.name.split(".")[1].split("-")[1]
            assert scores.attributes["shards"] == f"{part}/3"
            assert "shards" not in scores.identity
    assert sum(sizes) == 2 * 12
    assert max(sizes) - min(sizes) <= 1


def test_more_shards_than_regions_leave_empty_ones_that_join_as_well(
    folder: Path, tmp_path: Path, attribute: Attribute
) -> None:
    run = ("--n-references", "1", "--threads", "1", "--limit", "2", "--formats", "h5,bigwig,npz")
    assert attribute("-o", tmp_path / "whole", *run).exit_code == 0
    for part in (1, 2, 3):
        result = attribute("-o", tmp_path / "run", *run, "--shard", f"{part}/3")
        assert result.exit_code == 0, result.stderr
    with ScoresFile(tmp_path / "run.shard-1-of-3.counts_scores.h5") as scores:
        assert scores.n_regions == 0
    result = merge("-o", tmp_path / "joined", *tmp_path.glob("run.shard-*_scores.h5"))
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "joined.counts_scores.h5") == contents(tmp_path / "whole.counts_scores.h5")
    for name in ("counts_scores.bw", "counts_attr.npz", "interpreted_regions.bed", "skipped_regions.tsv"):
        assert (tmp_path / f"joined.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


def test_missing_shards_are_named_and_those_that_were_begun_too(
    folder: Path, tmp_path: Path, shards: list[Path]
) -> None:
    some = [path for path in shards if "shard-2" not in path.name]
    result = merge("-o", tmp_path / "joined", *some)
    assert result.exit_code == 3
    assert "1 of 3 shards of the target" in result.stderr
    assert "are missing: shard 2; run them" in result.stderr
    begun = folder / "run.shard-2-of-3.partial"
    begun.mkdir()
    try:
        result = merge("-o", tmp_path / "joined", *some)
    finally:
        begun.rmdir()
    assert "run.shard-2-of-3.partial: begun but not finished, use --resume" in result.stderr
    assert not list(tmp_path.iterdir())


def test_shards_given_twice_foreign_or_unfinished_are_refused_by_name(
    folder: Path, tmp_path: Path, shards: list[Path], whole: Path, attribute: Attribute
) -> None:
    result = merge("-o", tmp_path / "joined", *shards, shards[0])
    assert result.exit_code == 3
    assert "are both shard 3 of 3" in result.stderr or "are both shard 1 of 3" in result.stderr
    result = merge("-o", tmp_path / "joined", *shards, f"{whole}.counts_scores.h5")
    assert result.exit_code == 3
    assert "whole.counts_scores.h5 is not a shard" in result.stderr
    other = attribute("-o", tmp_path / "other", *SETTINGS, "--shard", "2/3", "--seed", "9")
    assert other.exit_code == 0
    mixed = [path for path in shards if "shard-2" not in path.name]
    result = merge("-o", tmp_path / "joined", *mixed, *tmp_path.glob("other.*.h5"))
    assert result.exit_code == 3
    assert "seed is 0 in" in result.stderr or "order is" in result.stderr
    run_json = folder / "run.shard-2-of-3.run.json"
    hidden = run_json.rename(folder / "elsewhere.json")
    try:
        result = merge("-o", tmp_path / "joined", *shards)
    finally:
        hidden.rename(run_json)
    assert result.exit_code == 3
    assert "is of a shard that is not finished" in result.stderr


def test_shards_of_another_cut_are_refused(
    folder: Path, tmp_path: Path, shards: list[Path], attribute: Attribute
) -> None:
    result = attribute("-o", tmp_path / "run", *SETTINGS, *FORMATS, "--order", "shuffle:5", "--shard", "1/4")
    assert result.exit_code == 0
    result = merge("-o", tmp_path / "joined", *shards, *tmp_path.glob("run.*.h5"))
    assert result.exit_code == 3
    assert "give the shards of one run" in result.stderr


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "1/1001", "-1/3"])
def test_impossible_shards_are_usage_errors(tmp_path: Path, attribute: Attribute, text: str) -> None:
    result = attribute("-o", tmp_path / "run", f"--shard={text}")
    assert result.exit_code == 2
    assert f"--shard is {text}" in result.stderr


def test_shards_of_standard_input_are_refused(tmp_path: Path, attribute: Attribute) -> None:
    result = attribute("-o", tmp_path / "run", "--shard", "1/2", regions="-")
    assert result.exit_code == 2
    assert "standard input cannot be read by every shard" in result.stderr
