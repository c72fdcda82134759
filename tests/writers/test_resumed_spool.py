"""A spool that was cut anywhere, gone on with, gives the files of one that was not."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlgenome.errors import InputError
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig, FailedWindow, ScoredWindow, SkippedRegion
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool, resumable_blocks
from dlgenome.writers.spool_reader import SpoolReader

MakeRow = Callable[..., ScoredWindow]
Rows = Sequence[ScoredWindow | FailedWindow]

LAYOUT = BlockLayout(5, "float32", ("counts",), (True,))
CONTIGS = (Contig("chr1", 2000), Contig("chr2", 3000))


@pytest.fixture
def block_rows(monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of four rows, so that a few rows make many."""
    monkeypatch.setattr("dlgenome.writers.blocks.MAX_CHUNK_ROWS", 4)
    assert LAYOUT.block_rows == 4
    return 4


@pytest.fixture
def rows_of(make_row: MakeRow) -> Callable[[str], list[ScoredWindow | FailedWindow]]:
    """Rows as a text says them: `.` for one that was scored, `x` for one that failed."""

    def make(pattern: str) -> list[ScoredWindow | FailedWindow]:
        found: list[ScoredWindow | FailedWindow] = []
        for number, kind in enumerate(pattern):
            row = make_row(number, length=5, targets=("counts",), center=100 + number)
            failed = FailedWindow(number, row.window, f"reason {number}")
            found.append(row if kind == "." else failed)
        return found

    return make


def outputs(prefix: Path) -> OutputPaths:
    paths = OutputPaths(prefix, ("counts",), frozenset({"h5", "bigwig", "npz"}))
    prepare_outputs(paths, overwrite=False, resume=True)
    return paths


def finish(paths: OutputPaths, spool: Spool) -> None:
    finish_run(
        paths,
        spool,
        RunContent(
            contigs=CONTIGS,
            identity={"seed": 1},
            provenance={},
            skipped=[],
            overlap="nearest",
            crop=None,
        ),
        run_facts=dict,
    )


def write(paths: OutputPaths, rows: Rows, resume_blocks: int | None = None) -> Spool:
    with Spool(paths, LAYOUT, resume_blocks=resume_blocks) as spool:
        spool.append(rows[spool.next_row :])
    return spool


def same_files(one: OutputPaths, other: OutputPaths) -> bool:
    pairs = zip(one.all()[:-1], other.all()[:-1], strict=True)
    return all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("pattern", "step"),
    [("....x", 1), ("..........", 37), ("x...x....x.xx", 37), ("xx", 37), ("xxxx....", 37)],
)
def test_a_spool_cut_at_any_byte_goes_on_to_the_same_bytes(
    tmp_path: Path,
    rows_of: Callable[[str], Rows],
    block_rows: int,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    step: int,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nearly all the time would go into it
    rows = rows_of(pattern)
    paths = outputs(tmp_path / "run")
    write(paths, rows)
    whole = paths.spool.read_bytes()
    for size in {*range(0, len(whole), step), len(whole)}:
        paths.spool.write_bytes(whole[:size])
        blocks = resumable_blocks(paths, LAYOUT)
        spool = write(paths, rows, blocks or None)
        assert spool.resumed_rows == blocks * block_rows
        assert (spool.rows, spool.next_row) == (pattern.count("."), len(pattern))
        assert paths.spool.read_bytes() == whole


@pytest.mark.parametrize("pattern", ["..........", "........", "x...x....x.xx", "....xxx", "xxx", ""])
def test_files_of_a_resumed_spool_are_those_of_one_that_was_not_stopped(
    tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int, pattern: str
) -> None:
    rows = rows_of(pattern)
    whole = outputs(tmp_path / "whole")
    finish(whole, write(whole, rows))
    for number, stop in enumerate(range(0, len(rows) + 1, 3)):
        paths = outputs(tmp_path / f"run{number}")
        write(paths, rows[:stop])
        resumed = resumable_blocks(paths, LAYOUT)
        finish(paths, write(paths, rows, resumed or None))
        assert same_files(paths, whole)
    with ScoresFile(whole.scores_h5("counts")) as scores:
        scored = [row for row in rows if isinstance(row, ScoredWindow)]
        assert scores.n_regions == len(scored)
        assert scores.regions["input_row"].tolist() == [row.window.region.input_row for row in scored]
        for number, row in enumerate(scored):
            assert np.array_equal(scores.projected(number), row.scores["counts"].projected)
    listed = [line.split("\t") for line in whole.skipped_tsv.read_text().splitlines()[1:]]
    assert [line[-1] for line in listed] == [f"reason {n}" for n, kind in enumerate(pattern) if kind == "x"]


def test_failures_come_back_as_they_were(
    tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int
) -> None:
    rows = rows_of("x...xx..x")
    paths = outputs(tmp_path / "run")
    write(paths, rows)
    with SpoolReader(paths.spool) as reader:
        assert reader.rows == 5
        assert reader.failures() == [
            SkippedRegion(row.window.region, row.reason) for row in rows if isinstance(row, FailedWindow)
        ]


def test_work_is_resumed_many_times(tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int) -> None:
    rows = rows_of("..x......x..")
    whole = outputs(tmp_path / "whole")
    write(whole, rows)
    paths = outputs(tmp_path / "run")
    write(paths, rows[:5])
    for stop in (6, 7, 11, 12):
        write(paths, rows[:stop], resumable_blocks(paths, LAYOUT))
    assert paths.spool.read_bytes() == whole.spool.read_bytes()


def test_a_damaged_block_takes_those_after_it_along(
    tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int
) -> None:
    rows = rows_of("." * 12)
    paths = outputs(tmp_path / "run")
    write(paths, rows)
    whole = paths.spool.read_bytes()
    with SpoolReader(paths.spool) as reader:
        ends = [reader.blocks_end(number)[2] for number in range(4)]
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        for position in range(start, end, 41):
            damaged = bytearray(whole)
            damaged[position] ^= 0x20
            paths.spool.write_bytes(damaged)
            assert resumable_blocks(paths, LAYOUT) == number
    write(paths, rows, resumable_blocks(paths, LAYOUT))
    assert paths.spool.read_bytes() == whole


def test_scores_of_another_layout_are_not_gone_on_with(
    tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int
) -> None:
    paths = outputs(tmp_path / "run")
    write(paths, rows_of("...."))
    with pytest.raises(InputError, match=r"scores\.spool holds other scores than this run makes"):
        resumable_blocks(paths, replace(LAYOUT, score_dtype="float16"))


def test_every_window_that_was_scored_is_given_back_with_its_bases(
    tmp_path: Path, rows_of: Callable[[str], Rows], block_rows: int
) -> None:
    rows = rows_of("x" + "." * 8 + "xx.")
    paths = outputs(tmp_path / "run")
    write(paths, rows)
    with SpoolReader(paths.spool) as reader:
        found = list(reader.sequences())
    expected = [row for row in rows if isinstance(row, ScoredWindow)]
    assert [window for window, _ in found] == [row.window for row in expected]
    assert np.array_equal([codes for _, codes in found], [row.codes for row in expected])
