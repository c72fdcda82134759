"""Inputs that stop a run, each with one line that says what and where."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from Bio import bgzf
from click.testing import Result

Attribute = Callable[..., Result]
Given = dict[str, Any]
"""Keywords of the `attribute` fixture; `flags` holds further arguments, `output` another prefix."""


@dataclass(frozen=True)
class Bad:
    """One bad input: how to make it in a folder, and what the command must say."""

    name: str
    make: Callable[[Path, Path], Given]
    exit_code: int
    words: tuple[str, ...]


def _file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _bed(text: str | bytes, name: str = "bad.bed") -> Callable[[Path, Path], Given]:
    return lambda folder, inputs: {"regions": _file(folder / name, text)}


def _fasta(text: str | bytes, name: str = "bad.fa") -> Callable[[Path, Path], Given]:
    return lambda folder, inputs: {"genome": _file(folder / name, text)}


def _flags(*flags: str) -> Callable[[Path, Path], Given]:
    return lambda folder, inputs: {"flags": flags}


def _model(content: str | bytes, name: str = "model.pt") -> Callable[[Path, Path], Given]:
    return lambda folder, inputs: {"model": _file(folder / name, content)}


def _output(
    name: str, prepare: Callable[[Path], object] = lambda path: None
) -> Callable[[Path, Path], Given]:
    def make(folder: Path, inputs: Path) -> Given:
        (folder / "out").mkdir(exist_ok=True)
        prepare(folder / "out")
        return {"output": folder / "out" / name}

    return make


def _in_proc(folder: Path, inputs: Path) -> Given:
    if not Path("/proc/self").exists():
        pytest.skip("this system has no /proc; a folder without write permission does not stop root")
    return {"output": Path("/proc/run")}


def _cut_bgzip(folder: Path, inputs: Path) -> Given:
    whole = folder / "whole.fa.gz"
    with bgzf.BgzfWriter(str(whole), "wb") as stream:  # type: ignore[no-untyped-call]
        stream.write((inputs / "genome.fa").read_bytes())
    return {"genome": _file(folder / "cut.fa.gz", whole.read_bytes()[:-40])}


def _not_finite(folder: Path, inputs: Path) -> Given:
    import torch

    weights = torch.load(inputs / "linear.pt", weights_only=True)
    weights["1.weight"][0, :7] = torch.nan
    torch.save(weights, folder / "nan.pt")
    return {"model": folder / "nan.pt"}


def _of_other_architecture(folder: Path, inputs: Path) -> Given:
    return {"model": inputs / "linear.pt", "flags": ("--architecture", "bpnet")}


def _other_shape(folder: Path, inputs: Path) -> Given:
    flags = ("--architecture", f"{inputs / 'linear.py'}:linear", "--window", "90")
    arguments = ("--architecture-args", '{"length": 90}')
    return {"model": inputs / "linear.pt", "flags": (*flags, *arguments)}


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this code ran",))


def _pickle_with_code(folder: Path, inputs: Path) -> Given:
    import torch

    torch.save({"a": _Evil()}, folder / "code.pt")
    return {"model": folder / "code.pt"}


def _peaks(change: Callable[[list[str]], object]) -> Callable[[Path, Path], Given]:
    """The peaks with the columns of line 3 changed."""

    def make(folder: Path, inputs: Path) -> Given:
        lines = (inputs / "peaks.narrowPeak").read_text().splitlines()
        columns = lines[2].split("\t")
        change(columns)
        lines[2] = "\t".join(columns)
        return {"regions": _file(folder / "bad.narrowPeak", "\n".join(lines) + "\n")}

    return make


def _set(column: int, value: str) -> Callable[[list[str]], object]:
    return lambda columns: columns.__setitem__(column - 1, value)


GOOD = "chrA\t2000\t2200\n"
CASES = (
    Bad(
        "protein FASTA",
        _fasta(">p1\nMKVLEELLFPQ\n>p2\nMEFIQLLPP\n"),
        3,
        ("bad.fa: base 4 of 'p1' is 'L'", "protein"),
    ),
    Bad("BOM in FASTA", _fasta("\ufeff>chrA\nACGT\n"), 3, ("bad.fa", "byte order mark", "sed -i")),
    Bad("empty FASTA", _fasta(""), 3, ("bad.fa", "empty")),
    Bad("FASTA is BED", _fasta(GOOD), 3, ("bad.fa", "FASTA")),
    Bad(
        "duplicate names",
        _fasta(">chrA\nACGT\n>chrA\nACGA\n"),
        3,
        ("bad.fa", "two records are called 'chrA'"),
    ),
    Bad("gzip that is not bgzip", _fasta(gzip.compress(b">chrA\nACGT\n"), "bad.fa.gz"), 3, ("gzip", "bgzip")),
    Bad("truncated bgzip", _cut_bgzip, 3, ("cut.fa.gz", "cut short")),
    Bad("no such FASTA", lambda f, i: {"genome": f / "none.fa"}, 3, ("none.fa", "no such file")),
    Bad("spaces in BED", _bed(GOOD + "chrA 2000 2200\n"), 3, ("bad.bed:2", "spaces", "tabs")),
    Bad("header line", _bed("chrom\tstart\tend\n" + GOOD), 3, ("bad.bed:1", "header", "delete the line")),
    Bad("1e6 coordinates", _bed(GOOD + "chrA\t1e3\t2200\n"), 3, ("bad.bed:2", "'1e3'", "write it as 1000")),
    Bad("two columns", _bed("chrA\t2000\n"), 3, ("bad.bed:1", "2 columns")),
    Bad("ragged columns", _bed(GOOD + "chrA\t1\t9\tname\n"), 3, ("bad.bed:2", "4 columns", "have 3")),
    Bad("13 columns", _bed("chrA\t1\t9" + "\t0" * 10), 3, ("bad.bed:1", "13 columns", "cut -f1-6")),
    Bad("start is end", _bed("chrA\t50\t50\n"), 3, ("bad.bed:1", "start 50 is not before end 50")),
    Bad("start after end", _bed(GOOD + "chrA\t60\t50\n"), 3, ("bad.bed:2", "start 60 is not before end 50")),
    Bad("negative start", _bed("chrA\t-5\t50\n"), 3, ("bad.bed:1", "negative")),
    Bad("end past the contig", _bed(GOOD + "chrB\t11900\t12001\n"), 3, ("bad.bed:2", "12001", "only 12000")),
    Bad("summit outside", _peaks(_set(10, "900")), 3, ("bad.narrowPeak:3", "summit 900", "region's start")),
    Bad("strand", _peaks(_set(6, "forward")), 3, ("bad.narrowPeak:3", "strand 'forward'")),
    Bad("empty BED", _bed(""), 3, ("bad.bed", "no regions")),
    Bad("only comments", _bed("# nothing\ntrack name=x\n"), 3, ("bad.bed", "only comments")),
    Bad("truncated gzip", _bed(gzip.compress(GOOD.encode() * 9)[:-12], "bad.bed.gz"), 3, ("cut short",)),
    Bad("binary BED", _bed(b"\0\1\2\0"), 3, ("bad.bed", "binary")),
    Bad("no such BED", lambda f, i: {"regions": f / "none.bed"}, 3, ("none.bed", "no such file")),
    Bad("some contigs missing", _bed(GOOD + "chrQ\t5\t90\n"), 3, ("bad.bed:2", "1 of 2", "chrQ", "--skip-m")),
    Bad(
        "all contigs missing", _bed("A\t2000\t2200\n"), 3, ("1 of 1", "say A, the FASTA says chrA", "rename")
    ),
    Bad("all windows over an edge", _bed("chrA\t0\t20\n"), 3, ("no window of 100 bases", "--edge pad")),
    Bad("text as model", _model("layers: 3\n"), 3, ("model.pt", "text file")),
    Bad("empty model", _model(b""), 3, ("model.pt is empty",)),
    Bad(
        "cut model",
        lambda f, i: {"model": _file(f / "m.pt", (i / "linear.pt").read_bytes()[:900])},
        3,
        ("m.pt",),
    ),
    Bad("no such model", lambda f, i: {"model": f / "none.pt"}, 3, ("no model file", "none.pt")),
    Bad("folder as model", lambda f, i: {"model": f}, 3, ("is a folder",)),
    Bad("NaN weights", _not_finite, 3, ("nan.pt", "1.weight has 7 NaN", "another checkpoint")),
    Bad("wrong architecture", _of_other_architecture, 3, ("linear.pt do not fit", "bpnet", "missing iconv")),
    Bad("wrong shapes", _other_shape, 3, ("do not fit", "wrong shape 1.weight is (3, 400), not (3, 360)")),
    Bad("bare weights", lambda f, i: {"model": i / "linear.pt"}, 2, ("linear.pt", "--architecture")),
    Bad("pickle with code", _pickle_with_code, 3, ("code.pt", "--trust-pickle")),
    Bad("window not the model's", _flags("--window", "90"), 2, ("--window 90", "takes 100 bases", "leave")),
    Bad("crop too wide", _flags("--crop", "101"), 2, ("--crop 101", "100 bases")),
    Bad("same target twice", _flags("-t", "counts", "-t", "counts"), 2, ("two targets", "counts", "NAME=T")),
    Bad("bare profile", _flags("-t", "profile"), 2, ("profile", "say which profile score")),
    Bad("index out of range", _flags("-t", "output:1/index:4"), 2, ("index 4 is out of range 0..0",)),
    Bad("no such output", _flags("-t", "output:7/index:0"), 2, ("no output 7",)),
    Bad("unknown target", _flags("-t", "count"), 2, ("count", "index:I")),
    Bad("unknown references", _flags("--references", "dinuc"), 2, ("dinuc", "dinucleotide-shuffle")),
    Bad("no references file", _flags("--references", "file:none.h5"), 3, ("none.h5", "no such file")),
    Bad(
        "signal order of a BED",
        lambda f, i: {**_bed(GOOD)(f, i), "flags": ("--order", "signal")},
        2,
        ("signal",),
    ),
    Bad("unknown order", _flags("--order", "random"), 2, ("--order 'random'", "shuffle:SEED")),
    Bad("nothing left", _flags("--chroms", "chrZ"), 3, ("none of 12 regions is left", "chrZ")),
    Bad("exclusions from stdin", _flags("--exclude", "-"), 2, ("--exclude", "standard input")),
    Bad("no CUDA device", _flags("--device", "cuda:99"), 2, ("--device cuda:99",)),
    Bad("unknown device", _flags("--device", "gpu"), 2, ("--device gpu", "cpu")),
    Bad("unknown format", _flags("--formats", "h5,bw"), 2, ("bw", "bigwig")),
    Bad("genome without regions", lambda f, i: {"regions": None}, 2, ("--regions is missing",)),
    Bad(
        "bigWig of a FASTA",
        lambda f, i: {
            "genome": None,
            "regions": None,
            "flags": ("-f", i / "genome.fa", "--formats", "bigwig"),
        },
        2,
        ("bigWig needs a genome",),
    ),
    Bad(
        "FASTA records differ",
        lambda f, i: {"genome": None, "regions": None, "flags": ("-f", i / "genome.fa")},
        3,
        ("chrB", "one length"),
    ),
    Bad("output is a folder", _output("", lambda out: None), 2, ("is a folder", "run1")),
    Bad(
        "output below a file",
        _output("file/run", lambda out: _file(out / "file", "x")),
        2,
        ("file is a file, not a folder",),
    ),
    Bad("no such output folder", _output("none/run"), 2, ("none does not exist", "create")),
    Bad("output that the kernel refuses", _in_proc, 2, ("Cannot write /proc/run.partial.lock",)),
    Bad("output name too long", _output("x" * 240), 2, ("too long",)),
    Bad(
        "folder of an output's name",
        _output("run", lambda out: (out / "run.run.json").mkdir()),
        2,
        ("run.run.json is a folder",),
    ),
    Bad(
        "foreign .partial",
        _output("run", lambda out: _file(_folder(out / "run.partial") / "mine", "x")),
        2,
        ("run.partial", "not made by dlgenome"),
    ),
    Bad("no such config", _flags("--config", "quik"), 2, ("--config quik", "quick")),
)


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input_is_one_line_that_says_what_and_where(
    bad: Bad, attribute: Attribute, inputs: Path, tmp_path: Path
) -> None:
    given = bad.make(tmp_path, inputs)
    (tmp_path / "out").mkdir(exist_ok=True)
    flags, output = given.pop("flags", ()), given.pop("output", tmp_path / "out" / "run")
    before = set(tmp_path.rglob("*"))
    result = attribute("-o", output, *flags, **given)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == bad.exit_code, result.stderr
    assert result.stdout == ""
    assert len(errors) == 1
    assert all(line.startswith(("Error: ", "Warning: ")) for line in result.stderr.splitlines())
    for words in bad.words:
        assert words.lower() in errors[0].lower()
    # An index beside a FASTA is the only thing that a run without output may leave behind.
    assert all(path.suffix == ".fai" for path in set(tmp_path.rglob("*")) - before)


def test_an_unknown_key_of_a_configuration_names_the_nearest(attribute: Attribute, tmp_path: Path) -> None:
    config = _file(tmp_path / "run.yaml", "seed: 3\nreference: zeros\n")
    result = attribute("-o", tmp_path / "run", "--config", config)
    assert result.exit_code == 2
    assert f"{config}, line 2: `reference` is not a setting; the nearest is `references`" in result.stderr


def test_a_configuration_cannot_choose_code(attribute: Attribute, tmp_path: Path) -> None:
    config = _file(tmp_path / "run.yaml", "architecture: os:system\n")
    result = attribute("-o", tmp_path / "run", "--config", config)
    assert result.exit_code == 2
    assert "give --architecture on the command line" in result.stderr
