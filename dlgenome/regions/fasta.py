"""Base codes of any stretch of a genome, from plain or bgzip FASTA; no chromosome is ever held in memory."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dlgenome.encoding import N_CODE, encode
from dlgenome.errors import InputError, first_line
from dlgenome.provenance import genome_digest
from dlgenome.regions.fasta_index import READ_ERRORS, open_indexed, read_bases
from dlgenome.regions.table import RegionPacker, RegionTable
from dlgenome.types import Codes, Contig

logger = logging.getLogger(__name__)

_AMBIGUITY, _URACIL, _NOT_NUCLEOTIDE = 5, 6, 7
_T_CODE = 3
_AMINO_ACIDS_ONLY = "EFILPQZXJO*"
_SAMPLED_CONTIGS = 200
_SAMPLED_BASES = 1000


def _class_of_each_byte() -> Codes:
    table = encode(bytes(range(256)))
    table[table == N_CODE] = _NOT_NUCLEOTIDE
    for letters, value in (("Nn", N_CODE), ("RYSWKMBDHVryswkmbdhv", _AMBIGUITY), ("Uu", _URACIL)):
        table[[ord(letter) for letter in letters]] = value
    return table


_CLASS_OF_BYTE = _class_of_each_byte()


class Genome:
    """An open FASTA file; a context manager. One thread at a time may fetch.

    Lower-case (soft-masked) bases count like upper case; IUPAC ambiguity codes become N and are counted;
    U is read as T, with one warning. Opening raises InputError for a file that is not nucleotide FASTA.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.non_acgtn_count = 0
        """Ambiguity codes turned into N so far, counted each time they are fetched."""
        self._warned_of_uracil = False
        self._faidx = open_indexed(self.path)
        self.contigs: tuple[Contig, ...] = tuple(
            Contig(name, record.rlen) for name, record in self._faidx.index.items()
        )
        """Every sequence, in the order of the file."""
        try:
            self._check_records()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._faidx.close()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the contig names and lengths, in file order."""
        return genome_digest((contig.name, contig.length) for contig in self.contigs)

    def __contains__(self, chrom: str) -> bool:
        return chrom in self._faidx.index

    def length(self, chrom: str) -> int:
        """Bases in a contig; InputError when the FASTA has none of that name."""
        if chrom not in self:
            raise InputError(f"{self.path}: there is no contig called {chrom!r} in this FASTA.")
        return int(self._faidx.index[chrom].rlen)

    def fetch(self, chrom: str, start: int, end: int) -> Codes:
        """Codes of ``end - start`` bases, N where the contig has none on either side, shape (end - start,).

        Raises InputError for an unknown contig, for letters that are not nucleotide codes, and when the file
        changed or vanished after it was opened.
        """
        codes = self._read(chrom, start, end)
        if codes.size and codes.max() > N_CODE:
            ambiguous = codes == _AMBIGUITY
            self.non_acgtn_count += int(np.count_nonzero(ambiguous))
            codes[ambiguous] = N_CODE
            self._replace_uracil(codes)
        return codes

    def _replace_uracil(self, codes: Codes) -> None:
        uracil = codes == _URACIL
        if uracil.any() and not self._warned_of_uracil:
            self._warned_of_uracil = True
            logger.warning("%s: holds U (RNA); every U is read as T.", self.path)
        codes[uracil] = _T_CODE

    def _read(self, chrom: str, start: int, end: int) -> Codes:
        """Classes of the letters: the codes, and above them what ``fetch`` still has to replace."""
        if end < start:
            raise ValueError(f"end {end} is before start {start}")
        length = self.length(chrom)
        first, last = min(max(start, 0), length), max(min(end, length), 0)
        codes = np.full(end - start, N_CODE, dtype=np.uint8)
        if first >= last:
            return codes
        inside = _CLASS_OF_BYTE[np.frombuffer(self._letters(chrom, first, last), dtype=np.uint8)]
        if inside.max() == _NOT_NUCLEOTIDE:
            self._refuse_letter(chrom, first, inside)
        codes[first - start : last - start] = inside
        return codes

    def _letters(self, chrom: str, start: int, end: int) -> bytes:
        changed = "the file changed, was cut or went away while it was read; put it back and run again"
        try:
            letters = read_bases(self._faidx, chrom, start, end)
        except READ_ERRORS as error:
            raise InputError(
                f"{self.path}: {chrom}:{start}-{end} cannot be read ({first_line(error)}); {changed}."
            ) from error
        if len(letters) != end - start or b">" in letters:
            raise InputError(f"{self.path}: {chrom}:{start}-{end} is not where the index says; {changed}.")
        return letters

    def _refuse_letter(self, chrom: str, start: int, classes: Codes) -> None:
        position = start + int(np.argmax(classes == _NOT_NUCLEOTIDE))
        letter = self._letters(chrom, position, position + 1).decode("latin-1")
        remedy = (
            "is this a protein FASTA? dlgenome reads DNA"
            if letter.upper() in _AMINO_ACIDS_ONLY
            else "write N where a base is unknown"
        )
        raise InputError(
            f"{self.path}: base {position + 1} of {chrom!r} is {letter!r}, not a nucleotide code; {remedy}."
        )

    def _check_records(self) -> None:
        """Refuse empty records, and proteins: a sample from the start and the middle of up to 200 contigs."""
        for contig in self.contigs:
            if "\0" in contig.name:
                raise InputError(
                    f"{self.path}: the name {contig.name!r} holds a zero byte; rename the record."
                )
            if not contig.length:
                raise InputError(f"{self.path}: record {contig.name!r} has no bases; remove it or fill it.")
        step = -(-len(self.contigs) // _SAMPLED_CONTIGS)
        for contig in self.contigs[::step]:
            for start in {0, contig.length // 2}:
                self._read(contig.name, start, min(start + _SAMPLED_BASES, contig.length))


def regions_of_records(genome: Genome) -> RegionTable:
    """Every record of a FASTA file as a region from 0 to its length, in file order.

    Raises InputError when the records differ in length, since one model sees them all.
    """
    rows = RegionPacker()
    first = genome.contigs[0]
    for code, contig in enumerate(genome.contigs):
        if contig.length != first.length:
            raise InputError(
                f"{genome.path}: record {contig.name!r} has {contig.length} bases but {first.name!r} has "
                f"{first.length}; sequences scored together must have one length."
            )
        rows.add(code, 0, contig.length, contig.name.encode())
    with genome.path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return RegionTable(
        source=str(genome.path),
        sha256=sha256,
        columns=0,
        chrom_names=tuple(contig.name for contig in genome.contigs),
        pieces=rows.finish(),
    )
