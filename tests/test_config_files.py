"""Configuration files and presets."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from dlgenome.config import RunConfig
from dlgenome.config_files import (
    config_path,
    field_of_key,
    file_keys,
    key_of_field,
    load_yaml,
    preset_path,
    presets,
)
from dlgenome.errors import InputError, UsageError
from dlgenome_cli.attribute import attribute

SOURCES: dict[str, Any] = {
    "model": Path("m.pt"),
    "output": Path("out"),
    "genome": Path("g.fa"),
    "regions": "peaks.bed",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", presets())
def test_every_preset_makes_a_run(name: str) -> None:
    values = load_yaml(preset_path(name))
    run = RunConfig(**SOURCES, **values)
    assert values
    assert all(getattr(run, field) == value for field, value in values.items())


def test_the_default_preset_says_what_the_defaults_are() -> None:
    assert RunConfig(**SOURCES, **load_yaml(preset_path("default"))) == RunConfig(**SOURCES)


def test_the_default_preset_names_every_setting() -> None:
    lines = preset_path("default").read_text(encoding="utf-8").splitlines()
    named = {line.removeprefix("# ").partition(":")[0] for line in lines}
    assert not set(file_keys()) - named


def test_a_misspelt_preset_is_told_its_neighbour_and_a_folder_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"quik: there is no such file.*Did you mean quick\?"):
        config_path("quik")
    with pytest.raises(UsageError, match="is a folder; give a YAML file"):
        config_path(str(tmp_path))


def test_presets_say_what_they_are_in_their_first_line() -> None:
    for name in presets():
        assert preset_path(name).read_text(encoding="utf-8").startswith(f"# {name}: ")


def test_a_setting_may_be_written_with_dashes_or_underscores(tmp_path: Path) -> None:
    path = written(tmp_path, "n-references: 5\nbatch_size: 64\ntarget: index:0,1\nchroms: chr1,chr2\n")
    assert load_yaml(path) == {
        "n_references": 5,
        "batch_size": 64,
        "targets": ("index:0,1",),
        "chroms": ("chr1", "chr2"),
    }


def test_targets_that_are_no_functions_may_stand_in_a_file(tmp_path: Path) -> None:
    targets = ("counts", "a=profile-bpnet", "b = index: 0, 1", "output:1/contrast:0,1@2-5")
    text = "".join(f"- {target!r}\n" for target in targets)
    assert load_yaml(written(tmp_path, f"target:\n{text}"))["targets"] == targets


def test_contig_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "chroms: [1, 2, X]\n")) == {"chroms": ("1", "2", "X")}


def test_an_empty_file_and_an_empty_value_set_nothing(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "")) == {}
    assert load_yaml(written(tmp_path, "window:\n")) == {}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("seed: 1\nn-referenecs: 5\n", UsageError, ["line 2", "`n-referenecs`", "`n-references`"]),
        ("targets: counts\n", UsageError, ["`targets`", "nearest is `target`"]),
        ("seed: 1\nedge: pad\nseed: 2\n", UsageError, ["line 3", "second time"]),
        ("batch-size: 1\nbatch_size: 2\n", UsageError, ["line 2", "second time"]),
        ("architecture: my.module:build\n", UsageError, ["line 1", "--architecture on the command line"]),
        ("architecture_args: '{}'\n", UsageError, ["--architecture-args on the command line"]),
        ("trust-pickle: true\n", UsageError, ["--trust-pickle on the command line"]),
        (
            "target: evil.py:run\n",
            UsageError,
            ["`evil.py:run` is a function", "--target on the command line"],
        ),
        ("target: [counts, n = os :system]\n", UsageError, ["`n = os :system` is a function"]),
        ("seed: [1, 2]\n", UsageError, ["line 1", "`seed` takes one value"]),
        ("target: [{a: b}]\n", UsageError, ["`target` takes a list"]),
        ("- seed\n", InputError, ["key: value"]),
        ("seed: [1\n", InputError, ["line 2", "not YAML"]),
        ("seed: !!python/object/apply:os.system ['true']\n", InputError, ["line 1", "not YAML"]),
    ],
)
def test_a_bad_file_names_the_line_and_the_remedy(
    tmp_path: Path, text: str, error: type[Exception], words: list[str]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(error) as caught:
        load_yaml(path)
    message = str(caught.value)
    assert str(path) in message
    assert all(word in message for word in words), message
    assert "\n" not in message


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 20)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        LAUGHS + "target: *i\n",
        "target: &a [*a]\n",
        "target: {a: &a {b: *a}}\n",
        MERGES.replace("i:", "target:"),
        "seed: " + "[" * 5000,
        "seed: " + "{a: " * 5000,
        "seed: " + "1" * 5000,
        "seed: 2001-99-99\n",
        "seed: !!int ''\n",
        "seed: !!float x\n",
        "seed: !!bool x\n",
        "seed: !!timestamp x\n",
        "seed: !!binary x\n",
        "seed: !!python/name:os.system\n",
        "seed: !!python/module:os\n",
        "seed: !!python/object/new:os.system [id]\n",
        "? [a, b]\n: 1\n",
        "? {a: b}\n: 1\n",
        "seed: \x00\n",
        "seed: 1\n---\nseed: 2\n",
        "%YAML 9.9\n---\nseed: 1\n",
        "&a a: *a\n",
        "x" * (2**20 + 1),
    ],
)
def test_no_file_takes_time_or_memory_or_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    path, started = tmp_path / "settings.yaml", time.monotonic()
    path.write_bytes(text.encode())
    with pytest.raises((InputError, UsageError)) as caught:
        load_yaml(path)
    assert time.monotonic() - started < 3
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_anchors_for_a_few_values_are_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, "chroms: &chosen [chr1, chr2]\norder: genome\n")
    assert load_yaml(path) == {"chroms": ("chr1", "chr2"), "order": "genome"}


def test_a_file_that_is_not_there_or_not_text_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_yaml(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(InputError, match="not UTF-8"):
        load_yaml(binary)


def test_no_file_can_set_what_runs_code() -> None:
    fields = {key_of_field(field.name) for field in dataclasses.fields(RunConfig) if field.name != "folds"}
    assert set(file_keys()) == fields - {"architecture", "architecture-args", "trust-pickle", "plugin"}


def test_every_key_of_a_file_is_a_flag_of_the_command() -> None:
    flags = {parameter.name for parameter in attribute.params}
    assert [key for key in file_keys() if field_of_key(key) not in flags] == []


def test_config_takes_a_file_before_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path("quick") == preset_path("quick")
    (tmp_path / "quick").write_text("seed: 3\n", encoding="utf-8")
    assert load_yaml(config_path("quick")) == {"seed": 3}
    with pytest.raises(UsageError, match=r"no such file.*chrombpnet-counts.*quick"):
        config_path("nowhere.yaml")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no preset `x`.*default"):
        preset_path("x")
