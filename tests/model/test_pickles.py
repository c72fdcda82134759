"""Files that would run code when loaded are refused by name, and run nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlgenome.errors import InputError
from dlgenome.model.checkpoint import load_model


class _Hostile:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.victim), "w"))


def _save_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def _save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _save_plain(protocol: int) -> Callable[[Any, Path], None]:
    def save(value: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(value, protocol=protocol))

    return save


SAVERS = {"zip": _save_zip, "legacy": _save_legacy, "plain 2": _save_plain(2), "plain 5": _save_plain(5)}


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("nested", [True, False])
def test_hostile_pickle_is_refused_without_running(
    tmp_path: Path, saver: Callable[[Any, Path], None], nested: bool
) -> None:
    victim, path = tmp_path / "written", tmp_path / "model.pt"
    hostile = _Hostile(victim)
    saver({"state_dict": {"weight": torch.zeros(2)}, "extra": hostile} if nested else hostile, path)
    with pytest.raises(InputError, match=r"would import io\.open.* and can run any code"):
        load_model(path)
    assert not victim.exists()


def test_hostile_pickle_of_protocol_0_is_refused_too(tmp_path: Path) -> None:
    victim, path = tmp_path / "written", tmp_path / "model.pt"
    _save_plain(0)(_Hostile(victim), path)
    with pytest.raises(InputError, match="text file"):
        load_model(path)
    assert not victim.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_object_inside_a_bpnet_lite_file_is_refused(
    tmp_path: Path, bpnetlite: Callable[[], Any], zipped: bool
) -> None:
    victim, path = tmp_path / "written", tmp_path / "model.torch"
    with bpnetlite() as classes:
        model = classes["BPNet"](4, 2, 1, 0)
        model.logger = _Hostile(victim)
        torch.save(model, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"would import io\.open"):
        load_model(path)
    assert not victim.exists()


def test_calls_on_the_results_of_calls_run_nothing_either(tmp_path: Path) -> None:
    victim, path = tmp_path / "written", tmp_path / "model.pt"
    # getattr(__import__("pathlib").Path(victim), "touch")() as a hand-made pickle
    code = b"\x80\x02c__builtin__\ngetattr\ncpathlib\nPath\nX%b%b\x85RX\x05\x00\x00\x00touch\x86R)R."
    name = str(victim).encode()
    path.write_bytes(code % (len(name).to_bytes(4, "little"), name))
    with pytest.raises(InputError, match=r"__builtin__\.getattr, pathlib\.Path"):
        load_model(path)
    assert not victim.exists()
    pickle.loads(path.read_bytes())  # so the test would notice: loading it does write
    assert victim.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_module_needs_the_flag(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Sequential(nn.Linear(4, 2)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"torch\.nn\.modules\.linear\.Linear.*--trust-pickle only if you trust"
    ):
        load_model(path)
    loaded = load_model(path, trust_pickle=True)
    assert isinstance(loaded.module[0], nn.Linear)  # type: ignore[index]
    assert (loaded.kind, loaded.architecture) == ("pickle", "torch.nn.modules.container.Sequential")


def test_trusted_pickle_of_a_missing_package_names_it(tmp_path: Path, bpnetlite: Callable[[], Any]) -> None:
    path = tmp_path / "model.torch"
    with bpnetlite() as classes:
        model = classes["ControlWrapper"](nn.Linear(1, 1))
        model.extra = _Hostile(tmp_path / "written")
        torch.save(model, path)
    with pytest.raises(InputError, match="needs bpnetlite, which cannot be imported"):
        load_model(path, trust_pickle=True)
