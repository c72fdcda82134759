from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlgenome.errors import UsageError
from dlgenome.writers.partial import MARKER, clear_partial, discard_partial, prepare_outputs
from dlgenome.writers.paths import OutputPaths


def outputs(prefix: Path, *formats: str) -> OutputPaths:
    return OutputPaths(prefix, ("counts", "index-0"), frozenset(formats or ("h5", "bigwig")))


def test_preparing_leaves_only_the_marked_folder(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["p.partial"]
    assert [path.name for path in paths.partial.iterdir()] == [MARKER]
    discard_partial(paths)
    assert list(tmp_path.iterdir()) == []


def test_prefix_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        prepare_outputs(outputs(tmp_path), overwrite=True)


def test_missing_parent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; create it first"):
        prepare_outputs(outputs(tmp_path / "nowhere" / "p"), overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        prepare_outputs(outputs(tmp_path / "file" / "p"), overwrite=False)


def test_folder_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop the superuser
    with pytest.raises(UsageError, match="may not be written to"):
        prepare_outputs(outputs(tmp_path / "p"), overwrite=False)


def test_names_too_long_for_the_disk_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        prepare_outputs(outputs(tmp_path / ("p" * 250)), overwrite=False)


def test_existing_output_is_refused_by_name_and_kept(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    paths.run_json.write_text("old")
    with pytest.raises(UsageError, match=r"p\.run\.json.*--overwrite"):
        prepare_outputs(paths, overwrite=False)
    assert not paths.partial.exists()
    prepare_outputs(paths, overwrite=True)
    assert paths.run_json.read_text() == "old"


def test_output_that_is_a_folder_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    paths.bigwig("counts").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        prepare_outputs(paths, overwrite=True)


def test_an_unfinished_run_is_refused_and_nothing_goes_before_it_is_cleared(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    paths.state.write_text("{}")
    paths.spool.write_bytes(b"rows")
    paths.kept_regions.write_text("chr1\t1\t2\n")
    (paths.partial / "p.old-target_scores.h5").write_bytes(b"half")
    with pytest.raises(UsageError, match="unfinished run: continue it with --resume"):
        prepare_outputs(paths, overwrite=False)
    before = sorted(paths.partial.iterdir())
    prepare_outputs(paths, overwrite=True)
    prepare_outputs(paths, overwrite=False, resume=True)
    assert sorted(paths.partial.iterdir()) == before
    clear_partial(paths)
    assert sorted(path.name for path in paths.partial.iterdir()) == [MARKER, "stdin.bed"]


def test_a_folder_of_work_that_cannot_be_resumed_is_used_again(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    paths.spool.write_bytes(b"rows")
    prepare_outputs(paths, overwrite=False)
    assert paths.spool.exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_foreign_partial_is_never_deleted(tmp_path: Path, kind: str, overwrite: bool) -> None:
    paths = outputs(tmp_path / "p")
    if kind == "folder":
        paths.partial.mkdir()
        (paths.partial / "thesis.tex").write_text("years of work")
    elif kind == "file":
        paths.partial.write_text("years of work")
    else:
        prepare_outputs(outputs(tmp_path / "other"), overwrite=False)
        paths.partial.symlink_to(tmp_path / "other.partial")
    with pytest.raises(UsageError, match="not made by dlgenome"):
        prepare_outputs(paths, overwrite=overwrite)
    if kind == "folder":
        assert (paths.partial / "thesis.tex").read_text() == "years of work"
    assert paths.partial.exists()


def test_a_foreign_file_in_our_folder_stops_its_removal(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    paths.spool.touch()
    (paths.partial / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is not a file of dlgenome"):
        prepare_outputs(paths, overwrite=True)
    assert paths.spool.exists()
