from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlgenome.errors import Interrupted, UsageError
from dlgenome.writers.lock import Lock
from dlgenome.writers.partial import (
    MARKER,
    Existing,
    abandon,
    claimed,
    clear_partial,
    discard_partial,
    find_existing,
    prepare_outputs,
)
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


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}])
def test_an_empty_folder_that_a_killed_run_left_is_used_again(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    paths = outputs(tmp_path / "p")
    paths.partial.mkdir()
    with claimed(paths, **options):
        assert (paths.partial / MARKER).is_file()
    assert list(tmp_path.iterdir()) == []


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


def finals(paths: OutputPaths) -> None:
    for path in paths.all():
        path.write_text("old")


def unfinished(paths: OutputPaths) -> None:
    prepare_outputs(paths, overwrite=False)
    paths.state.write_text("{}")
    paths.spool.write_bytes(b"rows")


@pytest.mark.parametrize(
    ("missing", "state", "expected"),
    [
        ([], False, Existing.FINISHED),
        ([], True, Existing.FINISHED),
        (["p.run.json"], True, Existing.UNFINISHED),
        (["p.run.json"], False, Existing.INCOMPLETE),
        (["p.counts_scores.bw"], False, Existing.INCOMPLETE),
        (None, True, Existing.UNFINISHED),
        (None, False, Existing.NOTHING),
    ],
)
def test_what_is_there_is_told_by_its_files(
    tmp_path: Path, missing: list[str] | None, state: bool, expected: Existing
) -> None:
    paths = outputs(tmp_path / "p")
    if state:
        unfinished(paths)
    if missing is not None:
        finals(paths)
        for name in missing:
            (tmp_path / name).unlink()
    assert find_existing(paths) is expected


def test_a_claim_that_comes_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    with claimed(paths):
        assert paths.lock.exists()
        paths.spool.write_bytes(b"rows")
        paths.scratch("stdin.bed").write_text("chr1\t1\t2\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recorded", [False, True])
def test_of_a_claim_that_fails_stays_what_can_be_resumed(tmp_path: Path, recorded: bool) -> None:
    paths = outputs(tmp_path / "p")

    def fail() -> None:
        with claimed(paths):
            paths.spool.write_bytes(b"rows")
            if recorded:
                paths.state.write_text("{}")
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        fail()
    assert paths.spool.exists() == recorded
    assert paths.partial.exists() == recorded
    assert not paths.lock.exists()


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_claim_that_fails_early_keeps_an_unfinished_run(tmp_path: Path, options: dict[str, bool]) -> None:
    paths = outputs(tmp_path / "p")
    unfinished(paths)
    before = {path: path.read_bytes() for path in paths.partial.iterdir()}

    def fail() -> None:
        with claimed(paths, **options):
            raise UsageError("other settings")

    with pytest.raises(UsageError):
        fail()
    assert {path: path.read_bytes() for path in paths.partial.iterdir()} == before
    assert not paths.lock.exists()


def test_a_refused_claim_leaves_the_work_of_the_run_that_holds_the_prefix(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    with claimed(paths) as lock:
        paths.spool.write_bytes(b"rows")
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(Interrupted) as refused, claimed(paths, **options):
                pass
            assert str(refused.value).startswith(f"-o {paths.prefix} is in use by process {os.getpid()} ")
        assert paths.spool.read_bytes() == b"rows"
        lock.check()


def test_a_claim_that_lost_its_lock_leaves_the_folder_to_the_other_run(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    with claimed(paths):
        with claimed(paths, force_unlock=True):
            paths.spool.write_bytes(b"of the other run")
            paths.state.write_text("{}")
        paths.state.unlink()
        lock = Lock(paths.lock)
    assert paths.spool.read_bytes() == b"of the other run"
    lock.release()


def test_a_claim_of_files_that_are_there_is_refused_and_unlocks(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    finals(paths)
    with pytest.raises(UsageError, match="This output exists"), claimed(paths):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(paths.all())
    with claimed(paths, resume=True):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(paths.all())


def test_a_foreign_folder_is_neither_claimed_nor_touched(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "p")
    paths.partial.mkdir()
    (paths.partial / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not made by dlgenome"), claimed(paths, overwrite=True):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["p.partial", "thesis.tex"]


def test_abandoning_says_why_a_folder_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = outputs(tmp_path / "p")
    prepare_outputs(paths, overwrite=False)
    (paths.partial / "notes.txt").write_text("mine")
    abandon(paths)
    assert "notes.txt is not a file of dlgenome" in caplog.text
    assert (paths.partial / "notes.txt").read_text() == "mine"
