"""Vectors are used only where the processor has them and numba compiles for them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llvmlite.binding import llvm_version_info
from numba.core.registry import cpu_target

from dlgenome.attribution.vectors import processor
from dlgenome.attribution.vectors.processor import compiles_for, has_narrow_vectors, has_vectors


@pytest.fixture
def asked_anew(with_vectors: None) -> Iterator[None]:
    """On a processor that has them, with what was answered forgotten."""
    for question in (has_vectors, has_narrow_vectors):
        question.cache_clear()
    yield
    for question in (has_vectors, has_narrow_vectors):
        question.cache_clear()


def test_they_are_found_where_the_system_names_them() -> None:
    told = os.environ.keys() & {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"}
    if told or llvm_version_info[0] < 20 or sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the system does not say what numba compiles for")
    known = set(Path("/proc/cpuinfo").read_text().split())
    assert has_vectors() == ("avx512f" in known)
    assert has_narrow_vectors() == ({"avx512f", "avx512bw", "avx512_vnni"} <= known)


def without(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where numba compiles for a processor that does not have one thing."""
    code = cpu_target.target_context.codegen()
    kind, name, features = code.magic_tuple()
    others = ",".join(f"-{missing[1:]}" if one == missing else one for one in features.split(","))
    assert others != features
    monkeypatch.setattr(type(code), "magic_tuple", lambda self: (kind, name, others))


@pytest.mark.usefixtures("asked_anew")
def test_not_where_numba_compiles_for_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    without("+avx512f", monkeypatch)
    assert not has_vectors()
    assert not has_narrow_vectors()


@pytest.mark.usefixtures("with_narrow_vectors", "asked_anew")
@pytest.mark.parametrize("missing", ["+avx512bw", "+avx512vnni"])
def test_without_shorts_they_are_of_float32_alone(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(missing, monkeypatch)
    assert has_vectors()
    assert not has_narrow_vectors()


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("room", "name", "value"),
    [(platform, "machine", lambda: "aarch64"), (processor, "llvm_version_info", (19, 1, 7))],
    ids=["machine", "compiler"],
)
def test_not_where_something_else_is_missing(
    room: Any, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, name, value)
    assert not has_vectors()
    assert not has_narrow_vectors()


@pytest.mark.usefixtures("with_vectors")
def test_all_that_is_asked_for_must_be_there() -> None:
    assert compiles_for()
    assert compiles_for("+avx512f", "+avx2")
    assert not compiles_for("+avx512f", "+what-none-has")
    assert not compiles_for("avx512")
