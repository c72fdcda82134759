from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from dlgenome.errors import InputError, Interrupted, UsageError
from dlgenome.types import ScoredWindow
from dlgenome.writers.blocks import BlockLayout, chunk_rows, decode_windows, encode_block
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool
from dlgenome.writers.spool_reader import SpoolReader

MakeRow = Callable[..., ScoredWindow]


@pytest.fixture
def paths(tmp_path: Path) -> OutputPaths:
    paths = OutputPaths(tmp_path / "p", ("counts",))
    prepare_outputs(paths, overwrite=False)
    return paths


def plain(length: int) -> BlockLayout:
    """One target, with hypothetical contributions, and nothing further."""
    return BlockLayout(length, "float32", ("counts",), (True,))


def spooled(paths: OutputPaths, rows: list[ScoredWindow], layout: BlockLayout | None = None) -> SpoolReader:
    with Spool(paths, layout or plain(len(rows[0].codes))) as spool:
        spool.append(rows)
    return SpoolReader(paths.spool)


def test_chunks_are_powers_of_two_near_64_kibibytes() -> None:
    assert [chunk_rows(2114, size) for size in (1, 2, 4)] == [8, 4, 2]
    assert [chunk_rows(200, size) for size in (1, 2, 4)] == [64, 32, 16]
    assert chunk_rows(196_608, 4) == 1
    assert chunk_rows(4, 1) == 256


def test_windows_and_facts_come_back_unchanged(paths: OutputPaths, make_row: MakeRow) -> None:
    rows = [make_row(row, length=2114, targets=("counts",)) for row in range(19)]
    with spooled(paths, rows) as reader:
        assert reader.rows == 19
        blocks = list(reader.blocks())
        assert [(block.first_row, block.rows) for block, _ in blocks] == [(0, 8), (8, 8), (16, 3)]
        assert [window for _, facts in blocks for window in decode_windows(facts)] == [
            row.window for row in rows
        ]
        predictions = [value for _, facts in blocks for value in facts["qc"]["counts"]["prediction"]]
    assert predictions == [row.scores["counts"].prediction for row in rows]


def test_chunks_are_what_hdf5_itself_would_write(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(row, length=200, targets=("counts",)) for row in range(16)]
    layout = BlockLayout(200, "float32", ("counts",), (True,))
    parts = encode_block(layout, rows)
    scores = np.stack([row.scores["counts"].projected for row in rows])
    with h5py.File(tmp_path / "twin.h5", "w") as file:
        dataset = file.create_dataset("x", data=scores, chunks=(16, 4, 200), compression=1, shuffle=True)
        mask, chunk = dataset.id.read_direct_chunk((0, 0, 0))
    ours = parts[layout.part_slices(16)["counts", "projected_shap"]]
    assert mask == 0
    assert [zlib.decompress(part) for part in ours] == [zlib.decompress(chunk)]


def test_spool_cut_at_any_byte_gives_its_whole_blocks(paths: OutputPaths, make_row: MakeRow) -> None:
    rows = [make_row(row, length=3, targets=("counts",)) for row in range(600)]
    with spooled(paths, rows) as reader:
        whole = reader.blocks_end(3)[2]
        ends = [0] + [block.part_offsets[-1] for block, _ in reader.blocks()]
        row_counts = [0] + [block.first_row + block.rows for block, _ in reader.blocks()]
    data = paths.spool.read_bytes()
    assert whole == len(data)
    near_ends = {end + shift for end in ends for shift in (-2, -1, 0, 1, 2, 19, 20, 21, 60)}
    cut = paths.scratch("cut")
    for size in sorted(near_ends | set(range(0, whole, 211))):
        if 0 <= size <= whole:
            cut.write_bytes(data[:size])
            with SpoolReader(cut) as reader:
                assert reader.rows == max(n for end, n in zip(ends, row_counts, strict=True) if end <= size)


def test_every_byte_of_a_small_spool_may_be_the_last(paths: OutputPaths, make_row: MakeRow) -> None:
    spooled(paths, [make_row(0, length=1, targets=("counts",))]).close()
    data = paths.spool.read_bytes()
    cut = paths.scratch("cut")
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        with SpoolReader(cut) as reader:
            assert reader.rows == 0
            assert reader.blocks_end(0) == (0, 0, reader.layout_end)
            assert reader.layout_end <= size
            assert (reader.layout is None) == (not reader.layout_end)


