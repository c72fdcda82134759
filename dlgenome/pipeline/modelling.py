"""From a checkpoint and what is said about it to a program with a rule for every operation."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from dlgenome.attribution.capture import capture
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.plugins import rules_with_plugins
from dlgenome.attribution.readout import Readout, ReadoutKind
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.inputs import InputForm, adapt
from dlgenome.model.targets import Target, TargetHead, check_targets

log = logging.getLogger(__name__)


PLAIN = InputForm()


@dataclass(frozen=True)
class ModelRequest:
    """A checkpoint, and everything the user said about how to read and explain it."""

    path: Path
    model_type: str = "auto"
    architecture: str | None = None
    architecture_args: Mapping[str, object] | None = None
    trust_pickle: bool = False
    form: InputForm = PLAIN
    plugins: tuple[Path, ...] = ()
    strict: bool = True

    def flags(self) -> tuple[str, ...]:
        """The words of the command line that say the same, less those that say what is so anyway."""
        said: dict[str, str | None] = {
            "--model-type": None if self.model_type == "auto" else self.model_type,
            "--architecture": self.architecture,
            "--architecture-args": json.dumps(self.architecture_args) if self.architecture_args else None,
            "--alphabet": None if self.form.alphabet == "auto" else self.form.alphabet,
            "--input-layout": None if self.form.layout == "auto" else self.form.layout,
        }
        words = [word for flag, value in said.items() if value is not None for word in (flag, value)]
        words += ["--trust-pickle"] if self.trust_pickle else []
        words += [word for text in self.form.extra for word in ("--extra-input", text)]
        words += [word for plugin in self.plugins for word in ("--plugin", str(plugin))]
        return tuple(words)

    def load(self) -> LoadedModel:
        """The model as its file has it."""
        return load_model(
            self.path,
            model_type=self.model_type,
            architecture=self.architecture,
            architecture_args=self.architecture_args,
            trust_pickle=self.trust_pickle,
        )

    def adapt(self, model: LoadedModel, length: int) -> LoadedModel:
        """The model taking (batch, 4, length) in A, C, G, T order."""
        adapted = adapt(model, self.form, length)
        for note in adapted.notes:
            log.info("%s: %s.", self.path, note)
        return adapted

    def program(
        self,
        model: LoadedModel,
        targets: tuple[Target, ...],
        length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[Program, tuple[Readout, ...]]:
        """The model narrowed to its targets, captured and lowered, and how its output is read.

        Refused operations are still in it.
        """
        facts = check_targets(model.module, targets, length, model_length=model.input_length)
        rules = rules_with_plugins(self.plugins)
        root = ".".join(part for part in ("model", model.root) if part)
        head = TargetHead(model.module, targets)
        captured = capture(head, (4, length), device=device, dtype=dtype, root=root, rules=rules)
        program = lower(captured, rules, strict=self.strict)
        for note in program.notes:
            log.warning("%s", note)
        for approximation in program.approximations:
            log.warning("no exact rule, gradient used: %s", approximation.sentence())
        return program, _readouts(targets, head.widths(facts))


def _readouts(targets: tuple[Target, ...], widths: list[int]) -> tuple[Readout, ...]:
    """Columns of the output and definition of the score, for every target."""
    stops = list(accumulate(widths))
    kinds: dict[str, ReadoutKind] = {
        "profile-bpnet": "bpnet",
        "profile-chrombpnet": "chrombpnet",
        "profile-bpnetlite": "bpnetlite",
    }
    return tuple(
        Readout(stop - width, stop, kinds.get(target.kind, "number"))
        for target, width, stop in zip(targets, widths, stops, strict=True)
    )
