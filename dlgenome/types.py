"""The values that travel between rooms.

Coordinates are 0-based and half-open everywhere. Bases are ordered A, C, G, T. A sequence travels as
*codes*: one uint8 per base, 0-3 for A, C, G, T and 4 for anything else (N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
"""Base codes, shape (length,) or (..., length)."""

Strand = Literal["+", "-", "."]


@dataclass(frozen=True, slots=True)
class Region:
    """One data row of a BED file, or one record of a FASTA file."""

    chrom: str
    start: int
    end: int
    name: str = "."
    score: int = 0
    strand: Strand = "."
    signal: float = 0.0
    p_value: float = -1.0
    q_value: float = -1.0
    summit: int = -1
    """Absolute position of the summit, or -1 where the file names none."""
    input_row: int = 0
    """0-based position among the data rows of the input."""
    line: int = 0
    """1-based line in the input file."""


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of a chromosome that the model sees; ``start`` may be negative when edges are padded."""

    region: Region
    chrom: str
    start: int
    end: int
    center: int

    @property
    def length(self) -> int:
        """Bases in the window, padding included."""
        return self.end - self.start

    @property
    def place(self) -> str:
        """Where it lies, and what the input calls it, for messages: ``chr1:500-1500 (peak7)``."""
        return f"{self.chrom}:{self.start}-{self.end} ({self.region.name})"


@dataclass(frozen=True, slots=True)
class SkippedRegion:
    """A selected row that was not scored, and why in a few words."""

    region: Region
    reason: str


@dataclass(frozen=True, slots=True)
class Contig:
    """A sequence of the genome."""

    name: str
    length: int


@dataclass(frozen=True)
class RegionScores:
    """What one target says about one window; all arrays are on the host."""

    hypothetical: NDArray[np.float32] | None
    """(4, length): contribution each base would have; None for methods that have none."""
    projected: NDArray[np.float32]
    """(4, length): contribution of the base that is there, zero elsewhere."""
    prediction: float
    reference_prediction: float
    """Mean prediction over the references."""
    contribution_sum: float
    mean_abs_delta: float
    """Mean over references of |f(sequence) - f(reference)|: the scale of the completeness error."""
    n_references: int
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Further (4, length) arrays by the name of their HDF5 group: ``fold_sd``, ``reference_se``."""


@dataclass(frozen=True)
class ScoredWindow:
    """One finished row of a run: a window, its sequence, and one RegionScores per target name."""

    row: int
    """0-based place among the windows of the run; in the output files those that failed are left out."""
    window: Window
    codes: Codes
    scores: dict[str, RegionScores]


@dataclass(frozen=True)
class FailedWindow:
    """A window that could not be scored, although it should have been."""

    row: int
    """0-based place among the windows of the run."""
    window: Window
    reason: str
