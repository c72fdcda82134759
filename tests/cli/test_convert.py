"""`dlgenome convert`: a checkpoint becomes one file that needs no flags and predicts the same."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import save_file

from dlgenome_cli.main import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def basset(tmp_path: Path) -> tuple[Path, list[str]]:
    """Bare weights of a small Basset, and the flags that they need."""
    from dlgenome.model.architectures.basset import Basset

    torch.manual_seed(0)
    sizes = {"n_filters": [6, 5, 4], "kernel_sizes": [9, 5, 3], "n_hidden": [12], "n_outputs": 2}
    module = Basset(**sizes, input_length=300)  # type: ignore[arg-type]
    torch.save(module.state_dict(), tmp_path / "basset.pth")
    flags = ["--architecture", "basset", "--architecture-args", json.dumps({"input_length": 300})]
    return tmp_path / "basset.pth", flags


def test_written_file_describes_itself_and_needs_no_flags(
    basset: tuple[Path, list[str]], tmp_path: Path
) -> None:
    model, flags = basset
    output = tmp_path / "basset.safetensors"
    result = run("convert", model, *flags, "--alphabet", "AGCT", "-t", "index:1", "-o", output)
    assert result.exit_code == 0, result.stderr
    assert "basset, " in result.stdout
    assert "largest difference 0.0e+00" in result.stdout
    with safe_open(output, framework="pt") as stream:
        said = stream.metadata()
    assert (said["architecture"], said["alphabet"], said["targets"]) == ("basset", "AGCT", '["index:1"]')
    assert json.loads(said["arguments"])["input_length"] == 300
    found = json.loads(run("inspect", output, "--json").stdout)
    assert (found["architecture"], found["input_length"], found["alphabet"]) == ("basset", 300, "AGCT")
    assert found["targets"] == found["inspected_targets"] == ["index:1"]
    assert found["command"].startswith(
        f"dlgenome attribute -m {output} -g GENOME.fa -r REGIONS.bed -t index:1"
    )
    told = run("inspect", output).stdout
    for words in (
        "it is      Basset, a classifier of chromatin accessibility",
        "input      300 bases, in the order AGCT",
        "sees       logits: 2",
        "explain    dlgenome attribute -m",
    ):
        assert words in told


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_a_network_of_ones_own_becomes_a_program(inputs: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"linear{suffix}"
    flags = ["--architecture", f"{inputs / 'linear.py'}:linear", "--window", "100"]
    result = run("convert", inputs / "linear.pt", *flags, "--alphabet", "TGCA", "-o", output)
    assert result.exit_code == 0, result.stderr
    found = json.loads(run("inspect", output, "--json").stdout)
    assert (found["kind"], found["input_length"], found["alphabet"]) == (
        output.suffix.removeprefix("."), 100, "ACGT",
    )  # fmt: skip
    assert found["architecture"] == "exported program"
    assert found["targets"] == ["index:0 .. index:2"]
    assert found["title"].endswith("linear.py:linear")
    assert [entry.name for entry in tmp_path.iterdir()] == [output.name]


def test_a_keras_file_becomes_a_safe_file(tmp_path: Path) -> None:
    packed = Path(__file__).parents[1] / "model" / "keras" / "files" / "chrombpnet_nobias.keras2.h5.gz"
    (tmp_path / "nobias.h5").write_bytes(gzip.decompress(packed.read_bytes()))
    result = run("convert", tmp_path / "nobias.h5", "-o", tmp_path / "nobias.safetensors")
    assert result.exit_code == 0, result.stderr
    before, after = (
        json.loads(run("inspect", tmp_path / name, "--json").stdout)
        for name in ("nobias.h5", "nobias.safetensors")
    )
    for entry in ("title", "input_length", "outputs", "output_names", "targets", "reaches"):
        assert after[entry] == before[entry]


def test_a_header_whose_size_begins_as_a_pickle_does_is_read(inputs: Path, tmp_path: Path) -> None:
    path, source = tmp_path / "padded.safetensors", inputs / "bpnet.safetensors"
    with safe_open(source, framework="pt") as stream:
        said = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    for padding in range(0, 256, 8):
        save_file(tensors, path, metadata=said | {"note": "x" * padding})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    result = run("inspect", path)
    assert result.exit_code == 0, result.stderr
    assert "bpnet (safetensors)" in result.stdout


def test_a_model_of_images_is_named_and_refused(tmp_path: Path) -> None:
    packed = Path(__file__).parents[1] / "model" / "keras" / "files" / "images.keras2.h5.gz"
    (tmp_path / "images.h5").write_bytes(gzip.decompress(packed.read_bytes()))
    result = run("inspect", tmp_path / "images.h5")
    assert result.exit_code == 5
    assert "no DNA sequence" in result.stderr


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("program", "null", "its metadata has none that can be read"),
        ("program", "{}", "is a damaged program"),
        ("program", " " * (2**25 + 1), "has 33,554,433 characters"),
        ("program", '{"graph": {', "entry `program` of the file's metadata is not JSON"),
        ("outputs", "{}", "its metadata has none that can be read"),
        ("node", "torch.ops.aten.from_file.default", "from_file"),
        ("node", "os.system", "os.system"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused(
    inputs: Path, tmp_path: Path, entry: str, value: str, message: str
) -> None:
    flags = ["--architecture", f"{inputs / 'linear.py'}:linear", "--window", "100"]
    path = tmp_path / "linear.safetensors"
    assert run("convert", inputs / "linear.pt", *flags, "-o", path).exit_code == 0
    with safe_open(path, framework="pt") as stream:
        said = stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    if entry == "node":
        program = json.loads(said["program"])
        program["graph"]["nodes"][0]["target"] = value
        said["program"] = json.dumps(program)
    else:
        said[entry] = value
    save_file(tensors, path, metadata=said)
    result = run("inspect", path)
    assert result.exit_code in (3, 5)
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("suffix", [".pt2", ".safetensors"])
def test_scores_of_the_written_file_are_those_of_the_checkpoint(
    attribute: object, inputs: Path, tmp_path: Path, read_scores: object, suffix: str
) -> None:
    output = tmp_path / f"linear{suffix}"
    flags = ["--architecture", f"{inputs / 'linear.py'}:linear", "--window", "100"]
    assert run("convert", inputs / "linear.pt", *flags, "-o", output).exit_code == 0
    scores = []
    for name, model, words in (("before", inputs / "linear.pt", flags), ("after", output, [])):
        result = attribute("-o", tmp_path / name, "-t", "index:1", *words, model=model)  # type: ignore[operator]
        assert result.exit_code == 0, result.stderr
        (path,) = tmp_path.glob(f"{name}*.h5")
        scores.append(read_scores(path))  # type: ignore[operator]
    names = [
        name
        for name, value in scores[0].items()
        if name.startswith(("shap", "hyp", "projected")) and value.size
    ]
    assert names
    for name in names:
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (("{inputs}/bpnet.safetensors", "-o", "{out}/x.onnx"), 2, "end the name in .safetensors"),
        (("{inputs}/bpnet.safetensors", "-o", "{out}/none/x.pt2"), 2, "there is no folder"),
        (("{inputs}/bpnet.safetensors", "-o", "{inputs}/bpnet.safetensors"), 2, "--overwrite"),
        (("{inputs}/genome.fa", "-o", "{out}/x.pt2"), 3, "is a text file"),
        (("{inputs}/linear.pt", "-o", "{out}/x.pt2"), 2, "say which with --architecture"),
        (("{inputs}/bpnet.safetensors", "-o", "{out}/x.pt2", "-t", "index:9"), 2, "choose one with output"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], exit_code: int, message: str, inputs: Path, tmp_path: Path
) -> None:
    before = (inputs / "bpnet.safetensors").read_bytes()
    result = run("convert", *(word.format(inputs=inputs, out=tmp_path) for word in words))
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
    assert result.stderr.count("Error: ") == 1
    assert list(tmp_path.iterdir()) == []
    assert (inputs / "bpnet.safetensors").read_bytes() == before


def test_a_file_that_predicts_something_else_is_removed(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlgenome.model.safe_files import save_safetensors
    from dlgenome.pipeline import conversion

    def spoilt(module: torch.nn.Module, *arguments: object, **keywords: object) -> None:
        with torch.no_grad():
            next(module.parameters()).mul_(1.01)
        save_safetensors(module, *arguments, **keywords)  # type: ignore[arg-type]
        with torch.no_grad():
            next(module.parameters()).mul_(1 / 1.01)

    monkeypatch.setattr(conversion, "save_safetensors", spoilt)
    result = run("convert", inputs / "bpnet.safetensors", "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 3
    assert "predictions of the written file differ" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_description_that_makes_no_sense_is_refused(inputs: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(inputs / "bpnet.safetensors")
    for entry, value, message in (
        ("alphabet", "ACGU", "in the order ACGU"),
        ("targets", '"counts"', "its targets are counts"),
        ("targets", "[", "entry `targets` of the file's metadata is not JSON"),
        ("arguments", "[1]", "is not a JSON object"),
    ):
        save_file(tensors, tmp_path / "m.safetensors", metadata={"architecture": "bpnet", entry: value})
        result = run("inspect", tmp_path / "m.safetensors")
        assert result.exit_code == 3
        assert message in result.stderr


@pytest.mark.real
def test_a_real_checkpoint_is_converted(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "models" / "GATA2.torch"
    output = tmp_path / "gata2.safetensors"
    result = run("convert", source, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert "largest difference 0.0e+00" in result.stdout
    assert run("convert", output, "-o", tmp_path / "gata2.pt2").exit_code == 0
    program = json.loads(run("inspect", tmp_path / "gata2.pt2", "--json").stdout)
    assert (program["output_names"], program["title"][:5]) == (["profile", "counts"], "BPNet")
    found = json.loads(run("inspect", output, "--json").stdout)
    assert (found["architecture"], found["arguments"]["trimming"]) == ("bpnet", 557)
    assert found["reaches"][0] == {"field": 1115, "window": [557, 1557], "bin_size": 1}


@pytest.mark.parametrize("suffix", ["safetensors", "pt2"])
def test_torchscript_becomes_a_program(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv1d(4, 3, 5), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(48, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module.eval()).save(str(tmp_path / "ts.pt"))  # type: ignore[no-untyped-call]
    output = tmp_path / f"plain.{suffix}"
    result = run("convert", tmp_path / "ts.pt", "--trust-pickle", "--window", 20, "-o", output)
    assert result.exit_code == 0, result.stderr
    told = run("inspect", output)
    assert told.exit_code == 0, told.stderr
    assert "aten.gelu" in told.stdout
