"""The number that a run explains: which output of the model, and which part of it."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dlgenome.errors import UsageError
from dlgenome.model.architectures.factory import find_factory
from dlgenome.model.outputs import OutputFact, find_outputs, flatten_outputs

TargetKind = Literal[
    "counts", "index", "contrast", "profile-bpnet", "profile-chrombpnet", "profile-bpnetlite", "callable"
]
PROFILES: tuple[TargetKind, ...] = ("profile-bpnet", "profile-chrombpnet", "profile-bpnetlite")
FORMS = (
    "counts, profile-bpnet, profile-chrombpnet, profile-bpnetlite, index:I, index:I,J (their sum), "
    "contrast:I,J (I minus J) and FILE.py:function"
)

_SPECIFICATION = re.compile(
    r"(?:output:(?P<output>\d+)/)?(?P<kind>index|contrast):(?P<indices>\d+(?:,\d+)*)"
    r"(?:@(?P<start>\d+)-(?P<end>\d+))?"
)
_CALLABLE = re.compile(r"(?!(?:index|contrast|output|profile|counts):)[^:@,]+:[A-Za-z_][\w.]*")
_PROFILE = re.compile(r"(?:output:(?P<output>\d+)/)?(?P<kind>profile-(?:bpnet|chrombpnet|bpnetlite))")


@dataclass(frozen=True)
class Target:
    """One scalar per sequence, as ``--target`` describes it."""

    name: str
    """What file names carry."""
    text: str
    """The description without its name and, but for a path, without spaces."""
    kind: TargetKind
    indices: tuple[int, ...] = ()
    output: int | None = None
    """0-based position among several outputs; None where the model has only one, and for counts."""
    positions: tuple[int, int] | None = None
    """0-based half-open range of the output's last axis, summed over."""


def parse_target(text: str) -> Target:
    """The target that ``[NAME=]T`` describes; UsageError says which forms there are.

    T is ``counts``, ``[output:K/]index:I[,J..][@A-B]``, ``[output:K/]contrast:I,J[@A-B]``, one of the profile
    definitions, or ``pkg.mod:function`` or ``FILE.py:function``.
    """
    named, equals, described = text.rpartition("=")
    specification = re.sub(r"\s", "", described)
    name = named.strip() if equals else re.sub(r"[:,/@]", "-", specification)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and equals:
        raise UsageError(f"--target {text}: a name has letters, digits, dots, dashes and underscores only.")
    if specification == "counts":
        return Target(name, specification, "counts")
    profile = _PROFILE.fullmatch(specification)
    if profile is not None:
        number = None if profile["output"] is None else int(profile["output"])
        return Target(name, specification, cast("TargetKind", profile["kind"]), output=number)
    match = _SPECIFICATION.fullmatch(specification)
    if match is None and _CALLABLE.fullmatch(specification):
        short = name if equals else specification.rpartition(":")[2]
        return Target(short, described.strip(), "callable")
    if match is None:
        raise UsageError(_explain(text, specification))
    indices = tuple(int(index) for index in match["indices"].split(","))
    _check_indices(text, match["kind"], indices)
    positions = None if match["start"] is None else (int(match["start"]), int(match["end"]))
    if positions and positions[0] >= positions[1]:
        raise UsageError(f"--target {text}: @A-B is 0-based and half-open, so A must be less than B.")
    return Target(
        name=name,
        text=specification,
        kind="contrast" if match["kind"] == "contrast" else "index",
        indices=indices,
        output=None if match["output"] is None else int(match["output"]),
        positions=positions,
    )


def parse_targets(texts: Iterable[str]) -> tuple[Target, ...]:
    """All targets of a run; UsageError where two would write the same files."""
    targets = tuple(parse_target(text) for text in texts)
    names = Counter(target.name for target in targets)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"Two targets are called {twice}; name one of them with --target NAME=T.")
    return targets


