"""Every operation that dlgenome accepts belongs to a family whose tests try each of its operations."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from dlgenome.attribution import rules
from dlgenome.attribution.registry import RULES

SHARED = {"composed": "elementwise", "batch_norm": "linear", "piecewise": "elementwise", "dense": "linear"}
"""Families tried in the file of another."""
FAMILIES = {
    module.name: importlib.import_module(f"{rules.__name__}.{module.name}")
    for module in pkgutil.iter_modules(rules.__path__)
}


@pytest.mark.parametrize("operation", list(RULES), ids=str)
def test_every_operation_is_tried_in_the_tests_of_its_family(operation: Any) -> None:
    families = [name for name, module in FAMILIES.items() if operation in getattr(module, "RULES", {})]
    files = [Path(__file__).with_name(f"test_{SHARED.get(name, name)}.py") for name in families]
    assert any(file.is_file() and "_has_a_case" in file.read_text() for file in files), families
