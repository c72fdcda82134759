"""One BED line at a time: what each column must hold."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from dlgenome.errors import InputError
from dlgenome.regions.files import UTF8_MARK
from dlgenome.regions.table import NARROW_PEAK_COLUMNS, RegionPacker, RegionTable

logger = logging.getLogger(__name__)

_MAX_COLUMNS = 12
_MAX_DIGITS = 12
_MAX_SCORE = 1000
_LONGEST_SHOWN = 60
_MAX_LINES = 2**31 - 1
LONGEST_LINE = 2**20
"""Bytes; a BED12 line with a thousand blocks has a twentieth of that."""
_STRAND_CODES = {b"+": 0, b"-": 1, b".": 2, b"*": 2, b"": 2}
_NO_PEAK = (0.0, -1.0, -1.0), -1
"""Signal, p and q value, and the summit, of a region in any other format than narrowPeak."""
_NO_VALUE = frozenset({b"", b".", b"NA", b"nan", b"NaN"})


class RowReader:
    """The rows of the table while they are read, and the line that is being read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.line = 0
        self.columns = 0
        self.scores_not_numbers = 0
        self.chroms: dict[bytes, int] = {}
        self.rows = RegionPacker()

    def read_lines(self, lines: Iterable[bytes]) -> None:
        """Add every data row of these lines; InputError names the line that cannot be trusted."""
        for line in lines:
            self.line += 1
            if len(line) > LONGEST_LINE:
                raise self._error("the line is longer than any of a BED file; check that it is one")
            if self.line > _MAX_LINES:
                raise self._error(f"the file has more than {_MAX_LINES:,} lines; split it")
            if self.line == 1:
                line = line.removeprefix(UTF8_MARK)
            row = line.rstrip(b"\r\n")
            if b"\0" in row:
                raise self._error("the line holds a zero byte, so this is no text; copy the file again")
            if not row.strip() or row.startswith(b"#") or row.split(None, 1)[0] in (b"track", b"browser"):
                continue
            self._add(row.split(b"\t"))

    def _add(self, fields: list[bytes]) -> None:
        self._check_width(fields)
        start, end = self._interval(fields)
        optional = fields[3:] + [b""] * (7 - len(fields[3:]))
        is_narrow_peak = len(fields) == NARROW_PEAK_COLUMNS
        chrom_code = self._chrom_code(fields[0].strip())
        score, strand = self._score(optional[1]), self._strand(optional[2].strip())
        values, summit = _NO_PEAK
        if is_narrow_peak:
            values = (
                self._number(optional[3], "7 (signalValue)", 0.0),
                self._number(optional[4], "8 (pValue)", -1.0),
                self._number(optional[5], "9 (qValue)", -1.0),
            )
            summit = self._summit(optional[6].strip(), start, end)
        self.rows.add(
            chrom_code,
            start,
            end,
            optional[0] or b".",
            score=score,
            strand=strand,
            values=values,
            summit=summit,
            line=self.line,
        )

    def _check_width(self, fields: list[bytes]) -> None:
        count = len(fields)
        if count == 1 and len(fields[0].split()) >= 3:
            raise self._error(
                "the columns are separated by spaces; separate them with tabs, for example with "
                "awk -v OFS='\\t' '{$1=$1; print}'"
            )
        if fields[0].startswith(b">"):
            raise self._error("looks like FASTA; regions are a BED file, sequences go to --genome or --fasta")
        if count < 3:
            raise self._error(
                f"{_counted(count)}; BED needs chromosome, start and end with tabs between them"
            )
        if count > _MAX_COLUMNS:
            raise self._error(f"{count} columns, but BED has at most 12; keep the first ones with cut -f1-6")
        self.columns = self.columns or count
        if count != self.columns:
            raise self._error(
                f"{_counted(count)}, but the lines above have {self.columns}; give every line the same number"
            )

    def _interval(self, fields: list[bytes]) -> tuple[int, int]:
        first, second = fields[1].strip(), fields[2].strip()
        if first.isdigit() and second.isdigit() and len(first) <= _MAX_DIGITS and len(second) <= _MAX_DIGITS:
            start, end = int(first), int(second)
            if start < end:
                return start, end
            raise self._error(
                f"start {start} is not before end {end}; BED counts from 0 and leaves the end out, "
                "so base 100 of a chromosome is 99 to 100"
            )
        if not any(byte in b"0123456789" for byte in first + second):
            raise self._error(
                f"looks like a header ({_shown(first)}, {_shown(second)} where start and end belong); "
                "delete the line or begin it with #"
            )
        name, field = ("start", first) if not first.isdigit() else ("end", second)
        raise self._error(f"{name} {_shown(field)} {_why_not_a_position(field)}")

    def _chrom_code(self, chrom: bytes) -> int:
        code = self.chroms.get(chrom)
        if code is None:
            if not chrom:
                raise self._error("column 1 (chromosome) is empty; write the chromosome's name there")
            code = self.chroms[chrom] = len(self.chroms)
        return code

    def _score(self, field: bytes) -> int:
        if field in _NO_VALUE:
            return 0
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            self.scores_not_numbers += 1
            return 0
        return round(min(max(value, 0.0), float(_MAX_SCORE)))

    def _strand(self, field: bytes) -> int:
        code = _STRAND_CODES.get(field)
        if code is None:
            raise self._error(
                f"strand {_shown(field)} (column 6) is not +, - or .; "
                "if the column holds something else, keep the first three with cut -f1-3"
            )
        return code

    def _number(self, field: bytes, column: str, default: float) -> float:
        if field in _NO_VALUE:
            return default
        try:
            value = float(field)
        except ValueError:
            raise self._error(
                f"{_shown(field)} in column {column} is not a number; 10 columns are read as narrowPeak, "
                "for any other table keep the first ones with cut -f1-6"
            ) from None
        return default if math.isnan(value) else value

    def _summit(self, field: bytes, start: int, end: int) -> int:
        if field == b"-1":
            return -1
        if not field.isdigit() or len(field) > _MAX_DIGITS:
            raise self._error(
                f"summit {_shown(field)} (column 10) is not a whole number of bases from the start; "
                "write -1 where a peak has no summit"
            )
        # ENCODE's IDR peaks hold summits that equal the length: the base after the region, kept as it is.
        if int(field) > end - start:
            raise self._error(
                f"summit {int(field)} (column 10) lies outside the region of {end - start} bases; "
                "it counts from the region's start, not from the chromosome's"
            )
        return start + int(field)

    def _error(self, what: str) -> InputError:
        return InputError(f"{self.source}:{self.line}: {what}.")

    def report_scores(self) -> None:
        """Log how many scores were not numbers; they change nothing but the score column written back."""
        if self.scores_not_numbers:
            logger.warning(
                "%s: %d values in column 5 (score) are not numbers; they are read as 0.",
                self.source,
                self.scores_not_numbers,
            )

    def table(self, sha256: str) -> RegionTable:
        """The finished table."""
        return RegionTable(
            source=self.source,
            sha256=sha256,
            columns=self.columns,
            chrom_names=tuple(name.decode("utf-8", "replace") for name in self.chroms),
            pieces=self.rows.finish(),
        )


def _shown(field: bytes) -> str:
    shown = repr(field[:_LONGEST_SHOWN].decode("utf-8", "replace"))
    return shown if len(field) <= _LONGEST_SHOWN else f"{shown} and so on"


def _counted(columns: int) -> str:
    return "1 column" if columns == 1 else f"{columns} columns"


def _why_not_a_position(field: bytes) -> str:
    try:
        value = float(field)
    except ValueError:
        return "is not a whole number; write it in digits only"
    if value < 0:
        return "is negative; the first base of a chromosome is 0"
    if field.isdigit() or value >= 10**_MAX_DIGITS:
        return "lies beyond any chromosome; check the column"
    if value.is_integer():
        return f"is not a plain whole number; write it as {int(value)}"
    return "is not a whole number; write it in digits only"
