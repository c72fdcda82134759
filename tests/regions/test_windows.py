"""Windows: where they lie, and what happens at the ends of a chromosome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlgenome.errors import InputError
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.regions.selection import select
from dlgenome.regions.windows import make_window, plan_windows
from dlgenome.types import Region, SkippedRegion, Window

Bed = Callable[[str], RegionTable]
Write = Callable[..., Path]


def peak(start: int, end: int, summit: int = -1, chrom: str = "chr1") -> str:
    return f"{chrom}\t{start}\t{end}\tp\t0\t.\t1\t1\t1\t{summit}\n"


@given(start=st.integers(0, 10**9), size=st.integers(1, 10**4), length=st.integers(1, 3000), data=st.data())
def test_window_has_its_length_and_its_center_at_half(
    start: int, size: int, length: int, data: st.DataObject
) -> None:
    summit = data.draw(st.just(-1) | st.integers(start, start + size))
    region = Region("chr1", start, start + size, summit=summit)
    for center in ("summit", "midpoint"):
        window = make_window(region, center=center, length=length)
        expected = summit if center == "summit" and summit >= 0 else (2 * start + size) // 2
        assert window == Window(region, "chr1", expected - length // 2, window.end, expected)
        assert window.length == window.end - window.start == length


def test_a_summit_beats_the_midpoint_only_when_asked() -> None:
    region = Region("chr1", 100, 200, summit=110)
    assert make_window(region, center="summit", length=10).start == 105
    assert make_window(region, center="midpoint", length=10).start == 145


def test_windows_over_an_end_are_dropped_with_their_reason(bed: Bed, genome: Genome) -> None:
    plan = plan_windows(bed(peak(0, 4, 2) + peak(8, 12, 2) + peak(16, 20, 3)), genome, length=8)
    assert plan.rows.tolist() == [1]
    assert [window.start for window in plan] == [6]
    assert len(plan) == 1
    assert [(skip.region.input_row, skip.reason) for skip in plan.skipped] == [
        (0, "window runs past the start of chr1"),
        (2, "window runs past the end of chr1 (length 20)"),
    ]


def test_windows_that_just_fit_are_kept(bed: Bed, genome: Genome) -> None:
    plan = plan_windows(
        bed(peak(0, 8, 4) + peak(12, 20, 4) + peak(0, 8, 3) + peak(12, 20, 5)), genome, length=8
    )
    assert [(window.start, window.end) for window in plan] == [(0, 8), (12, 20)]


def test_padding_keeps_windows_over_both_ends(bed: Bed, genome: Genome) -> None:
    plan = plan_windows(bed(peak(0, 4, 2) + peak(16, 20, 3)), genome, length=30, edge="pad")
    assert [(window.start, window.end) for window in plan] == [(-13, 17), (4, 34)]
    assert list(plan.skipped) == []


def test_scored_and_skipped_rows_make_up_the_table_in_any_order(bed: Bed, genome: Genome) -> None:
    text = "".join(peak(start, start + 2, 1) for start in range(18)) + peak(1, 3, 1, "chrX") * 2
    table = select(bed(text), order="shuffle:3").table
    plan = plan_windows(table, genome, length=10, skip_missing=True)
    scored = [window.region.input_row for window in plan]
    skipped = [skip.region.input_row for skip in plan.skipped]
    assert scored == [region.input_row for region in table if 4 <= region.input_row <= 14]
    assert skipped == [0, 1, 2, 3, 15, 16, 17, 18, 19]
    assert plan.skipped[-1] == SkippedRegion(bed(text)[19], "contig not in FASTA")
    assert plan.window(2) == list(plan)[2]


def test_missing_contigs_stop_the_plan_unless_skipped(bed: Bed, genome: Genome) -> None:
    with pytest.raises(InputError, match="1 of 2 regions lie on contigs that are not in"):
        plan_windows(bed(peak(8, 12, 2) + peak(8, 12, 2, "chrX")), genome, length=4)


def test_region_past_its_contig_is_another_genome_build(bed: Bed, genome: Genome) -> None:
    with pytest.raises(
        InputError, match=r"regions\.bed:2: the region ends at 21, but chr1 has only 20 bases .*build"
    ):
        plan_windows(bed(peak(8, 12) + peak(12, 21)), genome, length=4)


def test_window_without_bases_is_a_mistake_of_the_caller(bed: Bed, genome: Genome) -> None:
    with pytest.raises(ValueError, match="at least one base"):
        plan_windows(bed(peak(8, 12)), genome, length=0)


@pytest.mark.parametrize("length", [7, 8])
def test_a_record_as_long_as_the_window_is_the_window(write: Write, length: int) -> None:
    with Genome(write("x.fa", f">a\n{'ACGTACGT'[:length]}\n")) as genome:
        plan = plan_windows(regions_of_records(genome), genome, length=length)
        assert [(window.start, window.end) for window in plan] == [(0, length)]


@pytest.mark.real
def test_real_yeast_peaks_near_the_ends_are_dropped_and_counted(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/macs3_yeast_ATAC_sacCer3.narrowPeak"))
    with Genome(real("genome/sacCer3.fa.gz")) as genome:
        plan = plan_windows(table, genome, length=2114)
        lengths = {contig.name: contig.length for contig in genome.contigs}
        assert len(plan) + len(plan.skipped) == 1605
        assert sum("start" in skip.reason for skip in plan.skipped) == 8
        for window in plan:
            assert 0 <= window.start < window.end <= lengths[window.chrom]
        assert len(plan_windows(table, genome, length=2114, edge="pad")) == 1605


@pytest.mark.real
def test_real_ctcf_peaks_lie_inside_the_human_piece(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/ENCSR000AKO_chr1_1m.narrowPeak"))
    with Genome(real("genome/hg38_chr1_1m.fa.gz")) as genome:
        plan = plan_windows(table, genome, length=2114)
        assert len(plan) == 15
        assert plan.window(0).center == 267_966 + 58
