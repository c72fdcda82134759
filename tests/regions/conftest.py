"""Small files of every kind that the reading rooms meet, and the real ones where they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from Bio import bgzf

from dlgenome.regions.bed import RegionTable, read_regions
from dlgenome.regions.fasta import Genome

WriteBytes = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteBytes:
    """Writes a file of this name and content into the test's folder."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def bgzip(tmp_path: Path) -> WriteBytes:
    """Writes a file of this name in bgzip's format."""

    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        with bgzf.BgzfWriter(str(path), "wb") as stream:  # type: ignore[no-untyped-call]
            stream.write(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def bed(write: WriteBytes) -> Callable[[str], RegionTable]:
    """The table of a BED file with this text."""
    return lambda text: read_regions(write("regions.bed", text))


@pytest.fixture
def genome(write: WriteBytes) -> Iterator[Genome]:
    """Two contigs of 20 and 10 bases, wrapped at 8."""
    with Genome(
        write("genome.fa", ">chr1\nACGTACGT\nAACCGGTT\nACGT\n>chr2 second\nTTTTTGGG\nGG\n")
    ) as opened:
        yield opened


@pytest.fixture
def real(tmp_path: Path) -> Callable[[str], Path]:
    """A link, in the test's folder, to a real file; skips where the folder of real data is not there."""
    root = Path(os.environ.get("DLGENOME_SHARED", Path(__file__).parents[3] / "shared")) / "data"

    def link(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"real data not found: {root / name} (set DLGENOME_SHARED)")
        path = tmp_path / Path(name).name
        path.symlink_to(root / name)
        return path

    return link
