"""Tiles are used only where the processor has them, numba compiles for them and the system permits it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core.registry import cpu_target

from dlgenome.attribution.tiles import processor
from dlgenome.attribution.tiles.processor import has_tiles
from dlgenome.attribution.vectors import processor as of_numba


@pytest.fixture(autouse=True)
def _asked_anew(with_tiles: None) -> Iterator[None]:
    has_tiles.cache_clear()
    yield
    has_tiles.cache_clear()


def test_they_are_found_where_the_system_names_them() -> None:
    assert has_tiles()
    assert {"amx_tile", "amx_bf16", "avx512_bf16"} <= set(Path("/proc/cpuinfo").read_text().split())


@pytest.mark.parametrize("missing", ["+amx-tile", "+amx-bf16", "+avx512f", "+avx512bf16"])
def test_not_where_numba_compiles_for_another_processor(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = cpu_target.target_context.codegen()
    kind, name, features = code.magic_tuple()
    others = features.replace(missing, missing.replace("+", "-"))
    monkeypatch.setattr(type(code), "magic_tuple", lambda self: (kind, name, others))
    assert not has_tiles()


@pytest.mark.parametrize(
    ("room", "name", "value"),
    [
        (sys, "platform", "darwin"),
        (platform, "machine", lambda: "aarch64"),
        (of_numba, "llvm_version_info", (15, 0, 7)),
        (processor, "_is_permitted", lambda: False),
    ],
    ids=["system", "machine", "compiler", "permission"],
)
def test_not_where_something_else_is_missing(
    room: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, name, value)
    assert not has_tiles()
