"""Genomes: every fetch against a plain string, indexes that race or lie, and files that are not genomes."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Bio import bgzf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlgenome.encoding import decode, encode
from dlgenome.errors import InputError
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.types import Contig, Region

Write = Callable[..., Path]

CHR1, CHR2 = "ACGTACGTAACCGGTTACGT", "TTTTTGGGGG"


def slow_fetch(sequence: str, start: int, end: int) -> str:
    return "".join(sequence[at] if 0 <= at < len(sequence) else "N" for at in range(start, end))


def fasta_text(records: dict[str, str], width: int, newline: str = "\n") -> str:
    lines = []
    for name, sequence in records.items():
        lines.append(f">{name} described")
        lines += [sequence[at : at + width] for at in range(0, len(sequence), width)]
    return newline.join([*lines, ""])


def test_contigs_come_in_file_order_with_their_first_word_as_name(genome: Genome) -> None:
    assert genome.contigs == (Contig("chr1", 20), Contig("chr2", 10))


def test_every_stretch_equals_the_slice_of_a_string_padded_with_n(genome: Genome) -> None:
    for start in range(-12, 25):
        for end in range(start, 30):
            assert decode(genome.fetch("chr1", start, end)) == slow_fetch(CHR1, start, end)


def test_stretches_wholly_outside_are_n_and_never_wrap(genome: Genome) -> None:
    assert decode(genome.fetch("chr2", -8, -3)) == "NNNNN"
    assert decode(genome.fetch("chr2", 10, 14)) == "NNNN"


@settings(max_examples=25, deadline=None)
@given(
    sequences=st.lists(st.text("ACGTacgtNn", min_size=1, max_size=70), min_size=1, max_size=4),
    width=st.integers(1, 25),
    newline=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    start=st.integers(-90, 90),
    size=st.integers(0, 120),
)
def test_any_wrapping_line_end_and_compression_reads_alike(
    tmp_path_factory: pytest.TempPathFactory,
    sequences: list[str],
    width: int,
    newline: str,
    packed: bool,
    start: int,
    size: int,
) -> None:
    records = {f"s{at}": sequence for at, sequence in enumerate(sequences)}
    text = fasta_text(records, width, newline).encode()
    path = tmp_path_factory.mktemp("any") / "any.fa"
    if packed:
        with bgzf.BgzfWriter(str(path), "wb") as stream:  # type: ignore[no-untyped-call]
            stream.write(text)
    else:
        path.write_bytes(text)
    for _ in range(2):  # the second time through the index that the first one left
        with Genome(path) as genome:
            for name, sequence in records.items():
                assert decode(genome.fetch(name, start, start + size)) == slow_fetch(
                    sequence.upper(), start, start + size
                )


def test_bgzip_reads_alike_across_every_edge_of_its_largest_blocks(bgzip: Write) -> None:
    sequence = "".join("ACGT"[base] for base in np.random.default_rng(1).integers(0, 4, 200_000))
    text = fasta_text({"a": sequence}, 60)
    with Genome(bgzip("x.fa.gz", text)) as genome:
        for edge in range(1 << 16, len(text), 1 << 16):
            bases_before = len(text[:edge].split("\n", 1)[1].replace("\n", ""))
            for start in range(bases_before - 2, bases_before + 3):
                assert decode(genome.fetch("a", start, start + 90)) == sequence[start : start + 90]


def test_soft_masked_bases_count_like_any_other(write: Write) -> None:
    with Genome(write("x.fa", ">a\nacgtACGTnN\n")) as genome:
        assert decode(genome.fetch("a", 0, 10)) == "ACGTACGTNN"
        assert genome.non_acgtn_count == 0


def test_ambiguity_codes_become_n_and_are_counted(write: Write) -> None:
    with Genome(write("x.fa", ">a\nACRYswGTNN\n")) as genome:
        assert genome.non_acgtn_count == 0
        assert decode(genome.fetch("a", 0, 10)) == "ACNNNNGTNN"
        assert genome.non_acgtn_count == 4
        genome.fetch("a", 0, 3)
        assert genome.non_acgtn_count == 5


def test_u_is_read_as_t_with_one_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Genome(write("x.fa", ">a\nACGUuacg\n")) as genome:
        assert decode(genome.fetch("a", 0, 8)) == "ACGTTACG"
        genome.fetch("a", 0, 8)
        assert genome.non_acgtn_count == 0
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "holds U (RNA); every U is read as T."
    ]


def test_protein_is_refused_at_once(write: Write) -> None:
    path = write("p.fa", ">sp|P01\nMKVLAAGIEFP\n")
    with pytest.raises(InputError, match=r"base 4 of 'sp\|P01' is 'L', .* is this a protein FASTA\?"):
        Genome(path)


def test_a_letter_far_inside_is_refused_when_it_is_fetched(write: Write) -> None:
    sequence = "ACGT" * 1000
    with (
        Genome(write("x.fa", f">a\n{sequence}-{sequence}{sequence}\n")) as genome,
        pytest.raises(InputError, match=r"base 4001 of 'a' is '-', not a nucleotide code; write N"),
    ):
        genome.fetch("a", 3990, 4010)


def test_unknown_contig_is_named(genome: Genome) -> None:
    with pytest.raises(InputError, match="there is no contig called 'chr9'"):
        genome.fetch("chr9", 0, 1)
    with pytest.raises(ValueError, match="before"):
        genome.fetch("chr1", 5, 4)


def test_digest_depends_on_names_and_lengths_alone(write: Write) -> None:
    digests = []
    for text in (">a\nACGT\n>b\nAC\n", ">a x\nTT\nTT\n>b\nGG\n", ">b\nAC\n>a\nACGT\n", ">a\nACGTA\n>b\nAC\n"):
        with Genome(write("x.fa", text)) as genome:
            digests.append(genome.digest)
        os.remove(f"{genome.path}.fai")  # noqa: PTH107 - one line
    assert digests[0] == digests[1] == hashlib.sha256(b"a\t4\nb\t2\n").hexdigest()
    assert len(set(digests)) == 3


def test_index_is_left_beside_the_fasta_and_nothing_else(write: Write, bgzip: Write, tmp_path: Path) -> None:
    Genome(write("plain.fa", ">a\nACGT\n")).close()
    Genome(bgzip("packed.fa.gz", ">a\nACGT\n")).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "packed.fa.gz", "packed.fa.gz.fai", "packed.fa.gz.gzi", "plain.fa", "plain.fa.fai",
    ]  # fmt: skip
    assert (tmp_path / "plain.fa.fai").read_text() == "a\t4\t3\t4\t5\n"


def test_current_index_is_used_as_it_is(write: Write) -> None:
    path = write("x.fa", ">a\nACGT\n")
    fai = write("x.fa.fai", "a\t4\t3\t4\t5\n")
    before = fai.stat()
    Genome(path).close()
    assert (fai.stat().st_ino, fai.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_index_older_than_the_fasta_is_rebuilt(write: Write) -> None:
    fai = write("x.fa.fai", "a\t4\t3\t4\t5\n")
    os.utime(fai, (1, 1))
    with Genome(write("x.fa", ">a\nACGTACGT\nAC\n")) as genome:
        assert decode(genome.fetch("a", 0, 10)) == "ACGTACGTAC"
    assert fai.read_text() == "a\t10\t3\t8\t9\n"


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("b\t8\t3\t8\t9\n", id="another name"),
        pytest.param("a\t4\t3\t4\t5\n", id="ends before the file does"),
        pytest.param("a\t80\t3\t8\t9\n", id="ends after the file does"),
        pytest.param("a\t8\t4\t8\t9\n", id="another offset"),
        pytest.param("", id="empty"),
        pytest.param("a\t8\n", id="half a line"),
    ],
)
def test_index_of_another_file_is_rebuilt_though_newer(write: Write, index: str) -> None:
    path = write("x.fa", ">a\nACGTACGT\n")
    fai = write("x.fa.fai", index)
    with Genome(path) as genome:
        assert decode(genome.fetch("a", 0, 8)) == "ACGTACGT"
    assert fai.read_text() == "a\t8\t3\t8\t9\n"


def test_fasta_without_a_last_line_end_keeps_its_index(write: Write) -> None:
    path = write("x.fa", ">a\nACGT\nACGT\nAC")
    Genome(path).close()
    before = path.with_name("x.fa.fai").stat().st_ino
    with Genome(path) as genome:
        assert decode(genome.fetch("a", 0, 10)) == "ACGTACGTAC"
    assert path.with_name("x.fa.fai").stat().st_ino == before


def test_read_only_folder_gets_no_index_and_works(bgzip: Write, write: Write, tmp_path: Path) -> None:
    paths = [write("x.fa", ">a\nACGT\n"), bgzip("y.fa.gz", ">a\nACGT\n")]
    tmp_path.chmod(0o555)
    try:
        for path in paths:
            with Genome(path) as genome:
                assert decode(genome.fetch("a", 0, 4)) == "ACGT"
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        tmp_path.chmod(0o755)


def test_many_jobs_may_build_the_same_index_at_once(bgzip: Write) -> None:
    path = bgzip("x.fa.gz", ">a\n" + "ACGTACGTAC\n" * 20_000)
    read: list[str] = []

    def job() -> None:
        with Genome(path) as genome:
            read.append(decode(genome.fetch("a", 150_000, 150_010)))

    jobs = [threading.Thread(target=job) for _ in range(6)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert read == ["ACGTACGTAC"] * 6
    assert len(list(path.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            gzip.compress(b">a\nACGT\n", mtime=0),
            "is compressed with gzip, .* use gunzip, or recompress it with bgzip",
        ),
        (b"", "there are no sequences in this file; it is empty"),
        (b"\xef\xbb\xbf>a\nACGT\n", "begins with a byte order mark .* remove it with sed"),
        (b"BZh9xxxxx", "compressed with bzip2; unpack it with bunzip2 first"),
        (b">a\nAC\0\0", "is a binary file, not FASTA"),
        (b"chr1\t1\t2\n", "FASTA begins with a line like '>chr1', this file does not"),
        (b">a\nACGT\n>a\nGG\n", "two records are called 'a'; give every sequence a name of its own"),
        (b">a\nACGT\nAC\nACGT\n", "lines of different length in record a at line 3; wrap every line"),
        (b">a\n>b\nACGT\n", "record 'a' has no bases"),
        (b">a\rACGT\r", "lines end in a lone carriage return"),
    ],
)
def test_bad_fasta_is_refused_in_one_line(write: Write, content: bytes, message: str) -> None:
    path = write("bad.fa", content)
    with pytest.raises(InputError, match=rf"bad\.fa:?.*{message}") as caught:
        Genome(path)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert [other.name for other in path.parent.iterdir() if other.name.startswith(".")] == []


def test_duplicate_names_are_found_behind_an_index_that_hides_them(write: Write) -> None:
    path = write("x.fa", ">a\nACGT\n>b\nCC\n>a\nGG\n")
    write("x.fa.fai", "a\t4\t3\t4\t5\nb\t2\t11\t2\t3\n")
    with pytest.raises(InputError, match="two records are called 'a'"):
        Genome(path)


def test_missing_fasta_folder_and_pipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Genome(tmp_path / "none.fa")
    with pytest.raises(InputError, match="is a folder"):
        Genome(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or device"):
        Genome(tmp_path / "pipe")


def test_truncated_bgzip_is_refused(bgzip: Write) -> None:
    path = bgzip("x.fa.gz", ">a\n" + "ACGTACGTAC\n" * 20_000)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="the bgzip file is cut short"):
        Genome(path)


@pytest.mark.parametrize("packed", [False, True])
def test_file_cut_while_it_is_read_is_an_input_error(write: Write, bgzip: Write, packed: bool) -> None:
    random = np.random.default_rng(0).integers(0, 4, (20_000, 60))
    text = ">a\n" + "".join("ACGT"[base] for base in random.ravel()) + "\n"
    path = bgzip("x.fa.gz", text) if packed else write("x.fa", text)
    Genome(path).close()  # building the index would leave the whole small file in the reader's cache
    with Genome(path) as genome:
        os.truncate(path, 5000)
        with pytest.raises(InputError, match=r"a:1000000-1000100 .* the file changed, was cut or went away"):
            genome.fetch("a", 1_000_000, 1_000_100)


def test_file_deleted_while_it_is_open_reads_on(write: Write) -> None:
    path = write("x.fa", ">a\nACGT\n")
    with Genome(path) as genome:
        path.unlink()
        assert decode(genome.fetch("a", 0, 4)) == "ACGT"


def test_closed_genome_gives_an_input_error_not_a_traceback(write: Write) -> None:
    genome = Genome(write("x.fa", ">a\nACGT\n"))
    genome.close()
    genome.close()
    with pytest.raises(InputError, match="cannot be read"):
        genome.fetch("a", 0, 4)


def test_records_of_one_length_become_regions(write: Write) -> None:
    path = write("x.fa", ">first one\nACGT\n>second\nGGCC\n")
    with Genome(path) as genome:
        table = regions_of_records(genome)
    assert list(table) == [
        Region("first", 0, 4, "first", input_row=0),
        Region("second", 0, 4, "second", input_row=1),
    ]
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.summits_missing == 0


def test_records_of_different_lengths_are_refused(genome: Genome) -> None:
    with pytest.raises(InputError, match="record 'chr2' has 10 bases but 'chr1' has 20"):
        regions_of_records(genome)


@pytest.mark.real
def test_real_human_piece_equals_the_unpacked_text(real: Callable[[str], Path]) -> None:
    path = real("genome/hg38_chr1_1m.fa.gz")
    sequence = "".join(gzip.decompress(path.read_bytes()).decode().splitlines()[1:]).upper()
    with Genome(path) as genome:
        assert genome.contigs == (Contig("chr1", 1_000_000),)
        for start in range(-1000, 1_000_500, 97_531):
            expected = encode(slow_fetch(sequence, start, start + 2114))
            assert (genome.fetch("chr1", start, start + 2114) == expected).all()
        assert (genome.fetch("chr1", 0, 1_000_000) == 4).sum() == 160_000


@pytest.mark.real
def test_real_bgzip_reads_alike_across_every_block_edge(real: Callable[[str], Path]) -> None:
    path = real("genome/hg38_chr1_1m.fa.gz")
    text = gzip.decompress(path.read_bytes())
    sequence = "".join(text.decode().splitlines()[1:]).upper()
    with path.open("rb") as stream:
        edges = [start for _, _, start, _ in bgzf.BgzfBlocks(stream)][1:-1]  # type: ignore[no-untyped-call]
    with Genome(path) as genome:
        for edge in edges:
            bases_before = len(text[:edge].split(b"\n", 1)[1].replace(b"\n", b""))
            for start in range(bases_before - 2, bases_before + 3):
                assert decode(genome.fetch("chr1", start, start + 200)) == sequence[start : start + 200]


@pytest.mark.real
def test_real_yeast_genome_has_seventeen_contigs(real: Callable[[str], Path]) -> None:
    with Genome(real("genome/sacCer3.fa.gz")) as genome:
        assert len(genome.contigs) == 17
        assert sum(contig.length for contig in genome.contigs) == 12_157_105
        assert decode(genome.fetch("chrI", -2, 10)) == "NNCCACACCACA"


@pytest.mark.real
def test_real_gzip_genome_is_refused_with_the_remedy(real: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="use gunzip, or recompress it with bgzip"):
        Genome(real("genome/ecoli_K12_MG1655.fna.gz"))


@pytest.mark.real
def test_real_fasta_on_one_line_is_read(real: Callable[[str], Path]) -> None:
    path = real("genome/chr17.hg19.part.fa")
    sequence = path.read_text().splitlines()[1].upper()
    with Genome(path) as genome:
        (contig,) = genome.contigs
        assert contig.length == len(sequence)
        assert decode(genome.fetch(contig.name, 30_000, 30_050)) == sequence[30_000:30_050]