def test_a_changed_byte_ends_the_spool_there(paths: OutputPaths, make_row: MakeRow) -> None:
    rows = [make_row(row, length=3, targets=("counts",)) for row in range(600)]
    with spooled(paths, rows) as reader:
        first, second, _ = (block for block, _ in reader.blocks())
    data = bytearray(paths.spool.read_bytes())
    for position in range(first.part_offsets[-1], second.part_offsets[-1], 97):
        damaged = bytes(data[:position]) + bytes([data[position] ^ 0x10]) + bytes(data[position + 1 :])
        paths.spool.write_bytes(damaged)
        with SpoolReader(paths.spool) as reader:
            assert (reader.rows, reader.full_blocks()) == (256, 1)
            assert reader.blocks_end(1)[2] == first.part_offsets[-1]


def test_rows_out_of_order_or_of_another_length_are_a_bug(paths: OutputPaths, make_row: MakeRow) -> None:
    with Spool(paths, plain(5)) as spool:
        spool.append([make_row(0, length=5, targets=("counts",))])
        with pytest.raises(ValueError, match="row 2 came where row 1 was due"):
            spool.append([make_row(2, length=5, targets=("counts",))])
        with pytest.raises(ValueError, match="another length"):
            spool.append([make_row(1, length=6, targets=("counts",))])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(paths: OutputPaths, make_row: MakeRow, bad: float) -> None:
    rows = [make_row(row, length=20_000, targets=("counts",)) for row in range(8)]
    rows[3].scores["counts"].projected[2, 7] = bad
    window = rows[3].window
    spool = Spool(paths, plain(20_000))

    def append_all() -> None:
        for row in rows:
            spool.append([row])
        spool.close()

    with pytest.raises(InputError, match=rf"not finite numbers for {window.chrom}:{window.start}-"):
        append_all()
    spool.close()
    with SpoolReader(paths.spool) as reader:
        assert reader.rows == 3


def test_scores_too_large_for_float16_name_the_remedy(paths: OutputPaths, make_row: MakeRow) -> None:
    row = make_row(0, length=5, targets=("counts",))
    row.scores["counts"].projected[0, 0] = 70_000
    with (
        pytest.raises(InputError, match="--score-dtype float32"),
        Spool(paths, replace(plain(5), score_dtype="float16")) as spool,
    ):
        spool.append([row])


def test_npz_without_hypothetical_contributions_is_refused_early(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path / "p", ("counts",), frozenset({"npz"}))
    prepare_outputs(paths, overwrite=False)
    with pytest.raises(UsageError, match="npz"):
        Spool(paths, replace(plain(5), hypothetical=(False,)))


def test_full_disk_is_one_clear_sentence(
    paths: OutputPaths, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(paths, plain(5))
    spool.append([make_row(0, length=5, targets=("counts",))])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Interrupted, match=r"The disk that holds .* is full"):
        spool.close()
    spool.close()


