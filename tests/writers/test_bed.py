from __future__ import annotations

from pathlib import Path

from dlgenome.types import Contig, Region, SkippedRegion, Window
from dlgenome.writers.bed import write_interpreted_regions, write_skipped

CONTIGS = (Contig("chr1", 1000),)


def written(path: Path, *windows: Window) -> list[list[str]]:
    write_interpreted_regions(path, windows, CONTIGS)
    text = path.read_text()
    assert text.endswith("\n")
    return [line.split("\t") for line in text.splitlines()]


def test_start_and_end_are_the_window_and_column_10_its_centre(tmp_path: Path) -> None:
    region = Region("chr1", 480, 530, "p", 700, "-", 12.5, 3.0, 1e-05, summit=500)
    [row] = written(tmp_path / "x.bed", Window(region, "chr1", 400, 600, 500))
    assert row == ["chr1", "400", "600", "p", "700", "-", "12.5", "3", "1e-05", "100"]


def test_missing_columns_are_filled_as_in_narrow_peak(tmp_path: Path) -> None:
    [row] = written(tmp_path / "x.bed", Window(Region("chr1", 1, 2), "chr1", 400, 600, 500))
    assert row[3:9] == [".", "0", ".", "0", "-1", "-1"]


def test_padded_windows_are_clipped_and_keep_their_centre(tmp_path: Path) -> None:
    region = Region("chr1", 1, 2)
    rows = written(
        tmp_path / "x.bed", Window(region, "chr1", -60, 140, 40), Window(region, "chr1", 850, 1050, 950)
    )
    assert [row[1:3] + row[9:] for row in rows] == [["0", "140", "40"], ["850", "1000", "100"]]
    assert [int(row[1]) + int(row[9]) for row in rows] == [40, 950]


def test_scores_stay_between_0_and_1000(tmp_path: Path) -> None:
    windows = [Window(Region("chr1", 1, 2, score=score), "chr1", 400, 600, 500) for score in (-3, 5, 4096)]
    assert [row[4] for row in written(tmp_path / "x.bed", *windows)] == ["0", "5", "1000"]


def test_skipped_rows_have_a_header_the_inputs_own_coordinates_and_a_reason(tmp_path: Path) -> None:
    skipped = [SkippedRegion(Region("chr9", 5, 90, "p7", input_row=6, line=9), "chr9 is not in the FASTA")]
    write_skipped(tmp_path / "x.tsv", skipped)
    assert (tmp_path / "x.tsv").read_text() == (
        "input_row\tline\tchrom\tstart\tend\tname\treason\n6\t9\tchr9\t5\t90\tp7\tchr9 is not in the FASTA\n"
    )


def test_nothing_skipped_leaves_the_header(tmp_path: Path) -> None:
    write_skipped(tmp_path / "x.tsv", [])
    assert len((tmp_path / "x.tsv").read_text().splitlines()) == 1
