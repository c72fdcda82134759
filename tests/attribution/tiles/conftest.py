"""Everything here needs a processor with tile registers."""

from __future__ import annotations

import pytest

from dlgenome.attribution.tiles.processor import has_tiles


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this processor cannot run."""
    if has_tiles():
        return
    missing = pytest.mark.skip(reason="the processor has no tile registers")
    for item in items:
        if item.path.parent.name == "tiles":
            item.add_marker(missing)
