"""Inputs that look odd and work all the same: the scores are those of the plain inputs."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from Bio import bgzf
from click.testing import Result

Attribute = Callable[..., Result]


def _file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


Datasets = dict[str, Any]
Read = Callable[[Path], Datasets]


@pytest.fixture
def same_scores(
    attribute: Attribute, finished: Path, read_scores: Read, tmp_path: Path
) -> Callable[..., Result]:
    """Runs the command and requires the scores of the plain run, bit for bit."""

    def run(*flags: object, **given: object) -> Result:
        result = attribute("-o", tmp_path / "run", *flags, **given)
        assert result.exit_code == 0, result.stderr
        ours = read_scores(tmp_path / "run.counts_scores.h5")
        theirs = read_scores(Path(f"{finished}.counts_scores.h5"))
        for name in ("raw/seq", "shap/seq", "projected_shap/seq", "regions/start", "qc/prediction"):
            assert ours[name].tobytes() == theirs[name].tobytes(), name
        return result

    return run


def _rewritten(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    return _file(target, change(source.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"track type=narrowPeak\nbrowser position chrA\n# a comment\n\n" + text,
        gzip.compress,
    ],
    ids=["byte order mark", "CRLF", "track, browser and comment lines", "gzip"],
)
def test_harmless_oddities_of_regions_change_nothing(
    change: Callable[[bytes], bytes], same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    assert not same_scores(regions=_rewritten(inputs / "peaks.narrowPeak", tmp_path / "odd", change)).stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.swapcase().replace(b"CHRa", b"chrA").replace(b"CHRb", b"chrB"),
    ],
    ids=["CRLF", "soft-masked"],
)
def test_harmless_oddities_of_a_genome_change_nothing(
    change: Callable[[bytes], bytes], same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    assert not same_scores(genome=_rewritten(inputs / "genome.fa", tmp_path / "odd.fa", change)).stderr


def test_a_bgzip_genome_gives_the_same_scores(
    same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    with bgzf.BgzfWriter(str(tmp_path / "genome.fa.gz"), "wb") as stream:  # type: ignore[no-untyped-call]
        stream.write((inputs / "genome.fa").read_bytes())
    same_scores(genome=tmp_path / "genome.fa.gz")


def test_rna_is_read_as_dna_with_one_warning(
    same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    genome = _rewritten(inputs / "genome.fa", tmp_path / "rna.fa", lambda text: text.replace(b"T", b"U"))
    result = same_scores(genome=genome)
    assert result.stderr.count("\n") == 1
    assert "every U is read as T" in result.stderr


def test_ambiguity_codes_become_n_and_are_counted(
    attribute: Attribute, inputs: Path, tmp_path: Path, read_scores: Read
) -> None:
    summit = int((inputs / "peaks.narrowPeak").read_text().split()[1]) + int(
        (inputs / "peaks.narrowPeak").read_text().split("\n")[0].split("\t")[9]
    )
    lines = (inputs / "genome.fa").read_text().splitlines()
    line, column = 1 + summit // 60, summit % 60
    lines[line] = lines[line][:column] + "R" + lines[line][column + 1 :]
    genome = _file(tmp_path / "iupac.fa", "\n".join(lines) + "\n")
    result = attribute("-o", tmp_path / "run", "--limit", "2", genome=genome)
    assert result.exit_code == 0, result.stderr
    scores = read_scores(tmp_path / "run.counts_scores.h5")
    assert (scores["raw/seq"].sum(axis=1) == 0).nonzero()[1].tolist() == [50]
    assert (scores["projected_shap/seq"][0, :, 50] == 0).all()
    assert json.loads((tmp_path / "run.run.json").read_text())["ambiguous_bases_read_as_n"] == 1


def test_an_index_of_an_older_genome_is_rebuilt(
    same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    genome = _rewritten(
        inputs / "genome.fa", tmp_path / "genome.fa", lambda text: b">chr0\nACGTACGT\n" + text
    )
    stale = _rewritten(inputs / "genome.fa.fai", tmp_path / "genome.fa.fai", bytes)
    os.utime(stale, (1, 1))
    same_scores(genome=genome)
    assert stale.read_text().startswith("chr0\t8\t")


def test_a_genome_in_a_read_only_folder_needs_no_index(
    same_scores: Callable[..., Result], inputs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    genome = _rewritten(inputs / "genome.fa", folder / "genome.fa", bytes)
    folder.chmod(0o555)
    try:
        same_scores(genome=genome)
        assert list(folder.iterdir()) == [genome]
    finally:
        folder.chmod(0o755)


def test_a_checkpoint_saved_on_a_gpu_is_read_on_the_cpu(
    linear: Attribute, inputs: Path, tmp_path: Path, read_scores: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    weights = torch.load(inputs / "linear.pt", weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(weights, tmp_path / "gpu.pt")
    assert b"cuda:0" in (tmp_path / "gpu.pt").read_bytes()
    for name, model in (("gpu", tmp_path / "gpu.pt"), ("cpu", inputs / "linear.pt")):
        result = linear("-o", tmp_path / name, "-t", "index:0", "--limit", "1", model=model)
        assert result.exit_code == 0, result.stderr
    gpu, cpu = (read_scores(tmp_path / f"{name}.index-0_scores.h5") for name in ("gpu", "cpu"))
    assert gpu["shap/seq"].tobytes() == cpu["shap/seq"].tobytes()


def test_regions_on_missing_contigs_can_be_skipped(attribute: Attribute, tmp_path: Path) -> None:
    regions = _file(tmp_path / "some.bed", "chrQ\t5\t90\tlost\nchrA\t2000\t2200\tkept\n")
    result = attribute("-o", tmp_path / "run", "--skip-missing-contigs", regions=regions)
    assert result.exit_code == 0, result.stderr
    skipped = (tmp_path / "run.skipped_regions.tsv").read_text().splitlines()[1:]
    assert skipped == ["0\t1\tchrQ\t5\t90\tlost\tcontig not in FASTA"]
    assert (tmp_path / "run.interpreted_regions.bed").read_text().split("\t")[3] == "kept"
