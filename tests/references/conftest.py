"""What the tests of references share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pytest

from dlgenome.types import Codes


@pytest.fixture(scope="session")
def encode() -> Callable[[str], Codes]:
    """Codes of a sequence written with letters."""
    return lambda letters: np.array(["ACGTN".index(letter) for letter in letters], dtype=np.uint8)


@pytest.fixture(scope="session")
def long_codes() -> Codes:
    """2114 bases that are the same wherever the tests run."""
    return np.frombuffer(hashlib.shake_256(b"references").digest(2114), dtype=np.uint8) % 4


@pytest.fixture(scope="session")
def standard_deviations_from_uniform() -> Callable[[Sequence[Hashable], Sequence[Hashable]], float]:
    """How far Pearson's chi-square of draws lies above its mean for draws uniform over all outcomes."""

    def measure(draws: Sequence[Hashable], outcomes: Sequence[Hashable]) -> float:
        observed = Counter(draws)
        assert set(observed) <= set(outcomes)
        expected = len(draws) / len(outcomes)
        statistic = sum((observed[outcome] - expected) ** 2 / expected for outcome in outcomes)
        freedom = len(outcomes) - 1
        return float((statistic - freedom) / np.sqrt(2 * freedom))

    return measure
