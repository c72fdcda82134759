"""Files that are made to fill the memory, or are no text after all, end as one sentence."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dlgenome.errors import InputError
from dlgenome.provenance import peak_memory_bytes
from dlgenome.regions import bed as bed_files
from dlgenome.regions import fasta_index, rows
from dlgenome.regions.bed import read_regions
from dlgenome.regions.fasta import Genome

Write = Callable[..., Path]


def test_a_line_without_end_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "peaks.bed.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b"chr1\t1\t2\n")
        for _ in range(60):
            stream.write(b"chr1\t" * 200_000)
    before = peak_memory_bytes()
    with pytest.raises(InputError, match=r"peaks\.bed\.gz:2: the line is longer than any of a BED file"):
        read_regions(path)
    assert peak_memory_bytes() - before < 50 * 2**20


def test_a_plain_line_without_end_is_refused_too(write: Write) -> None:
    with pytest.raises(InputError, match=r"peaks\.bed:2: the line is longer"):
        read_regions(write("peaks.bed", "chr1\t1\t2\n" + "x" * (rows.LONGEST_LINE + 1)))
    assert len(read_regions(write("longest.bed", "chr1\t1\t2\t" + "x" * (rows.LONGEST_LINE - 20)))) == 1


def test_a_small_file_of_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed_files, "_ALWAYS_ALLOWED", 1000)
    path = tmp_path / "peaks.bed.gz"
    path.write_bytes(gzip.compress(b"chr1\t1\t2\n" * 100_000))
    with pytest.raises(InputError, match=r"peaks\.bed\.gz:\d+: the gzip file unpacks to more than 200 times"):
        read_regions(path)
    path.write_bytes(gzip.compress(b"".join(b"chr1\t%d\t%d\n" % (i, i + 9) for i in range(10_000))))
    assert len(read_regions(path)) == 10_000


def test_zero_bytes_far_into_a_file_are_refused(write: Write) -> None:
    text = "chr1\t1\t2\tname\n" * 2000
    with pytest.raises(InputError, match=r"regions\.bed:2001: the line holds a zero byte"):
        read_regions(write("regions.bed", text + "chr1\t1\t2\tna\0me\n"))
    with (
        pytest.raises(InputError, match=r"the name 'a\\x00b' holds a zero byte"),
        Genome(write("g.fa", ">chr1\n" + "ACGT\n" * 4000 + ">a\0b\nACGT\n")),
    ):
        pass


def test_regions_of_standard_input_are_kept_for_their_owner_alone(tmp_path: Path, write: Write) -> None:
    previous = os.umask(0)
    try:
        with write("in.bed", "chr1\t1\t2\n").open("rb") as stdin:
            read_regions("-", stdin=stdin, kept=tmp_path / "kept.bed")
    finally:
        os.umask(previous)
    assert (tmp_path / "kept.bed").stat().st_mode & 0o777 == 0o600


def test_nothing_temporary_is_left(
    tmp_path: Path, write: Write, bgzip: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with write("in.bed", "chr1\t1\t2\n").open("rb") as stdin:
        read_regions("-", stdin=stdin)
    for path in (write("plain.fa", ">a\nACGT\n"), bgzip("packed.txt", ">a\nACGT\n")):
        with Genome(path):
            pass
    with pytest.raises(InputError):
        Genome(write("bad.fa", ">a\nACGT\nA\nACGT\n>b\nA\n"))
    assert not list(temporary.iterdir())
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def damage(path: Path, place: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 5, 27])
def test_blocks_that_do_not_follow_each_other_are_refused(bgzip: Write, size: int) -> None:
    path = bgzip("genome.fa.gz", ">chr1\n" + "ACGT\n" * 1000)
    damage(path, 16, (size - 1 if size else 0).to_bytes(2, "little"))
    with pytest.raises(InputError, match=r"bgzip file is damaged at byte \d+|bgzip file unpacks"):
        Genome(path)


def test_blocks_that_claim_too_much_are_refused(bgzip: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta_index, "_ALWAYS_ALLOWED", 1000)
    path = bgzip("genome.fa.gz", ">chr1\n" + "N" * 1_000_000 + "\n")
    with pytest.raises(InputError, match="the bgzip file unpacks to more than 200 times its size"):
        Genome(path)


@pytest.mark.parametrize(
    "line",
    [
        "chr1\t-5\t6\t8\t9",
        "chr1\t20\t6\t0\t0",
        "chr1\t20\t6\t8\t1000000000000",
        "chr1\t20\t6\t1000000000000\t9",
        "chr1\t20\t999999999999999\t8\t9",
        "chr1\t20\t-6\t8\t9",
        "chr1\t1" + "0" * 400 + "\t6\t8\t9",
        "chr1\t20\t6\t8",
        "chr1\t20\t6\t8\t" + "9" * 5000,
        "\t20\t6\t8\t9",
        "chr\xff\t20\t6\t8\t9",
        "",
    ],
)
def test_an_index_that_lies_is_built_again(write: Write, caplog: pytest.LogCaptureFixture, line: str) -> None:
    path = write("genome.fa", ">chr1\nACGTACGT\nACGTACGT\nACGT\n")
    index = write("genome.fa.fai", (line + "\n").encode("latin-1"))
    later = path.stat().st_mtime + 10
    os.utime(index, (later, later))
    with caplog.at_level(logging.INFO), Genome(path) as genome:
        assert [(contig.name, contig.length) for contig in genome.contigs] == [("chr1", 20)]
    assert "building the index" in caplog.text
