"""From a checkpoint file to a module that is ready to be explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from dlgenome.errors import InputError, UnsupportedModelError, UsageError
from dlgenome.model.architectures.definition import Arguments
from dlgenome.model.assembly import Assembled, assemble
from dlgenome.model.bpnetlite import read_bpnetlite
from dlgenome.model.exported import ExportedFile, read_exported, read_program
from dlgenome.model.files import FileKind, identify
from dlgenome.model.keras.read import read_keras
from dlgenome.model.limits import check_length, check_tensors, is_plain
from dlgenome.model.pickle_machine import Recorded
from dlgenome.model.pickles import imported_globals, read_with_code, read_without_code, refuse_code
from dlgenome.model.safe_files import SafeFile, described, read_safetensors
from dlgenome.model.torchscript import read_torchscript, refuse_torchscript
from dlgenome.provenance import file_sha256

ModelKind = Literal["state-dict", "safetensors", "bpnet-lite", "pt2", "torchscript", "keras", "pickle"]
MODEL_KINDS: tuple[str, ...] = get_args(ModelKind)
"""What ``--model-type`` may say beside ``auto``."""

_STATE_KEYS = ("state_dict", "model_state_dict", "model", "weights")
_SETTINGS_KEYS = ("config", "hyper_parameters")
_PROGRAMS = {
    "pt2": "exported program",
    "safetensors": "exported program",
    "torchscript": "TorchScript program (experimental)",
}


@dataclass(frozen=True)
class LoadedModel:
    """A module to explain, and what its file says about it."""

    module: nn.Module
    """On the CPU, float32, in eval mode, without gradients for its parameters."""
    architecture: str
    """Name of a built-in architecture, the factory as given, or the class of a pickled module."""
    arguments: Arguments
    input_length: int | None
    """Length the model was made for, where it is known."""
    sha256: str
    n_parameters: int
    kind: ModelKind
    outputs: tuple[str, ...]
    """Names of the outputs in order; empty where they are not known."""
    notes: tuple[str, ...] = ()
    title: str = ""
    """What the model is, in words; empty where that is not known."""
    alphabet: str = "ACGT"
    """Order of the bases that the weights were trained on, as far as the file or its architecture says."""
    targets: tuple[str, ...] = ()
    """Targets that the file itself suggests."""
    root: str = ""
    """Path of the user's own module inside ``module``, where an adapter stands before it."""
    takes: str = ""
    """What the model takes where that is no DNA sequence."""

    def length(self, window: int | None = None) -> int:
        """Bases of input: ``window``, or what the model was made for.

        Raises UsageError where neither is known, and UnsupportedModelError for a model that takes no DNA.
        """
        if self.takes:
            raise UnsupportedModelError(
                f"This model is {self.title or self.architecture} with {self.n_parameters:,} parameters, and"
                f" takes {self.takes}, no DNA sequence of length x 4; dlgenome's commands explain models of"
                " DNA."
            )
        length = window or self.input_length
        if length is None:
            raise UsageError(f"The input length of {self.architecture} is not known; give it with --window.")
        return length


@dataclass(frozen=True)
class _Contents:
    """What a file holds: tensors, or a whole module."""

    kind: ModelKind
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    module: nn.Module | None = None
    architecture: str | None = None
    arguments: Arguments = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    input_length: int | None = None
    outputs: tuple[str, ...] = ()
    title: str = ""
    alphabet: str | None = None
    targets: tuple[str, ...] = ()
    takes: str = ""
    assembled: Assembled | None = None
    """The finished model, of files that say everything."""


def load_model(
    path: Path,
    *,
    model_type: str = "auto",
    architecture: str | None = None,
    architecture_args: Mapping[str, object] | None = None,
    trust_pickle: bool = False,
) -> LoadedModel:
    """The model of a checkpoint file: module, architecture and facts.

    Raises InputError for a file that cannot be read, does not fit its architecture, holds NaN or would run
    code; UsageError for flags that do not suit the file.
    """
    path = Path(path)
    if model_type != "auto" and model_type not in MODEL_KINDS:
        raise UsageError(f"--model-type {model_type}: choose auto, {', '.join(MODEL_KINDS)}.")
    kind = identify(path)
    if kind == "keras":
        contents = _from_keras(path, architecture, architecture_args or {})
    else:
        contents = _read(path, kind, trust_pickle)
    if model_type not in ("auto", contents.kind):
        raise UsageError(f"--model-type {model_type}: {path} is of type {contents.kind}.")
    check_tensors(path, contents.tensors)
    check_length(path, contents.input_length)
    assembled = _assemble(path, contents, architecture, architecture_args or {})
    check_length(path, assembled.input_length)
    module = assembled.module.cpu().float().eval()
    for parameter in module.parameters():  # one by one: a scripted module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return LoadedModel(
        module=module,
        architecture=assembled.architecture,
        arguments=assembled.arguments,
        input_length=assembled.input_length,
        sha256=file_sha256(path),
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        kind=contents.kind,
        outputs=assembled.outputs,
        notes=(*contents.notes, *assembled.notes, *_dtype_notes(contents.tensors)),
        title=assembled.title,
        alphabet=contents.alphabet or assembled.alphabet,
        targets=contents.targets,
        takes=contents.takes,
    )


