"""torch.export's files: read without what is unsafe in torch.export.load, or refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import DlgenomeError, InputError, UnsupportedModelError, UsageError
from dlgenome.model.architectures.registry import ARCHITECTURES
from dlgenome.model.checkpoint import load_model
from dlgenome.model.exporting import save_exported

LENGTH = 60


class Net(nn.Module):
    """A convolution, a normalisation, an in-place activation, a gate, a residual and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 6, 5, padding=2), nn.BatchNorm1d(6), nn.ReLU(inplace=True))
        self.gate = nn.Conv1d(6, 6, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 1)
        self.register_buffer("scale", torch.tensor([1.5]))

    def forward(self, sequences: Tensor) -> tuple[Tensor, Tensor]:
        values = self.body(sequences)
        values = self.dropout(values + torch.sigmoid(self.gate(values)) * values)
        left, right = values.chunk(2, dim=1)
        return (left + right).flatten(1), self.head(values.mean(dim=2)) * self.scale


def export(module: nn.Module, path: Path, *, batch: Any = torch.export.Dim.DYNAMIC) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: batch},) if batch is not None else None
        program = torch.export.export(module, (torch.zeros(3, 4, LENGTH),), dynamic_shapes=shapes)
        torch.export.save(program, path)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    export(Net().eval(), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy with some members of the archive replaced; None leaves one out."""
    changed = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return changed


def in_program(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return apply


def test_predictions_are_those_of_torch_export_load(exported: Path, one_hot: Callable[..., Tensor]) -> None:
    loaded = load_model(exported)
    assert (loaded.kind, loaded.input_length, loaded.architecture) == ("pt2", LENGTH, "exported program")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(exported).module()
    for count in (1, 4):
        sequences = one_hot(1, count, LENGTH)
        for found, expected in zip(loaded.module(sequences), program(sequences), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    names = {"body.0.weight", "body.1.running_var", "head.bias", "scale"}
    assert names <= set(loaded.module.state_dict())
    assert loaded.n_parameters >= sum(parameter.numel() for parameter in Net().parameters())


@pytest.mark.parametrize("name", ["bpnet", "danq", "deepsea", "deepstarr"])
def test_networks_are_written_and_read_back(
    name: str, tmp_path: Path, one_hot: Callable[..., Tensor]
) -> None:
    small: dict[str, Any] = {
        "bpnet": {"n_filters": 4, "n_layers": 2, "input_length": 200},
        "danq": {"n_filters": 6, "n_recurrent": 5, "n_hidden": 9, "n_outputs": 3, "input_length": 100},
        "deepsea": {"n_filters": [6, 5, 4], "n_hidden": 9, "n_outputs": 3, "input_length": 200},
        "deepstarr": {"n_filters": [8, 6, 5, 4], "n_hidden": [9, 9], "input_length": 100},
    }
    module = ARCHITECTURES[name].build(**small[name]).eval()
    length = small[name]["input_length"]
    path = tmp_path / "model.pt2"
    save_exported(module, path, length=length, description={"targets": ["index:2"]})
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt2"]
    loaded = load_model(path)
    assert (loaded.input_length, loaded.targets) == (length, ("index:2",))
    sequences = one_hot(1, 2, length)
    found, expected = loaded.module(sequences), module(sequences)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for one, other in pairs:
        torch.testing.assert_close(one, other)


class _Hostile:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.victim),))


def _torch_saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _hostile(exported: Path, victim: Path, where: str) -> Path:
    """The file with code that makes ``victim``, hidden where torch.export.load runs it."""
    evil = _torch_saved((_Hostile(victim),))
    if where == "sample inputs":
        return rewritten(exported, lambda name, data: evil if "sample_inputs" in name else data)
    if where == "weight":

        def as_pickle(name: str, data: bytes) -> bytes:
            if name.endswith("weight_0"):
                return _torch_saved(_Hostile(victim))
            if name.endswith("model_weights_config.json"):
                config = json.loads(data)
                next(iter(config["config"].values()))["use_pickle"] = True
                return json.dumps(config).encode()
            return data

        return rewritten(exported, as_pickle)
    call = f"__import__('pathlib').Path({str(victim)!r}).touch()"

    def in_shape(program: Any) -> None:
        for tensor in program["graph_module"]["graph"]["tensor_values"].values():
            for size in tensor["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = call

    return rewritten(exported, in_program(in_shape))


@pytest.mark.parametrize("where", ["sample inputs", "weight", "shape"])
def test_code_in_an_exported_file_never_runs(exported: Path, tmp_path: Path, where: str) -> None:
    victim = tmp_path / "written"
    path = _hostile(exported, victim, where)
    try:
        load_model(path)
    except InputError as error:
        assert "as a Python pickle, which can run any code" in str(error)  # noqa: PT017 - it need not raise
        assert where == "weight"
    assert not victim.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Exception):  # what it makes of the rest does not matter
            torch.export.load(path)
    assert victim.exists(), "the file is harmless, so the test shows nothing"


def test_names_in_an_exported_file_are_never_compiled(exported: Path, tmp_path: Path) -> None:
    victim = tmp_path / "written"

    def guards(program: Any) -> None:
        program["guards_code"] = [f"open({str(victim)!r}, 'w') is not None"]

    loaded = load_model(rewritten(exported, in_program(guards)))
    loaded.module(torch.zeros(2, 4, LENGTH))
    assert not victim.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.mine.operation.default",
        "torch.load",
        "torch.ops.aten.__class__.default",
        "os.system",
        "_operator.methodcaller",
    ],
)
def test_operations_that_are_not_mathematics_are_refused(exported: Path, target: str) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][-1]["target"] = target

    with pytest.raises(DlgenomeError, match=rf"{target}|damaged"):
        load_model(rewritten(exported, in_program(change)))


def test_a_fixed_batch_and_training_mode_are_refused_in_words(tmp_path: Path) -> None:
    export(Net().eval(), tmp_path / "fixed.pt2", batch=None)
    with pytest.raises(
        UnsupportedModelError, match="exported for a fixed batch of 3 sequences; export it again"
    ):
        load_model(tmp_path / "fixed.pt2")
    export(Net().train(), tmp_path / "training.pt2")
    with pytest.raises(InputError, match="exported in training mode"):
        load_model(tmp_path / "training.pt2")


def test_weights_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    module = Net().eval()
    with torch.no_grad():
        module.get_parameter("gate.bias")[1] = float("nan")
    export(module, tmp_path / "model.pt2")
    with pytest.raises(InputError, match=r"tensor gate\.bias has 1 NaN or infinite values out of 6"):
        load_model(tmp_path / "model.pt2")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_files_say_so(exported: Path, share: float) -> None:
    content = exported.read_bytes()
    exported.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        load_model(exported)


@pytest.mark.parametrize("member", ["model.json", "model_weights_config.json", "weight_0"])
@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", None])
def test_damaged_members_say_so(exported: Path, member: str, content: bytes | None) -> None:
    path = rewritten(exported, lambda name, data: content if name.endswith(member) else data)
    with pytest.raises(InputError, match=r"damaged|zip file that torch"):
        load_model(path)


def test_files_of_older_torch_and_flags_for_bare_weights_are_told(exported: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.4")
    with pytest.raises(InputError, match=r"torch before 2\.8"):
        load_model(tmp_path / "old.pt2")
    with pytest.raises(UsageError, match="holds a whole module; --architecture"):
        load_model(exported, architecture="bpnet")


def test_a_module_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, sequences: Tensor) -> Tensor:
            return sequences if sequences.sum() > 0 else -sequences

    with pytest.raises(UnsupportedModelError, match=r"torch\.export cannot write this model"):
        save_exported(Branching(), tmp_path / "model.pt2", length=10, description={})
    assert list(tmp_path.iterdir()) == []


def test_pickles_called_pt2_are_still_pickles(tmp_path: Path) -> None:
    victim = tmp_path / "written"
    (tmp_path / "model.pt2").write_bytes(pickle.dumps(_Hostile(victim)))
    with pytest.raises(InputError, match=r"would import posix\.mkdir"):
        load_model(tmp_path / "model.pt2")
    assert not victim.exists()


def in_config(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("model_weights_config.json"):
            return content
        config = json.loads(content)
        change(config["config"])
        return json.dumps(config).encode()

    return apply


def test_weights_that_claim_the_memory_are_refused_before_it_is_taken(exported: Path) -> None:
    def repeat(config: Any) -> None:
        meta = config["gate.weight"]["tensor_meta"]
        meta["sizes"], meta["strides"] = [{"as_int": 10**12}], [{"as_int": 0}]

    with pytest.raises(InputError, match=r"its tensors claim 4,000,000,\d+,\d+ bytes in"):
        load_model(rewritten(exported, in_config(repeat)))

    def reach_further(config: Any) -> None:
        config["gate.weight"]["tensor_meta"]["storage_offset"]["as_int"] = 10**9

    with pytest.raises(InputError, match=r"damaged.*gate\.weight is cut short"):
        load_model(rewritten(exported, in_config(reach_further)))


def _node(target: str, *arguments: dict[str, Any]) -> dict[str, Any]:
    inputs = [{"name": f"a{place}", "arg": argument, "kind": 1} for place, argument in enumerate(arguments)]
    return {"target": target, "inputs": inputs, "outputs": [{"as_tensor": {"name": "made"}}], "metadata": {}}


SEQUENCES = {"as_tensor": {"name": "sequences"}}
ABSURD = {
    "a huge value": _node("torch.ops.aten.repeat.default", SEQUENCES, {"as_ints": [10**4, 10**4, 10**4]}),
    "huge zeros": _node("torch.ops.aten.zeros.default", {"as_ints": [10**6, 10**6]}),
    "a huge list": _node("_operator.mul", {"as_ints": [1, 2]}, {"as_int": 10**12}),
    "a huge word": _node("_operator.mod", {"as_string": "%9999999999d"}, {"as_int": 1}),
    "a huge number": _node("_operator.pow", {"as_int": 10**9}, {"as_int": 10**9}),
    "a list of TorchScript": _node("torch.ops.aten.mul.left_t", {"as_ints": [1]}, {"as_int": 10**12}),
    "a word of TorchScript": _node("torch.ops.aten.center.default", {"as_string": "a"}, {"as_int": 10**12}),
    "another tensor's memory": _node("torch.ops.aten.set_.source_Tensor", SEQUENCES, SEQUENCES),
    "memory of another size": _node("torch.ops.aten.resize_.default", SEQUENCES, {"as_ints": [10**9]}),
    "an internal operation": _node("torch.ops.aten._embedding_bag.default", SEQUENCES, SEQUENCES, SEQUENCES),
}


@pytest.mark.parametrize("node", ABSURD.values(), ids=ABSURD)
def test_programs_that_would_take_memory_or_reach_for_it_are_refused(
    exported: Path, node: dict[str, Any]
) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"].insert(0, node)

    with pytest.raises(
        DlgenomeError, match=r"is a damaged torch\.export file|not one of PyTorch's own"
    ) as caught:
        load_model(rewritten(exported, in_program(change)))
    assert "\n" not in str(caught.value)


def test_an_input_longer_than_any_chromosome_is_refused(exported: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["sequences"]["sizes"][2]["as_int"] = 10**12

    with pytest.raises(InputError, match="says that its input has 1,000,000,000,000 bases"):
        load_model(rewritten(exported, in_program(change)))


@pytest.mark.parametrize("member", ["model.json", "model_weights_config.json", "dlgenome.json"])
def test_json_nested_without_end_is_damage(tmp_path: Path, member: str) -> None:
    save_exported(Net().eval(), tmp_path / "model.pt2", length=LENGTH, description={"targets": ["index:0"]})
    deep = b"[" * 100_000
    path = rewritten(tmp_path / "model.pt2", lambda name, data: deep if name.endswith(member) else data)
    with pytest.raises(InputError, match=r"is a damaged torch\.export file"):
        load_model(path)
