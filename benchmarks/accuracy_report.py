"""How far each precision is from float64, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.accuracy import Accuracy
from benchmarks.report import table

HEADER = (
    "model",
    "target",
    "precision",
    "regions",
    "difference, median",
    "difference, largest",
    "correlation, lowest",
)
DEFINITION = (
    "difference: largest of any hypothetical contribution of a region from float64, over the largest "
    "contribution of the region"
)
IMITATED = (
    "imitated: no CUDA device computed this; operands of products that it would take as tf32 were rounded so "
    "on the processor"
)
_PERCENT_FROM = 1e-4


def text(measured: Sequence[Accuracy]) -> str:
    """A row for every model, target and precision, and what its columns mean."""
    rows = [
        (
            one.model,
            one.target,
            one.precision,
            str(len(one.differences)),
            _share(median(one.differences)),
            _share(max(one.differences)),
            f"{min(one.correlations):.6f}",
        )
        for one in measured
    ]
    notes = [DEFINITION] + ([IMITATED] if any(one.imitated for one in measured) else [])
    return "\n\n".join((table(HEADER, rows), *notes))


def _share(value: float) -> str:
    return f"{100 * value:.2g} %" if value >= _PERCENT_FROM else f"{value:.1e}"


def as_json(facts: Mapping[str, Any], measured: Sequence[Accuracy]) -> str:
    """Every region of every row."""
    rows = [
        {
            **asdict(one),
            "median_difference": median(one.differences),
            "largest_difference": max(one.differences),
            "lowest_correlation": min(one.correlations),
        }
        for one in measured
    ]
    return json.dumps({"facts": facts, "accuracies": rows}, indent=2) + "\n"