def _read(path: Path, kind: FileKind, trust_pickle: bool) -> _Contents:
    if kind == "safetensors":
        return _from_safetensors(path)
    if kind == "pt2":
        return _from_exported(path)
    if kind == "torchscript":
        if not trust_pickle:
            refuse_torchscript(path)
        module = read_torchscript(path)
        return _Contents("torchscript", dict(module.state_dict()), module)
    names = imported_globals(path, kind)
    try:
        refuse_code(path, kind, names)
    except InputError:
        if not trust_pickle:
            raise
        return _from_trusted(path, read_with_code(path))
    value = read_without_code(path, kind)
    if isinstance(value, Recorded):
        model = read_bpnetlite(path, value)
        return _Contents("bpnet-lite", model.tensors, None, model.architecture, model.arguments)
    return _from_mapping(path, value)


def _from_keras(path: Path, architecture: str | None, arguments: Mapping[str, object]) -> _Contents:
    if architecture is not None and not architecture.endswith(".json"):
        raise UsageError(
            f"--architecture {architecture}: {path} is a Keras file, which takes a model's JSON (FILE.json)"
            " if it does not describe its layers itself."
        )
    description = None if architecture is None else Path(architecture)
    found = read_keras(path, description=description, arguments=arguments)
    assembled = Assembled(
        module=found.module,
        architecture="keras",
        arguments=dict(arguments),
        input_length=found.input_length,
        outputs=found.outputs,
        notes=found.notes,
        title=found.title,
    )
    return _Contents("keras", found.tensors, takes=found.takes, assembled=assembled)


def _from_safetensors(path: Path) -> _Contents:
    found = read_safetensors(path)
    if found.program is not None:
        network = read_program(path, found.program, found.tensors)
        return _program_contents("safetensors", network, found)
    return _Contents(
        kind="safetensors",
        tensors=found.tensors,
        architecture=found.architecture,
        arguments=found.arguments,
        alphabet=found.alphabet,
        targets=found.targets,
    )


def _from_exported(path: Path) -> _Contents:
    found = read_exported(path)
    outputs, title = found.description.get("outputs"), found.description.get("title")
    said = SafeFile(
        {},
        title=title if isinstance(title, str) else "",
        outputs=tuple(map(str, outputs)) if isinstance(outputs, list) else (),
        **described(path, found.description),
    )
    return _program_contents("pt2", found, said)


def _program_contents(kind: ModelKind, network: ExportedFile, said: SafeFile) -> _Contents:
    return _Contents(
        kind=kind,
        tensors=dict(network.module.state_dict()),
        module=network.module,
        input_length=network.input_length,
        outputs=said.outputs if len(said.outputs) == network.n_outputs else (),
        title=said.title,
        alphabet=said.alphabet,
        targets=said.targets,
    )


def _from_trusted(path: Path, value: Any) -> _Contents:
    if isinstance(value, nn.DataParallel):
        value = value.module
    if isinstance(value, nn.Module):
        return _Contents("pickle", dict(value.state_dict()), value)
    return replace(_from_mapping(path, value), kind="pickle")


def _from_mapping(path: Path, value: Any) -> _Contents:
    """Tensors of a state_dict, or of a dictionary with a state_dict in it, and its plain values."""
    arguments: Arguments = {}
    if isinstance(value, Mapping):
        inner = next((value[key] for key in _STATE_KEYS if isinstance(value.get(key), Mapping)), None)
        if inner is not None:
            arguments = _plain(value)
            for key in _SETTINGS_KEYS:
                arguments |= _plain(_as_mapping(value.get(key)))
            value = inner
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"{path} holds a {type(value).__name__}, not a state_dict;"
            " save model.state_dict() with torch.save."
        )
    tensors = {str(key): item.detach() for key, item in value.items() if isinstance(item, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors; save model.state_dict() with torch.save.")
    others = len(value) - len(tensors)
    notes = (f"{others} entries of the state_dict are not tensors and were left out",) if others else ()
    return _Contents("state-dict", tensors, arguments=arguments, notes=notes)


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    """A dictionary of settings, also where it was an object that only kept its attributes."""
    if isinstance(value, Recorded):
        return value.attributes
    return value if isinstance(value, Mapping) else {}


def _plain(settings: Mapping[Any, Any]) -> Arguments:
    """Numbers, words, and lists and dictionaries of them: what may be an argument of an architecture."""
    return {str(key): value for key, value in settings.items() if is_plain(value)}


def _assemble(
    path: Path, contents: _Contents, architecture: str | None, arguments: Mapping[str, object]
) -> Assembled:
    if contents.assembled is not None:
        return contents.assembled
    if contents.module is not None:
        if architecture is not None or arguments:
            raise UsageError(
                f"{path} holds a whole module; --architecture and --architecture-args are for bare weights."
            )
        length = contents.input_length or getattr(contents.module, "input_length", None)
        kind = type(contents.module)
        name = _PROGRAMS.get(contents.kind, f"{kind.__module__}.{kind.__qualname__}")
        length = length if isinstance(length, int) else None
        return Assembled(contents.module, name, {}, length, contents.outputs, title=contents.title)
    if architecture is not None and contents.architecture not in (None, architecture):
        raise UsageError(
            f"--architecture {architecture}: {path} says that it is a {contents.architecture};"
            " leave --architecture out."
        )
    wanted = architecture or contents.architecture
    return assemble(path, contents.tensors, wanted, contents.arguments, arguments)


def _dtype_notes(tensors: Mapping[str, Tensor]) -> list[str]:
    kinds = {str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point()}
    return [
        f"weights of type {kind.removeprefix('torch.')} are used as float32"
        for kind in sorted(kinds - {"torch.float32"})
    ]