def _explain(text: str, specification: str) -> str:
    if specification == "profile":
        return (
            f"--target {text}: say which profile score, for they differ: profile-bpnet (weights "
            "fixed at the explained sequence, sums to the difference), profile-chrombpnet (what chrombpnet's "
            "software computes) or profile-bpnetlite (what bpnet-lite computes, sums to the difference)."
        )
    close = difflib.get_close_matches(specification, ("counts", *PROFILES), n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"--target {text}: this is not a target; targets are {FORMS}.{hint}"


def _check_indices(text: str, kind: str, indices: tuple[int, ...]) -> None:
    if kind == "contrast" and len(indices) != 2:
        raise UsageError(f"--target {text}: a contrast takes two indices, contrast:I,J means I minus J.")
    if len(set(indices)) < len(indices):
        raise UsageError(f"--target {text}: the same index is named twice.")


class TargetHead(nn.Module):
    """The model with its outputs narrowed to the targets: (batch, 4, length) -> (batch, columns).

    A profile has a column for every position of every strand, its mean-centred logits; any other target one.
    """

    def __init__(self, model: nn.Module, targets: Sequence[Target]) -> None:
        super().__init__()
        self.model = model
        self.targets = tuple(targets)
        self._functions = {t.text: _function(t) for t in targets if t.kind == "callable"}

    def forward(self, sequences: Tensor) -> Tensor:
        """The columns of every target, in the order given."""
        outputs = flatten_outputs(self.model(sequences))
        columns = [self._columns(outputs, target) for target in self.targets]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def _columns(self, outputs: Sequence[Tensor], target: Target) -> Tensor:
        if target.kind in PROFILES:
            logits = outputs[target.output or 0].flatten(1)
            return logits - logits.mean(dim=1, keepdim=True)
        if target.kind == "callable":
            return _as_table(_called(self._functions[target.text], outputs))
        return _select(outputs, target)

    def widths(self, facts: Sequence[OutputFact]) -> list[int]:
        """Number of columns of each target."""
        return [
            math.prod(facts[target.output or 0].shape) if target.kind in PROFILES else 1
            for target in self.targets
        ]


def _function(target: Target) -> Callable[..., Any]:
    return find_factory(target.text, "--target")


def _called(function: Callable[..., Any], outputs: Sequence[Tensor]) -> Any:
    """What a user's function makes of the output, or of the tuple of several."""
    return function(outputs[0] if len(outputs) == 1 else tuple(outputs))


def _select(outputs: Sequence[Tensor], target: Target) -> Tensor:
    """Column (batch, 1); slices only, so that every output keeps its batch axis."""
    if target.kind == "counts":
        return _as_table(outputs[1])
    output = _as_table(outputs[target.output or 0])
    parts = [output[:, index : index + 1] for index in target.indices]
    if target.positions is not None:
        start, end = target.positions
        parts = [part[:, :, start:end].sum(dim=2) for part in parts]
    column = parts[0]
    for part in parts[1:]:
        column = column - part if target.kind == "contrast" else column + part
    return column


def _as_table(output: Tensor) -> Tensor:
    return output.unsqueeze(1) if output.dim() == 1 else output


def check_targets(
    module: nn.Module,
    targets: Sequence[Target],
    input_length: int,
    *,
    model_length: int | None = None,
) -> list[OutputFact]:
    """Names and shapes of the model's outputs, once every target is known to exist among them.

    Runs the module on one sequence of zeros. UsageError names what the model has, or, where it does not
    run on ``input_length`` bases, the length it was made for (``model_length``).
    """
    facts = find_outputs(module, input_length, model_length=model_length)
    for target in targets:
        _check_target(target, facts)
    return facts


def _check_target(target: Target, facts: Sequence[OutputFact]) -> None:
    have = f"the model has outputs: {', '.join(fact.text for fact in facts)}"
    if target.kind == "counts":
        if len(facts) < 2 or facts[1].shape not in ((), (1,)):
            raise UsageError(
                f"--target {target.text}: counts is the second output (batch, 1) of a model that returns"
                f" profile and counts, but {have}. Use index:I instead."
            )
        return
    if target.kind == "callable":
        _check_function(target, facts)
        return
    if target.kind in PROFILES:
        number = target.output or 0
        if number >= len(facts) or math.prod(facts[number].shape) < 2:
            raise UsageError(
                f"--target {target.text}: a profile is an output of logits over positions, but {have}."
            )
        return
    if target.output is None and len(facts) > 1:
        raise UsageError(f"--target {target.text}: {have}; choose one with output:K/{target.text}.")
    number = target.output or 0
    if number >= len(facts):
        raise UsageError(f"--target {target.text}: there is no output {number}; {have}.")
    _check_axes(target, facts[number].shape or (1,), have)


def _check_function(target: Target, facts: Sequence[OutputFact]) -> None:
    """Call it on zeros of two sequences: it must give a number for each."""
    function = _function(target)
    try:
        value = _called(function, [torch.zeros(2, *fact.shape) for fact in facts])
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
        raise UsageError(
            f"--target {target.text}: it failed on the model's outputs "
            f"({', '.join(fact.text for fact in facts)}): {type(error).__name__}: {reason}."
        ) from error
    if not isinstance(value, Tensor) or tuple(value.shape) not in ((2,), (2, 1)):
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UsageError(
            f"--target {target.text}: for two sequences it returned {found}; it must return one number for "
            "each sequence, a tensor (batch,) or (batch, 1)."
        )


def _check_axes(target: Target, shape: tuple[int, ...], have: str) -> None:
    highest = max(target.indices)
    if highest >= shape[0]:
        raise UsageError(
            f"--target {target.text}: {have}; index {highest} is out of range 0..{shape[0] - 1}."
        )
    if len(shape) > 2:
        raise UsageError(
            f"--target {target.text}: {have}; an output with more than three axes has no target."
        )
    if len(shape) == 1 and target.positions:
        raise UsageError(f"--target {target.text}: {have}; this output has no positions, leave @A-B out.")
    if len(shape) == 2 and target.positions is None:
        raise UsageError(
            f"--target {target.text}: {have}; say which positions to sum over, all of them is"
            f" {target.text}@0-{shape[1]}."
        )
    if target.positions and target.positions[1] > shape[1]:
        raise UsageError(f"--target {target.text}: {have}; positions end at {shape[1]}.")


def suggest_targets(facts: Sequence[OutputFact]) -> tuple[str, ...]:
    """Targets that a model with these outputs offers, as ``--target`` takes them."""
    if len(facts) == 2 and len(facts[0].shape) == 2 and facts[1].shape == (1,):
        return ("counts", *PROFILES)
    suggestions = []
    for fact in facts:
        prefix = f"output:{fact.index}/" if len(facts) > 1 else ""
        suffix = f"@0-{fact.shape[1]}" if len(fact.shape) == 2 else ""
        tasks = fact.shape[0] if fact.shape else 1
        last = f" .. {prefix}index:{tasks - 1}{suffix}" if tasks > 1 else ""
        if len(fact.shape) <= 2:
            suggestions.append(f"{prefix}index:0{suffix}{last}")
    return tuple(suggestions)
