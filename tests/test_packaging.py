"""What is installed: versions, presets, and the neighbours that cannot live together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import dlgenome
import dlgenome_cli
import dlgenome_sim
from dlgenome import environment
from dlgenome.config_files import preset_path
from dlgenome.errors import UsageError


def test_the_presets_lie_where_the_package_says() -> None:
    folder = preset_path("default").parent
    package = Path(dlgenome.__file__).parent
    assert folder in (package / "configs", package.parent / "configs")


@pytest.mark.parametrize("package", [dlgenome, dlgenome_cli, dlgenome_sim])
def test_every_package_ships_its_types(package: object) -> None:
    assert (Path(str(package.__file__)).parent / "py.typed").is_file()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("installed", "refused"),
    [
        ({}, False),
        ({"modisco": "2.5.2"}, False),
        ({"modisco-lite": "3.0.0"}, False),
        ({"modisco": "2.5.2", "modisco-lite": "3.0.0"}, True),
    ],
)
def test_two_modiscos_at_once_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], refused: bool
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(environment, "version", version)
    if not refused:
        environment.check_modisco()
        return
    with pytest.raises(UsageError, match=r"2\.5\.2.*3\.0\.0.*pip uninstall modisco modisco-lite"):
        environment.check_modisco()
