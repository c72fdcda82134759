"""docs/cli.md says what --help says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    if not DOCS.is_dir():
        pytest.skip("docs/ is only in a checkout")
    made = runpy.run_path(str(DOCS / "make_cli_reference.py"))["reference"]()
    assert made == (DOCS / "cli.md").read_text(encoding="utf-8"), "run `make docs` (make_cli_reference.py)"