def test_finished_blocks_are_synced_after_five_seconds(
    paths: OutputPaths, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with Spool(paths, plain(20_000)) as spool:
        spool.append([make_row(row, length=20_000, targets=("counts",)) for row in range(4)])
        clock[0] += 4.9
        spool.append([])
        clock[0] += 0.2
        spool.append([])
        with SpoolReader(paths.spool) as reader:
            assert reader.rows == 4


def test_layout_survives_in_the_file(paths: OutputPaths, make_row: MakeRow) -> None:
    layout = BlockLayout(5, "float32", ("counts",), (False,))
    with spooled(paths, [make_row(0, length=5, targets=("counts",), hypothetical=False)], layout) as reader:
        assert reader.layout == layout
        assert reader.known_layout.part_slices(1).keys() == {("", "raw"), ("counts", "projected_shap")}


def test_further_arrays_are_part_of_the_layout(tmp_path: Path, make_row: MakeRow) -> None:
    paths = OutputPaths(tmp_path / "p", ("counts",), extras=("reference_se", "fold_sd"))
    prepare_outputs(paths, overwrite=False)
    rows = [make_row(row, length=5, targets=("counts",), extras=paths.extras) for row in range(2)]
    layout = BlockLayout(5, "float32", ("counts",), (True,), ("fold_sd", "reference_se"))
    with spooled(paths, rows, layout) as reader:
        assert reader.layout == layout
        [(_, chunk)] = reader.chunks("counts", "fold_sd")
    by_byte = np.frombuffer(zlib.decompress(chunk), np.uint8).reshape(4, -1)
    stored = np.ascontiguousarray(by_byte.T).view("<f4").reshape(-1, 4, 5)
    for row in rows:
        assert np.array_equal(stored[row.row], row.scores["counts"].extras["fold_sd"])


def test_rows_with_other_arrays_than_the_run_names_are_a_bug(paths: OutputPaths, make_row: MakeRow) -> None:
    further = replace(plain(5), extras=("fold_sd",))
    with pytest.raises(ValueError, match=r"fold_sd.* the output paths name"):
        Spool(paths, further)
    named = replace(paths, extras=("fold_sd",))
    with pytest.raises(ValueError, match="the output paths name"):
        Spool(named, plain(5))
    with Spool(named, further) as spool:
        spool.append([make_row(0, length=5, targets=("counts",), extras=("fold_sd",))])
        with pytest.raises(ValueError, match="other scores than the rows before"):
            spool.append([make_row(1, length=5, targets=("counts",))])


def test_further_arrays_that_are_not_finite_are_refused(tmp_path: Path, make_row: MakeRow) -> None:
    paths = OutputPaths(tmp_path / "p", ("counts",), extras=("fold_sd",))
    prepare_outputs(paths, overwrite=False)
    row = make_row(0, length=5, targets=("counts",), extras=("fold_sd",))
    row.scores["counts"].extras["fold_sd"][0, 0] = np.nan
    layout = replace(plain(5), extras=("fold_sd",))
    with pytest.raises(InputError, match="not finite numbers"), Spool(paths, layout) as spool:
        spool.append([row])


def test_an_empty_spool_has_no_rows(paths: OutputPaths) -> None:
    Spool(paths, plain(5)).close()
    with SpoolReader(paths.spool) as reader:
        assert (reader.rows, reader.full_blocks(), list(reader.sequences())) == (0, 0, [])
        assert reader.known_layout == plain(5)
    paths.spool.write_bytes(b"")
    with SpoolReader(paths.spool) as reader, pytest.raises(ValueError, match="holds no rows"):
        _ = reader.known_layout


def test_names_outside_ascii_survive(paths: OutputPaths, make_row: MakeRow) -> None:
    row = make_row(0, length=5, targets=("counts",))
    named = replace(row, window=replace(row.window, region=replace(row.window.region, name="γ-globin")))
    with spooled(paths, [named]) as reader:
        [(_, facts)] = reader.blocks()
    assert decode_windows(facts)[0].region.name == "γ-globin"
    assert json.dumps(facts)


def end_on_a_full_disk(
    paths: OutputPaths, row: ScoredWindow, patch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Raise the error, if any, inside a spool that cannot be synced any more."""

    def full() -> None:
        raise Interrupted("The disk is full; free some space.")

    with Spool(paths, plain(len(row.codes))) as spool:
        spool.append([row])
        patch.setattr(spool, "_sync", full)
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("first", "told_too"),
    [
        (Interrupted("The disk is full; free some space; it is kept."), False),
        (Interrupted("Stopped by SIGTERM; it is kept."), True),
    ],
    ids=["the same disk", "a signal"],
)
def test_what_ended_the_run_is_told_when_the_disk_also_refuses_the_last_rows(
    paths: OutputPaths,
    make_row: MakeRow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    first: Interrupted,
    told_too: bool,
) -> None:
    row = make_row(0, length=200, targets=("counts",))
    with pytest.raises(Interrupted) as caught:
        end_on_a_full_disk(paths, row, monkeypatch, first)
    assert caught.value is first
    assert ("The disk is full" in caplog.text) == told_too


@pytest.mark.parametrize("error", [None, ValueError("a bug")], ids=["", "after a bug"])
def test_a_disk_that_refuses_the_last_rows_ends_the_run(
    paths: OutputPaths, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    row = make_row(0, length=200, targets=("counts",))
    with pytest.raises(Interrupted, match="The disk is full"):
        end_on_a_full_disk(paths, row, monkeypatch, error)
