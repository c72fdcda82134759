"""A configuration, which may come with the data, cannot make the program run anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dlgenome_cli.main import cli


@pytest.mark.parametrize(
    "setting",
    [
        "architecture: CODE.py:make",
        "architecture: os:getcwd",
        "architecture-args: '{}'",
        "architecture_args: '{}'",
        "trust-pickle: true",
        "trust_pickle: yes",
        "plugin: CODE.py",
        "plugin: [CODE.py]",
        "plugins: [CODE.py]",
        "target: CODE.py:make",
        "target: [counts, 'mine = CODE.py:make']",
        "target: 'mine=CODE.py : make'",
        "target: !!python/name:os.system",
        "config: other.yaml",
        "debug: true",
        "model: !!python/object/apply:os.system ['touch written']",
    ],
)
def test_settings_that_could_run_code_are_refused(
    input_flags: tuple[object, ...], tmp_path: Path, setting: str
) -> None:
    victim, code = tmp_path / "written", tmp_path / "code.py"
    code.write_text(f"from pathlib import Path\nPath({str(victim)!r}).touch()\nRULES = {{}}\nmake = print\n")
    (tmp_path / "config.yaml").write_text(setting.replace("CODE.py", str(code)) + "\n")
    words = ["--config", tmp_path / "config.yaml", *input_flags, "-o", tmp_path / "run", "--dry-run"]
    done = CliRunner().invoke(cli, ["attribute", *map(str, words)])
    assert done.exit_code == (3 if "!!python" in setting else 2), done.output
    assert not victim.exists()
    assert "Traceback" not in done.output
