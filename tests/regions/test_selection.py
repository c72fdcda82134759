"""Selectors against plain lists, and contigs that two files spell differently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlgenome.errors import InputError, UsageError
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome
from dlgenome.regions.selection import check_contigs, select
from dlgenome.types import Contig

Bed = Callable[[str], RegionTable]
Write = Callable[..., Path]

ROWS = "chr2\t5\t9\nchr1\t7\t9\nchr2\t1\t4\nchrU\t0\t3\nchr1\t2\t6\n"


def input_rows(table: RegionTable) -> list[int]:
    return [region.input_row for region in table]


def peaks(*signals: float) -> str:
    return "".join(
        f"chr1\t{at}\t{at + 5}\tp\t0\t.\t{signal}\t-1\t-1\t2\n" for at, signal in enumerate(signals)
    )


def test_nothing_asked_keeps_everything_in_input_order(bed: Bed) -> None:
    selection = select(bed(ROWS))
    assert input_rows(selection.table) == [0, 1, 2, 3, 4]
    assert selection.left_out == {"chroms": 0, "exclude": 0, "limit": 0}


def test_chroms_keeps_the_named_chromosomes(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        selection = select(bed(ROWS), chroms=["chr1", "chr7"])
    assert input_rows(selection.table) == [1, 4]
    assert selection.left_out["chroms"] == 3
    assert "no region is on chr7" in caplog.text


def test_genome_order_follows_the_fasta_then_the_coordinates(bed: Bed) -> None:
    contigs = [Contig("chr2", 100), Contig("chr1", 100)]
    assert input_rows(select(bed(ROWS), order="genome", contigs=contigs).table) == [2, 0, 4, 1, 3]


def test_signal_order_is_strongest_first_and_keeps_ties_in_place(bed: Bed) -> None:
    assert input_rows(select(bed(peaks(1.5, 9, 2, 9, -1)), order="signal").table) == [1, 3, 2, 0, 4]


def test_signal_order_needs_narrow_peak(bed: Bed) -> None:
    with pytest.raises(UsageError, match=r"sorts by column 7 of narrowPeak, but .* has 3 columns"):
        select(bed(ROWS), order="signal")


def test_shuffle_is_a_permutation_that_only_the_seed_decides(bed: Bed) -> None:
    table = bed(peaks(*range(50)))
    first = input_rows(select(table, order="shuffle:1").table)
    assert sorted(first) == list(range(50))
    assert first == input_rows(select(table, order="shuffle:1").table)
    assert first != input_rows(select(table, order="shuffle:2").table) != list(range(50))
    assert first[:5] == [9, 36, 39, 31, 16]


@pytest.mark.parametrize(
    "order", ["random", "shuffle", "shuffle:", "shuffle:x", "shuffle:-1", "Genome", "input:1"]
)
def test_unknown_order_lists_the_known_ones(bed: Bed, order: str) -> None:
    with pytest.raises(UsageError, match="use input, genome, signal or shuffle:SEED"):
        select(bed(ROWS), order=order)


def test_limit_comes_after_order(bed: Bed) -> None:
    selection = select(bed(peaks(1, 3, 2)), order="signal", limit=2)
    assert input_rows(selection.table) == [1, 2]
    assert selection.left_out["limit"] == 1
    with pytest.raises(UsageError, match="--limit 0"):
        select(bed(ROWS), limit=0)


def test_selectors_apply_in_their_order_and_count_apart(bed: Bed, write: Write) -> None:
    exclude = write("no.bed", "chr2\t0\t2\nchr1\t0\t3\n")
    selection = select(bed(ROWS), chroms=["chr1", "chr2"], exclude=exclude, limit=1)
    assert input_rows(selection.table) == [0]
    assert selection.left_out == {"chroms": 1, "exclude": 2, "limit": 1}


def test_touching_intervals_do_not_exclude(bed: Bed, write: Write) -> None:
    assert (
        len(select(bed("chr1\t10\t20\n"), exclude=write("no.bed", "chr1\t0\t10\nchr1\t20\t30\n")).table) == 1
    )


def test_empty_exclusion_file_excludes_nothing(bed: Bed, write: Write) -> None:
    assert len(select(bed(ROWS), exclude=write("no.bed", "")).table) == 5


def test_exclusion_file_of_another_naming_is_warned_of(
    bed: Bed, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        select(bed("chr1\t10\t20\n"), exclude=write("no.bed", "1\t0\t100\n"))
    assert "has no chromosome in common" in caplog.text


def test_bad_exclusion_file_names_its_own_line(bed: Bed, write: Write) -> None:
    with pytest.raises(InputError, match=r"no\.bed:1: start 9 is not before"):
        select(bed(ROWS), exclude=write("no.bed", "chr1\t9\t2\n"))


def test_nothing_left_is_an_error_that_names_the_chromosomes(bed: Bed) -> None:
    with pytest.raises(InputError, match=r"none of 5 regions is left \(5 not on --chroms.* chr2, chr1, chrU"):
        select(bed(ROWS), chroms=["chr9"])


spans = st.lists(
    st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 60), st.integers(1, 30)),
    min_size=1,
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(regions=spans, excluded=spans)
def test_exclude_agrees_with_comparing_every_pair(
    tmp_path: Path, regions: list[tuple[str, int, int]], excluded: list[tuple[str, int, int]]
) -> None:
    paths = tmp_path / "regions.bed", tmp_path / "excluded.bed"
    for path, rows in zip(paths, (regions, excluded), strict=True):
        path.write_text("".join(f"{chrom}\t{start}\t{start + size}\n" for chrom, start, size in rows))
    expected = [
        row
        for row, (chrom, start, size) in enumerate(regions)
        if not any(
            chrom == other and start < other_start + other_size and other_start < start + size
            for other, other_start, other_size in excluded
        )
    ]
    table = read_regions(paths[0])
    if expected:
        assert input_rows(select(table, exclude=paths[1]).table) == expected
    else:
        with pytest.raises(InputError, match="none of"):
            select(table, exclude=paths[1])


def test_known_contigs_pass(bed: Bed, genome: Genome) -> None:
    assert check_contigs(bed("chr2\t1\t2\nchr1\t1\t2\n"), genome).tolist() == [True, True]


def test_missing_contigs_are_named_with_counts_and_a_remedy(bed: Bed, genome: Genome) -> None:
    table = bed("chr1\t1\t2\nchrX\t1\t2\nchrY\t1\t2\nchrY\t1\t2\n")
    with pytest.raises(
        InputError, match=r"regions\.bed:2: 3 of 4 regions .*: chrY, chrX; .*--skip-missing-contigs"
    ):
        check_contigs(table, genome)
    assert check_contigs(table, genome, skip_missing=True).tolist() == [True, False, False, False]


def test_all_contigs_missing_is_an_error_even_when_skipping(bed: Bed, genome: Genome) -> None:
    for skip_missing in (False, True):
        with pytest.raises(
            InputError, match=r"2 of 2 regions .* the FASTA has chr1, chr2; give the genome"
        ) as caught:
            check_contigs(bed("a\t1\t2\nb\t1\t2\n"), genome, skip_missing=skip_missing)
        assert "--skip-missing-contigs" not in str(caught.value)


def test_rows_left_out_earlier_are_not_missed(bed: Bed, genome: Genome) -> None:
    chosen = select(bed("chr1\t1\t2\nchrX\t1\t2\n"), chroms=["chr1"]).table
    assert check_contigs(chosen, genome).all()


@pytest.mark.parametrize(("region", "contig"), [("chr1", "1"), ("1", "chr1"), ("chrM", "MT"), ("MT", "chrM")])
def test_two_spellings_of_a_chromosome_get_a_hint(bed: Bed, write: Write, region: str, contig: str) -> None:
    with (
        Genome(write("x.fa", f">{contig}\nACGT\n")) as genome,
        pytest.raises(InputError, match=f"your regions say {region}, the FASTA says {contig}: rename"),
    ):
        check_contigs(bed(f"{region}\t1\t2\n"), genome)


@pytest.mark.real
def test_real_yeast_fasta_of_another_naming_gets_the_hint(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/macs3_yeast_ATAC_sacCer3.narrowPeak"))
    with (
        Genome(real("genome/sacCer3_chrI_snakemake.fa")) as genome,
        pytest.raises(InputError, match="your regions say chrI, the FASTA says I: "),
    ):
        check_contigs(table, genome, skip_missing=True)


@pytest.mark.real
def test_real_peaks_on_a_piece_of_the_genome_may_skip_the_rest(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/ENCSR000AKO_CTCF_K562_hg38.narrowPeak.gz"))
    with Genome(real("genome/hg38_chr1_1m.fa.gz")) as genome:
        present = check_contigs(table, genome, skip_missing=True)
        with pytest.raises(InputError, match=r"regions lie on contigs that are not in .*: chr2, .* more; "):
            check_contigs(table, genome)
    assert present.sum() == sum(region.chrom == "chr1" for region in table)
