"""References that are one column of base frequencies, the same at every position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlgenome.errors import UsageError
from dlgenome.types import Codes

FREQUENCY_TOLERANCE = 1e-3

Frequencies = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class FrequencyReferences:
    """One reference with the same frequencies of A, C, G and T everywhere; more would all be equal."""

    name: str
    frequencies: Frequencies

    @property
    def n_references(self) -> int:
        """Always one."""
        return 1

    @property
    def is_coded(self) -> bool:
        """Frequencies are not codes."""
        return False

    @property
    def path(self) -> Path | None:
        """Frequencies come from no file."""
        return None

    def draw(self, codes: Codes, input_row: int) -> NDArray[np.float32]:
        """The reference of one sequence of codes, (1, 4, length)."""
        references: NDArray[np.float32] = self.draw_batch(codes[np.newaxis], np.array([input_row]))[0]
        return references

    def draw_batch(self, codes: Codes, input_rows: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        """The references of (sequences, length) codes, (sequences, 1, 4, length); zero at N."""
        known = (codes < 4)[:, np.newaxis, np.newaxis, :]
        references: NDArray[np.float32] = known * np.array(self.frequencies, dtype=np.float32)[:, np.newaxis]
        return references

    def close(self) -> None:
        """Nothing is open."""


def parse_frequencies(text: str) -> Frequencies:
    """Frequencies of A, C, G, T from ``0.3,0.2,0.2,0.3``, scaled to a sum of exactly 1.

    Raises UsageError where they are not four numbers from 0 up that sum to 1.
    """
    try:
        values = [float(field) for field in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or not all(math.isfinite(value) and value >= 0 for value in values):
        raise UsageError(
            f"--references frequency:{text} is not understood: give the frequencies of A, C, G and T, "
            "four numbers from 0 up, such as frequency:0.3,0.2,0.2,0.3"
        )
    total = math.fsum(values)
    if abs(total - 1) > FREQUENCY_TOLERANCE:
        raise UsageError(f"--references frequency:{text}: the frequencies sum to {total:g}, not to 1")
    adenine, cytosine, guanine, thymine = (value / total for value in values)
    return adenine, cytosine, guanine, thymine
