"""``run.json``: what is needed to reproduce a run, and what came of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlgenome.writers.disk import clear_write_errors


def write_run_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts as `json_text` has them."""
    with clear_write_errors(path):
        path.write_text(json_text(facts) + "\n", encoding="utf-8")


def json_text(facts: Mapping[str, Any]) -> str:
    """JSON with sorted keys; paths become text, dataclasses objects, NaN and infinity null."""
    return json.dumps(_plain(facts), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
