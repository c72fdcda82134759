"""What finishing holds for every region of a run: a few dozen bytes, whatever the files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dlgenome.types import Contig, ScoredWindow, SkippedRegion
from dlgenome.writers import bigwig_file, genome_order, hdf5, npz
from dlgenome.writers.blocks import BlockLayout
from dlgenome.writers.finish import RunContent, finish_run
from dlgenome.writers.partial import prepare_outputs
from dlgenome.writers.paths import OutputPaths
from dlgenome.writers.spool import Spool

LENGTH = 8
CONTIGS = (Contig("chr1", 1_000_000),)


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held of the rows at work is the same for few regions and for many."""
    monkeypatch.setattr(hdf5, "COLUMN_CHUNK_ROWS", 256)
    monkeypatch.setattr(genome_order, "PIECE_ROWS", 256)
    monkeypatch.setattr(genome_order, "BATCH_BYTES", 4 * LENGTH * 256)
    monkeypatch.setattr(genome_order, "PIECE_BYTES", 16 * LENGTH * 256)
    monkeypatch.setattr(bigwig_file, "HELD_BASES", bigwig_file.BASES_PER_BLOCK)
    monkeypatch.setattr(bigwig_file, "HELD_BYTES", 1024)
    monkeypatch.setattr(bigwig_file, "BINS_PER_BLOCK", 16)
    monkeypatch.setattr(npz, "PIECE_BYTES", 16 * LENGTH * 256)


@pytest.mark.usefixtures("small_buffers")
def test_finishing_holds_less_than_a_hundred_bytes_a_region(
    make_row: Callable[..., ScoredWindow], tmp_path: Path
) -> None:
    template = make_row(0, length=LENGTH, targets=("counts",))

    def row(number: int) -> ScoredWindow:
        start = 50 * (number * 7919 % 10_000)
        region = replace(template.window.region, chrom="chr1", name=f"a_peak_with_a_name_{number}")
        window = replace(
            template.window, region=region, chrom="chr1", start=start, end=start + LENGTH, center=start + 4
        )
        return replace(template, row=number, window=window)

    def peak(n_rows: int) -> int:
        paths = OutputPaths(tmp_path / f"p{n_rows}", ("counts",), frozenset({"h5", "bigwig", "npz"}))
        prepare_outputs(paths, overwrite=False)
        with Spool(paths, BlockLayout(LENGTH, "float32", ("counts",), (True,)), threads=1) as spool:
            for number in range(n_rows):
                spool.append([row(number)])
        tracemalloc.start()
        finish_run(
            paths,
            spool,
            RunContent(
                contigs=CONTIGS,
                identity={},
                provenance={},
                skipped=[SkippedRegion(template.window.region, "it lies over an edge")],
                overlap="nearest",
                crop=None,
            ),
            run_facts=dict,
        )
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)  # imports and caches are counted once
    few, many = 256, 2_304
    bytes_a_region = (peak(many) - peak(few)) / (many - few)
    assert bytes_a_region < 100, f"{bytes_a_region:.0f} bytes"
