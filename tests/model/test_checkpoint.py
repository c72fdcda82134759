"""Bare weights: formats, architectures, and everything that can be wrong with them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlgenome.errors import InputError, UsageError
from dlgenome.model.architectures.basset import Basset
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.architectures.chrombpnet import ChromBPNet
from dlgenome.model.checkpoint import load_model
from dlgenome.model.safe_files import save_safetensors

FACTORY = """
import torch

def mlp(hidden=100):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(4000, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
    )

def text():
    return "a module"

class Reused(torch.nn.Linear):
    input_length = 7
"""


@pytest.fixture
def bpnet_file(tmp_path: Path) -> Path:
    path = tmp_path / "bpnet.pt"
    torch.save(BPNet(n_filters=4, n_layers=2).state_dict(), path)
    return path


@pytest.fixture
def factory_file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.real
def test_legacy_file_loads_into_the_users_factory(
    models: Path, factory_file: Path, one_hot: Callable[..., Tensor]
) -> None:
    loaded = load_model(models / "kipoi_pyt_only_weights.pth", architecture=f"{factory_file}:mlp")
    # printed by a plain torch.nn.Sequential with these weights
    expected = [0.049681, -0.165554, -0.450053]
    np.testing.assert_allclose(loaded.module(one_hot(23, 3, 1000))[:, 0], expected, atol=2e-5)
    assert (loaded.kind, loaded.input_length, loaded.outputs) == ("state-dict", None, ())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("around", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_state_dicts_are_recognised_in_their_usual_dress(
    tmp_path: Path, zipped: bool, around: str | None, prefix: str
) -> None:
    module, path = BPNet(n_filters=4, n_layers=2, n_control_tracks=1), tmp_path / "model.pt"
    state = {f"{prefix}{key}": tensor for key, tensor in module.state_dict().items()}
    value = {around: state, "epoch": 3, "loss": np.float64(0.5), "trimming": 20} if around else state
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path)
    assert loaded.architecture == "bpnet"
    assert loaded.arguments.get("trimming") == (20 if around else None)
    for key, tensor in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], tensor)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_chrombpnet_weights_are_recognised(tmp_path: Path) -> None:
    module = ChromBPNet(bias={"n_filters": 3, "n_layers": 1}, accessibility={"n_filters": 5, "n_layers": 2})
    torch.save(module.state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert loaded.architecture == "chrombpnet"
    assert loaded.n_parameters == sum(parameter.numel() for parameter in module.parameters())


def test_arguments_of_the_user_beat_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": BPNet(n_filters=4, n_layers=2).state_dict(), "trimming": 20}, path)
    loaded = load_model(path, architecture_args={"trimming": 30, "input_length": 500})
    assert (loaded.arguments["trimming"], loaded.input_length) == (30, 500)
    assert [note.split(";")[0] for note in loaded.notes] == ["taken for a bpnet"]


def test_basset_reads_its_sizes_off_the_weights(tmp_path: Path, one_hot: Callable[..., Tensor]) -> None:
    module = Basset((6, 5, 4), (9, 5, 3), (3, 4, 4), (12,), 7, input_length=300).eval()
    torch.save(module.state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt", architecture="basset", architecture_args={"input_length": 300})
    sequences = one_hot(3, 2, 300)
    torch.testing.assert_close(loaded.module(sequences), module(sequences), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"wrong shape hidden\.0\.0\.weight is \(12, 20\), not \(12, 44\)"):
        load_model(tmp_path / "model.pt", architecture="basset")


def test_own_safetensors_needs_no_flags(tmp_path: Path, one_hot: Callable[..., Tensor]) -> None:
    arguments = {"n_filters": [6, 5, 4], "kernel_sizes": [9, 5, 3], "n_hidden": [12], "n_outputs": 2}
    module = Basset(**arguments, input_length=300).eval()  # type: ignore[arg-type]
    path = tmp_path / "model.safetensors"
    save_safetensors(module, path, architecture="basset", arguments=arguments, input_length=300)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_model(path)
    sequences = one_hot(3, 2, 300)
    torch.testing.assert_close(loaded.module(sequences), module(sequences), rtol=0, atol=0)
    assert (loaded.kind, loaded.input_length, loaded.notes) == ("safetensors", 300, ())


def test_safetensors_cannot_name_code(tmp_path: Path, factory_file: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"1.weight": torch.zeros(2)}, path, metadata={"architecture": f"{factory_file}:mlp"})
    with pytest.raises(UsageError, match="not recognised"):
        load_model(path)


def test_half_precision_weights_become_float32_and_say_so(tmp_path: Path) -> None:
    torch.save(BPNet(n_filters=4, n_layers=2).half().state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    # the builder's own weights are float32, so what came from the file is compared
    saved = torch.load(tmp_path / "model.pt", weights_only=True)["iconv.weight"]
    assert torch.equal(loaded.module.state_dict()["iconv.weight"], saved.float())
    assert any("float16" in note for note in loaded.notes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_named(tmp_path: Path, value: float) -> None:
    state = BPNet(n_filters=4, n_layers=2).state_dict()
    state["rconvs.1.bias"][2] = value
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"tensor rconvs\.1\.bias has 1 NaN or infinite values out of 4"):
        load_model(tmp_path / "model.pt")


def test_wrong_architecture_lists_what_does_not_fit(bpnet_file: Path, factory_file: Path) -> None:
    with pytest.raises(InputError, match=r"missing 1\.weight, .*unexpected iconv\.weight, .* and 5 more\.$"):
        load_model(bpnet_file, architecture=f"{factory_file}:mlp")
    with pytest.raises(InputError, match=r"missing convolutions\.0\.0\.weight, .* more; unexpected iconv"):
        load_model(bpnet_file, architecture="basset")
    with pytest.raises(InputError, match=r"wrong shape .*iconv\.weight is \(4, 4, 21\), not \(8, 4, 21\)"):
        load_model(bpnet_file, architecture_args={"n_filters": 8})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"this is\nnot a model\n", "is a text file, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "is cut short or damaged"),
        (b"\x00\x01\x02\x03" * 9, "is not a model file that dlgenome knows"),
        (b"\x80\x02}q\x00.", "not written by torch.save"),
    ],
)
def test_files_that_are_no_models_are_told_apart(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_other_hdf5_files_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as stream:
        stream["kernel"] = np.zeros(3)
    with pytest.raises(InputError, match="is an HDF5 file without the weights of a Keras model"):
        load_model(tmp_path / "model.h5")
    with pytest.raises(InputError, match="is a folder, not a model file"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"There is no model file .*none\.pt"):
        load_model(tmp_path / "none.pt")


def test_numpy_archives_and_torchscript_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", weight=np.zeros(3))
    with pytest.raises(InputError, match=r"zip file that torch\.save did not write"):
        load_model(tmp_path / "model.npz")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_torch_files_say_so(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "model.pt"
    torch.save(BPNet(n_filters=4, n_layers=2).state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        load_model(path)


def test_truncated_safetensors_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or cut safetensors"):
        load_model(path)


def test_file_without_a_state_dict_says_what_it_holds(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="holds a Tensor, not a state_dict"):
        load_model(tmp_path / "tensor.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(InputError, match="holds no tensors"):
        load_model(tmp_path / "epoch.pt")


def test_flags_that_do_not_work_are_usage_errors(bpnet_file: Path, factory_file: Path) -> None:
    cases = {
        "bpnte": "no built-in architecture of that name. Did you mean bpnet?",
        "no.such.package:net": "cannot be imported",
        f"{factory_file}:nothing": "has no function or class called nothing",
        f"{factory_file}:text": "it returned a str, but must return a torch.nn.Module",
        f"{factory_file}:Reused": "calling it with no arguments failed",
        "absent.py:net": "there is no file absent.py",
    }
    for architecture, message in cases.items():
        with pytest.raises(UsageError, match=message.replace(".", r"\.").replace("?", r"\?")):
            load_model(bpnet_file, architecture=architecture)
    with pytest.raises(UsageError, match="bpnet has no argument filters; it takes n_filters"):
        load_model(bpnet_file, architecture_args={"filters": 8})
    with pytest.raises(UsageError, match="input_length is 'long'"):
        load_model(bpnet_file, architecture_args={"input_length": "long"})
    with pytest.raises(UsageError, match=r"choose auto, state-dict, .*, pt2, torchscript, keras, pickle"):
        load_model(bpnet_file, model_type="tar")


def test_factory_file_that_fails_says_how(bpnet_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=r"fails when it is run .ZeroDivisionError: division by zero"):
        load_model(bpnet_file, architecture=f"{tmp_path / 'broken.py'}:net")


def test_factory_gets_its_arguments_and_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_nets.py").write_text("import torch\nLayer = torch.nn.Linear\n")
    (tmp_path / "nets.py").write_text("from neighbour_of_nets import Layer\nnet = Layer\n")
    torch.save(nn.Linear(7, 3).state_dict(), tmp_path / "model.pt")
    arguments = {"in_features": 7, "out_features": 3}
    loaded = load_model(
        tmp_path / "model.pt", architecture=f"{tmp_path / 'nets.py'}:net", architecture_args=arguments
    )
    assert loaded.arguments == arguments
    assert isinstance(loaded.module, nn.Linear)


def test_files_saved_on_a_gpu_load_on_the_cpu(bpnet_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "from_gpu.pt"
    with zipfile.ZipFile(bpnet_file) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            # the pickle keeps the device of every storage as a string after its length
            content = source.read(name).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            target.writestr(name, content)
    assert path.read_bytes().count(b"cuda:0")
    loaded = load_model(path)
    assert {parameter.device.type for parameter in loaded.module.parameters()} == {"cpu"}
    expected = torch.load(bpnet_file, weights_only=True)
    assert torch.equal(loaded.module.state_dict()["iconv.weight"], expected["iconv.weight"])
