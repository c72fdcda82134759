"""What a BED file may look like, and what is refused in which words."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlgenome.errors import InputError
from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.table import PIECE_ROWS
from dlgenome.types import Region

Bed = Callable[[str], RegionTable]
Write = Callable[..., Path]

PEAK = "chr1\t100\t300\tpeak\t500\t+\t7.5\t3.25\t2.5\t50\n"


def test_narrow_peak_columns_become_a_region(bed: Bed) -> None:
    assert list(bed(PEAK)) == [
        Region("chr1", 100, 300, "peak", 500, "+", 7.5, 3.25, 2.5, summit=150, input_row=0, line=1)
    ]


@pytest.mark.parametrize("columns", range(3, 13))
def test_every_width_from_three_to_twelve_is_read(bed: Bed, columns: int) -> None:
    fields = ["chr1", "10", "20", "a", "5", "-", "1", "2", "3", "4", "5", "6"][:columns]
    region = bed("\t".join(fields) + "\n")[0]
    assert (region.chrom, region.start, region.end) == ("chr1", 10, 20)
    assert region.name == ("a" if columns > 3 else ".")
    assert region.score == (5 if columns > 4 else 0)
    assert region.strand == ("-" if columns > 5 else ".")
    if columns == 10:
        assert (region.signal, region.p_value, region.q_value, region.summit) == (1.0, 2.0, 3.0, 14)
    else:
        assert (region.signal, region.p_value, region.q_value, region.summit) == (0.0, -1.0, -1.0, -1)


def test_comments_and_browser_lines_are_skipped_and_line_numbers_kept(bed: Bed) -> None:
    table = bed("# a comment\ntrack name=x\nbrowser position chr1\n\nchr1\t1\t2\n   \nchr1\t3\t4\n")
    assert [(region.line, region.input_row) for region in table] == [(5, 0), (7, 1)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeffchr1\t1\t2\n", id="byte order mark"),
        pytest.param("chr1\t1\t2\r\n", id="CRLF"),
        pytest.param("chr1\t1\t2", id="no newline at the end"),
        pytest.param("chr1 \t 1\t2 \n", id="spaces around the fields"),
    ],
)
def test_harmless_accidents_work(bed: Bed, text: str) -> None:
    region = bed(text)[0]
    assert (region.chrom, region.start, region.end) == ("chr1", 1, 2)


def test_byte_order_mark_before_a_comment_still_makes_it_a_comment(bed: Bed) -> None:
    assert len(bed("\ufeff# note\nchr1\t1\t2\n")) == 1


@pytest.mark.parametrize(
    ("score", "kept"), [("1000.0", 1000), ("12.6", 13), (".", 0), ("5000", 1000), ("-3", 0), ("inf", 1000)]
)
def test_scores_are_rounded_and_kept_within_bounds(bed: Bed, score: str, kept: int) -> None:
    assert bed(f"chr1\t1\t2\tx\t{score}\n")[0].score == kept


def test_scores_that_are_words_are_zero_and_counted_in_the_log(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [region.score for region in bed("chr1\t1\t2\tx\tGATA1\nchr1\t1\t2\tx\t7\n")] == [0, 7]
    assert "1 values in column 5 (score) are not numbers" in caplog.text


def test_duplicate_rows_are_kept(bed: Bed) -> None:
    assert len(bed(PEAK + PEAK)) == 2


def test_missing_summits_are_counted(bed: Bed) -> None:
    table = bed(PEAK + PEAK.replace("\t50\n", "\t-1\n"))
    assert [region.summit for region in table] == [150, -1]
    assert table.summits_missing == 1
    assert bed("chr1\t1\t2\n").summits_missing == 0


def test_a_summit_just_after_the_region_is_kept_as_encode_writes_it(bed: Bed) -> None:
    assert bed(PEAK.replace("\t50\n", "\t200\n"))[0].summit == 300


def test_values_that_are_missing_get_their_defaults(bed: Bed) -> None:
    region = bed("chr1\t1\t20\tx\t0\t.\t.\tNA\tnan\t3\n")[0]
    assert (region.signal, region.p_value, region.q_value) == (0.0, -1.0, -1.0)


BAD_LINES = {
    "chr1 1 2": "the columns are separated by spaces; separate them with tabs",
    "chrom\tstart\tend": r"looks like a header \('start', 'end' where start and end belong\)",
    "chr1\t1": "2 columns; BED needs chromosome, start and end with tabs between them",
    "chr1": "1 column; BED needs",
    ">chr1": "looks like FASTA",
    "\t".join(["chr1", "1", "2", *"abcdefghij"]): "13 columns, but BED has at most 12",
    "chr1\t1e6\t2000000": "start '1e6' is not a plain whole number; write it as 1000000",
    "chr1\t5\t2e+06": r"end '2e\+06' is not a plain whole number; write it as 2000000",
    "chr1\t1,000\t2,000": "start '1,000' is not a whole number; write it in digits only",
    "chr1\t1_000\t2000": "start '1_000' is not",
    "chr1\t1.5\t2000": "start '1.5' is not a whole number",
    "chr1\t-5\t20": "start '-5' is negative; the first base of a chromosome is 0",
    "chr1\t5\t20000000000000": "end '20000000000000' lies beyond any chromosome",
    "chr1\tstart5\t10": "start 'start5' is not a whole number",
    "chr1\t20\t20": "start 20 is not before end 20; BED counts from 0",
    "chr1\t30\t20": "start 30 is not before end 20",
    "\t1\t2": r"column 1 \(chromosome\) is empty",
    "chr1\t1\t2\tx\t0\tplus": r"strand 'plus' \(column 6\) is not \+, - or \.",
    "chr1\t100\t300\tp\t0\t.\t1\t2\t3\t201": r"summit 201 \(column 10\) lies outside the region of 200 bases",
    "chr1\t100\t300\tp\t0\t.\t1\t2\t3\t-2": r"summit '-2' \(column 10\) is not a whole number",
    "chr1\t100\t300\tp\t0\t.\t1\t2\t3\t.": r"summit '\.' \(column 10\) .* write -1",
    "chr1\t100\t300\tp\t0\t.\t1\t2\t255,0,0\t1": r"'255,0,0' in column 9 \(qValue\) is not a number",
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.items(), ids=BAD_LINES.values())
def test_bad_line_is_refused_with_its_place(write: Write, line: str, message: str) -> None:
    path = write("peaks.bed", f"# first\n{line}\n")
    with pytest.raises(InputError, match=rf"peaks\.bed:2: {message}") as caught:
        read_regions(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_mixed_column_counts_are_refused(bed: Bed) -> None:
    with pytest.raises(InputError, match=r"regions\.bed:2: 3 columns, but the lines above have 10"):
        bed(PEAK + "chr1\t1\t2\n")


@pytest.mark.parametrize("content", ["", "# nothing\ntrack x\n", "\n\n"])
def test_file_without_regions_is_refused(bed: Bed, content: str) -> None:
    with pytest.raises(InputError, match="there are no regions in this file"):
        bed(content)


def test_file_without_regions_may_be_allowed(write: Write) -> None:
    table = read_regions(write("x.bed", "# nothing\n"), allow_empty=True)
    assert len(table) == 0
    assert list(table) == []


def test_gzip_is_told_by_content_not_by_name(write: Write) -> None:
    content = gzip.compress(PEAK.encode())
    for name in ("peaks.bed", "peaks.bed.gz"):
        table = read_regions(write(name, content))
        assert table[0].name == "peak"
        assert table.sha256 == hashlib.sha256(content).hexdigest()
    assert read_regions(write("plain.bed.gz", PEAK))[0].name == "peak"


def test_bgzip_bed_is_read_to_its_end(bgzip: Write) -> None:
    path = bgzip("many.bed.gz", PEAK * 5000)
    table = read_regions(path)
    assert len(table) == 5000
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_truncated_gzip_is_refused(write: Write) -> None:
    lines = "".join(f"chr1\t{start}\t{start + 7}\n" for start in range(5000))
    whole = gzip.compress(lines.encode())
    with pytest.raises(InputError, match=r"cut\.bed\.gz:\d+: the gzip file is cut short .* copy it again"):
        read_regions(write("cut.bed.gz", whole[: len(whole) // 2]))


def test_damaged_gzip_is_refused(write: Write) -> None:
    whole = bytearray(gzip.compress(PEAK.encode()))
    whole[-6] ^= 0xFF
    with pytest.raises(InputError, match="the gzip file is damaged"):
        read_regions(write("bad.bed.gz", bytes(whole)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "is a zip archive, as PyTorch files are"),
        (b"\xff\xfec\0h\0", "is UTF-16 text; save it as plain text"),
        (b"chr1\0\0\0", "is a binary file, not a BED file"),
        (b"chr1\t1\t2\rchr1\t3\t4\r", "lines end in a lone carriage return"),
        (gzip.compress(b"BAM\1\0\0\0", mtime=0), "is a binary file, not a BED file"),
    ],
)
def test_other_formats_are_named(write: Write, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_regions(write("x.bed", content))


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.bed: no such file"):
        read_regions(tmp_path / "absent.bed")
    with pytest.raises(InputError, match="is a folder"):
        read_regions(tmp_path)


def test_stdin_is_kept_and_hashed(tmp_path: Path) -> None:
    content = gzip.compress(PEAK.encode())
    table = read_regions("-", stdin=io.BytesIO(content), kept=tmp_path / "stdin.bed")
    assert (tmp_path / "stdin.bed").read_bytes() == content
    assert (tmp_path / "stdin.bed").stat().st_mode & 0o077 == 0
    assert table.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match=r"^stdin:1: "):
        read_regions("-", stdin=io.BytesIO(b"chr1 1 2\n"))


def test_a_pipe_is_read_once_and_hashed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(PEAK.encode(),))
    writer.start()
    table = read_regions(pipe)
    writer.join()
    assert len(table) == 1
    assert table.sha256 == hashlib.sha256(PEAK.encode()).hexdigest()


def test_names_that_are_not_utf8_are_kept_readable(write: Write) -> None:
    assert read_regions(write("x.bed", b"chr1\t1\t2\tpic_\xe9\n"))[0].name == "pic_é"


intervals = st.tuples(
    st.sampled_from(["chr2", "chr1", "chrX"]),
    st.integers(0, 10**9),
    st.integers(1, 10**6),
    st.text("ab_.1", max_size=5),
)


@given(st.lists(intervals, min_size=1, max_size=20), st.data())
def test_take_gives_the_rows_of_a_plain_list(tmp_path_factory: pytest.TempPathFactory, rows, data) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "property.bed"
    path.write_text(
        "".join(f"{chrom}\t{start}\t{start + size}\t{name}\n" for chrom, start, size, name in rows)
    )
    table = read_regions(path)
    plain = [
        Region(chrom, start, start + size, name or ".", input_row=row, line=row + 1)
        for row, (chrom, start, size, name) in enumerate(rows)
    ]
    assert list(table) == plain
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    assert list(table.take(np.array(picked, dtype=np.int64))) == [plain[row] for row in picked]
    assert table.chrom_names == tuple(dict.fromkeys(chrom for chrom, *_ in rows))


def test_a_region_takes_less_than_a_hundred_bytes_and_a_subset_four_more(write: Write) -> None:
    text = "".join(
        f"chr{row % 20}\t{row}\t{row + 500}\tpeak_{row}\t9\t.\t1\t2\t3\t250\n" for row in range(20_000)
    )
    table = read_regions(write("many.bed", text))
    assert table.nbytes / len(table) < 75
    assert table.take(np.arange(20_000)) is table
    half = table.take(np.arange(0, 20_000, 2))
    assert half.nbytes - table.nbytes == 40_000
    assert all(one is other for one, other in zip(half.pieces, table.pieces, strict=True))


def test_rows_on_either_side_of_a_border_between_pieces_are_told_apart(write: Write) -> None:
    text = "".join(f"chr{row % 20}\t{row}\t{row + 500}\tpeak_{row}\n" for row in range(2 * PIECE_ROWS + 1))
    table = read_regions(write("many.bed", text))
    odd = table.take(np.arange(1, len(table), 2))
    for row in (0, 1, PIECE_ROWS - 1, PIECE_ROWS, 2 * PIECE_ROWS - 1, 2 * PIECE_ROWS, -1):
        number = row % len(table)
        expected = Region(
            f"chr{number % 20}", number, number + 500, f"peak_{number}", input_row=number, line=number + 1
        )
        assert table[row] == expected
        assert number % 2 == 0 or odd[number // 2] == expected
    assert table.starts.tolist() == list(range(2 * PIECE_ROWS + 1))
    assert odd.starts.tolist() == list(range(1, 2 * PIECE_ROWS, 2))


@pytest.mark.real
def test_real_peaks_of_the_human_genome_are_read(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/ENCSR000AKO_CTCF_K562_hg38.narrowPeak.gz"))
    assert len(table) == 51_759
    assert table.sha256 == "a381c8a7ac99d772cfb52a3af601c8733b84c4e7b77b9be946dad97c9ee40412"
    assert (table.ends > table.starts).all()
    assert ((table.summits >= table.starts) & (table.summits <= table.ends)).all()


@pytest.mark.real
def test_real_yeast_peaks_begin_after_their_track_line(real: Callable[[str], Path]) -> None:
    table = read_regions(real("regions/macs3_yeast_ATAC_sacCer3.narrowPeak"))
    assert len(table) == 1605
    assert table[0] == Region(
        "chrI", 20, 560, "peak_1", 268, ".", 0.0, 0.0, 0.0, summit=238, input_row=0, line=2
    )
